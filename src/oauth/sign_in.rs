//! Sign-in: the authorization code flow with PKCE (RFC 6749 §4.1, RFC 7636) and Salesforce's Authorization Code and
//! Credentials flow will live here.
