/// <reference lib="esnext.disposable" />

/** The version of the loaded library, such as `"0.1.0"`. */
export const version: string;

/**
 * One OAuth client registration at one authorization server (RFC 6749 section 2), with one store of sessions.
 *
 * Make one and keep it. Any number of clients, worker threads and processes may share a store: each expiry costs one
 * request. Close it before the program ends, so that renewals under way settle.
 */
export class Client implements AsyncDisposable {
  /**
   * Opens a client: reads the configuration and the store's file, and sends nothing.
   *
   * @throws {EvergrantError} `EVERGRANT_INVALID_ARGUMENT`, naming the key; `EVERGRANT_STORE`
   */
  constructor(config: Configuration);

  /**
   * A session of this client: the user's grant under a name that you choose, 1 to 255 bytes of UTF-8 without control
   * characters. It need not exist yet. Cheap; keep it where calls are many, for it is where tokens are held.
   *
   * @throws {EvergrantError} `EVERGRANT_INVALID_ARGUMENT`, `EVERGRANT_CLOSED`
   */
  session(name: string): Session;

  /** All sessions in the store, in bytewise order of their names, read page by page. */
  sessions(options?: WaitOptions): AsyncGenerator<SessionEntry, void, undefined>;

  /** Counters since this client was opened. */
  stats(options?: WaitOptions): Promise<Stats>;

  /**
   * What happens, oldest first, until the client is closed. Only the latest events are kept: a gap in `n` says that
   * some were missed.
   */
  events(options?: EventsOptions): AsyncGenerator<Event, void, undefined>;

  /**
   * Lets renewals under way finish, ends every waiting and later call with `EVERGRANT_CLOSED`, and frees the client.
   * May be called again.
   *
   * @throws {EvergrantError} `EVERGRANT_TIMED_OUT`: a renewal was still under way after `maxWaitMs`. The client is
   * closed and freed nevertheless; a later run settles the renewal.
   */
  close(options?: CloseOptions): Promise<void>;

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;

  /**
   * Signs a user in with a browser of this machine (RFC 8252), and saves the session in place of an earlier one. Opens
   * the browser (`$BROWSER`, or the system's own) and waits until the user comes back. To show the URL instead:
   * {@link signInStart} with `listen: true`. If it fails, the session is as it was.
   *
   * @throws {EvergrantError} `EVERGRANT_TIMED_OUT`: the user did not come back within `maxWaitMs`.
   */
  signIn(session: string, request?: BrowserRequest, options?: WaitOptions): Promise<Token>;

  /**
   * Starts a sign-in with an authorization code and PKCE (RFC 6749 section 4.1, RFC 7636). Send the user to
   * `authorizationUrl`; keep the whole answer, secretly, for {@link signInFinish}. Nothing is sent.
   */
  signInStart(request: SignInRequest, options?: WaitOptions): Promise<SignIn>;

  /**
   * Finishes a sign-in: checks `state`, exchanges the code (RFC 6749 section 4.1.3) and saves the session in place of an
   * earlier one. If it fails, the session is as it was.
   *
   * @param signIn The whole answer of {@link signInStart}.
   * @param redirectUrl The URL that the user came back to, with its query. Without one it waits for the user, if the
   * sign-in was started with `listen: true`.
   * @throws {EvergrantError} `EVERGRANT_SIGN_IN_REQUIRED`: the user must sign in again; `EVERGRANT_UNAVAILABLE` with the
   * outcome `not_sent`: the same call may be made again.
   */
  signInFinish(
    session: string,
    signIn: SignIn,
    redirectUrl?: string | URL | null,
    options?: WaitOptions,
  ): Promise<Token>;

  /**
   * Signs a user of a Salesforce Experience Cloud site in with a name and a password, without a browser (Authorization
   * Code and Credentials flow), and saves the session.
   */
  signInWithPassword(session: string, request: PasswordRequest, options?: WaitOptions): Promise<Token>;
}

/** One user's grant. Made by {@link Client.session}; all functions may be used at the same time. */
export class Session {
  private constructor();

  readonly name: string;

  /**
   * An access token that is valid now, for `Authorization: Bearer ...` (RFC 6750 section 2.1); renews it if need be
   * (RFC 6749 section 6). From memory where that is possible.
   *
   * @throws {EvergrantError} `EVERGRANT_SIGN_IN_REQUIRED`: only a new sign-in helps; `EVERGRANT_UNAVAILABLE`: try again
   * after `retryAfterMs`; `EVERGRANT_REFUSED`: correct the configuration; `EVERGRANT_TIMED_OUT`: the renewal goes on
   * without you; `EVERGRANT_STORE`, `EVERGRANT_CLOSED`, `EVERGRANT_INVALID_ARGUMENT`
   */
  accessToken(options?: TokenOptions): Promise<string>;

  /**
   * The same at once, from memory, or undefined where that would take a wait: then use {@link accessToken}.
   * Never throws; undefined too once the client is closed.
   */
  accessTokenNow(): string | undefined;

  /** The same as {@link accessToken}, with all that the server said of the token. */
  token(options?: TokenOptions): Promise<Token>;

  /**
   * A newer token, after a resource server has rejected one (see {@link isRejection}). If somebody has renewed since,
   * that token is the answer, and nothing is sent.
   */
  renew(options?: RenewOptions): Promise<Token>;

  /**
   * Keeps a token endpoint's answer as the session's token, durably: `{ refresh_token, ... }` (RFC 6749 section 5.1), a
   * {@link Token} of {@link refresh}, or just a refresh token.
   *
   * Saving is idempotent: a program may save the refresh token from its secrets at every start. A refresh token that
   * was saved or spent before changes nothing; one never seen replaces the session, like a new sign-in.
   */
  save(token: string | Token | TokenAnswer, options?: WaitOptions): Promise<void>;

  /** What the store knows of the session, without secrets. */
  describe(options?: WaitOptions): Promise<SessionDescription>;

  /** What the authorization server says of the access token (RFC 7662), as it says it. One that has ended is renewed first. */
  introspect(options?: WaitOptions): Promise<Record<string, unknown>>;

  /**
   * Ends the session here and at the server: marks it signed out, revokes its tokens (RFC 7009), erases them. A token
   * that the server could not be told of stays noted, and is revoked later.
   */
  signOut(options?: WaitOptions): Promise<void>;

  /** Erases the session here only; the server is not told, and its tokens stay valid there. */
  forget(options?: WaitOptions): Promise<void>;

  /**
   * Moves the session to another store. At no moment do two stores both believe that they hold its refresh token. After
   * a crash the same call goes on where it stopped; the call the other way round takes it back.
   */
  move(to: Destination, options?: WaitOptions): Promise<void>;

  /**
   * Whether the access token may be sent to this URL: its origin (RFC 6454) is one of `origins` in the configuration;
   * without that key, that of `siteUrl` or of the token's `instance_url`; and where there is neither, that of the first
   * URL that was allowed for this object.
   *
   * @throws {EvergrantError} `EVERGRANT_INVALID_ARGUMENT`, `EVERGRANT_CLOSED`
   */
  allows(url: string | URL): boolean;

  /**
   * The global `fetch` with the session's access token. A rejected token is renewed once, and the request repeated if
   * its body can be. The token goes to the session's own origins only (see {@link allows}). Bound to the session: it
   * can be handed to a package that takes a `fetch`.
   */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
}

/**
 * A token. Printed or made into JSON, it shows no secret: ask for one by its name.
 */
export class Token {
  private constructor();

  readonly accessToken: string;
  /** `"Bearer"`, in the server's spelling. */
  readonly tokenType: string | undefined;
  /** Only of {@link refresh}: a session's refresh token stays in its store. */
  readonly refreshToken: string | undefined;
  readonly idToken: string | undefined;
  readonly scope: string | undefined;
  /** Salesforce: where the user's data is. */
  readonly instanceUrl: string | undefined;
  /** Unix time in seconds; null if nobody knows. */
  readonly expiresAtS: number | null | undefined;
  /** From now on, in seconds. */
  readonly expiresIn: number | undefined;
  /** How {@link expiresAtS} is known: said by the server, taken from `sessionLifetimeS`, or not at all. */
  readonly expiry: 'known' | 'assumed' | 'unknown' | undefined;
  /** Grows by one with every renewal. */
  readonly generation: number | undefined;
  readonly session: string | undefined;
  /** Whether it could not be written to the store yet. */
  readonly uncommitted: boolean;

  /** Any member of the server's answer, by the server's own name. */
  get(name: string): any;

  /** All members, secrets included, by the server's own names. A copy. */
  toObject(): TokenAnswer;

  /** What may be shown. */
  toJSON(): Record<string, unknown>;
}

/** Why a call failed. Its message is complete by itself: what happened, what it means for the session, what to do. */
export class EvergrantError extends Error {
  private constructor();

  readonly name: 'EvergrantError';
  readonly code: ErrorCode;
  /** The session's name. */
  readonly session?: string;
  /** Why a session has ended, or a renewal failed. An open set: treat one that you do not know by `code`. */
  readonly reason?: Reason | (string & {});
  /** What became of the request, wherever one was tried. */
  readonly outcome?: 'not_sent' | 'refused' | 'unknown';
  /** The server's own `error` (RFC 6749 section 5.2). */
  readonly error?: string;
  readonly errorDescription?: string;
  readonly errorUri?: string;
  readonly httpStatus?: number;
  readonly retryAfterMs?: number;
}

export type ErrorCode =
  /** An argument or a configuration key is wrong; the message names it. Nothing was done. */
  | 'EVERGRANT_INVALID_ARGUMENT'
  /** There is no such session, or it has ended; `reason` says why. Only a new sign-in helps. */
  | 'EVERGRANT_SIGN_IN_REQUIRED'
  /** The authorization server refuses this client or request: correct the configuration. The session is kept. */
  | 'EVERGRANT_REFUSED'
  /** The authorization server cannot answer now; try again after `retryAfterMs`. The session is kept. */
  | 'EVERGRANT_UNAVAILABLE'
  /** Your wait has ended; the renewal goes on without you. */
  | 'EVERGRANT_TIMED_OUT'
  /** The store cannot be used; the message says what to do. */
  | 'EVERGRANT_STORE'
  /** The client has been closed. */
  | 'EVERGRANT_CLOSED'
  /** A defect of the library. */
  | 'EVERGRANT_INTERNAL';

export type Reason =
  | 'no_session'
  | 'no_refresh_token'
  | 'expired_or_revoked'
  | 'inactive_user'
  | 'rotation_lost'
  | 'used_elsewhere_or_revoked'
  | 'signed_out'
  | 'lost_reply'
  | 'state_directory'
  | 'store_rolled_back'
  | 'store_not_durable'
  | 'moving'
  | 'moved'
  | 'access_denied'
  | 'code_refused'
  | 'state_mismatch'
  | 'issuer_mismatch'
  | 'no_browser'
  | 'client_refused'
  | 'server_unavailable'
  | 'network'
  | 'bad_answer'
  | 'no_private_key'
  | 'no_introspection_endpoint'
  | 'no_revocation_endpoint';

/**
 * The refresh-token flow itself, once (RFC 6749 section 6). Nothing is stored, and nothing keeps two callers from
 * spending the same refresh token: {@link Session.token} does.
 *
 * @returns The token endpoint's answer, a rotated refresh token included.
 */
export function refresh(request: Configuration & { refreshToken: string }, options?: WaitOptions): Promise<Token>;

/**
 * Whether a resource server's answer means "this access token is dead": a 401, except for bodies that are known never
 * to heal by renewing, and Salesforce's 403 with Bad_OAuth_Token. If so, call {@link Session.renew} with the rejected
 * token, and repeat the request once (RFC 6750 section 3.1).
 */
export function isRejection(status: number, body?: string | null): boolean;

/** A token endpoint's answer (RFC 6749 section 5.1). */
export interface TokenAnswer {
  access_token?: string;
  refresh_token?: string;
  token_type?: string;
  expires_in?: number;
  scope?: string;
  [member: string]: unknown;
}

/** Where sessions are kept: these keys of the configuration. */
export type Destination = Required<Pick<Configuration, 'store'>> &
  Pick<Configuration, 'namespace' | 'encryptionKey' | 'encryptionKeyFile' | 'encryptionKeyEnv'>;

export interface WaitOptions {
  /**
   * Ends the wait: the promise is rejected with the signal's reason. What the call does goes on, a renewal above all.
   */
  signal?: AbortSignal | undefined;
}

export interface TokenOptions extends WaitOptions {
  /** How long to wait for a renewal, in milliseconds. Default: the configuration's `maxWaitMs`. */
  maxWaitMs?: number | undefined;
  /** How long the token must still be valid, in seconds. Default 0. */
  minValidS?: number | undefined;
}

export interface RenewOptions extends TokenOptions {
  /** The access token that was rejected. Without one, the session is renewed unconditionally. */
  rejected?: string | undefined;
  /** Try once past an end or a back-off: a user was repaired, a secret corrected. */
  anyway?: boolean | undefined;
}

export interface CloseOptions extends WaitOptions {
  /** How long to wait for renewals under way, in milliseconds. Default: the configuration's `exitWaitMs`. */
  maxWaitMs?: number | undefined;
}

export interface EventsOptions extends WaitOptions {
  /** Only events after this `n`. Default 0: all that are kept. */
  after?: number | undefined;
  /** `false`: to wait for an event does not keep the process alive. Default true. */
  ref?: boolean | undefined;
}

export interface AuthorizationRequest {
  /** Default: the configuration's. It must make the server give a refresh token. */
  scope?: string | undefined;
  /** More parameters of the authorization request. */
  extra?: Record<string, string> | undefined;
}

export interface BrowserRequest extends AuthorizationRequest {
  /** Default: `http://127.0.0.1/callback`, with a free port; one with a port listens there. */
  redirectUri?: string | undefined;
  /** How long the user may take, in milliseconds. Default 300,000. */
  maxWaitMs?: number | undefined;
}

/** `listen`: this process waits for the user itself, as for {@link Client.signIn}. */
export type SignInRequest =
  | (AuthorizationRequest & { redirectUri: string; listen?: false | undefined })
  | (BrowserRequest & { listen: true });

/** A sign-in that was started. Secret. */
export interface SignIn {
  authorizationUrl: string;
  state: string;
  codeVerifier: string;
  redirectUri: string;
  [member: string]: unknown;
}

export interface PasswordRequest {
  username: string;
  password: string;
  /** One that the app has. It is never called. */
  redirectUri: string;
  scope?: string | undefined;
  /** Where the user's name and password go: HTTP Basic (default), or parameters, as some apps want them. */
  credentialsIn?: 'header' | 'body' | undefined;
}

export type SessionState = 'active' | 'in_doubt' | 'ended' | 'signed_out' | 'moving' | 'moved';

export interface SessionEntry {
  session: string;
  state: SessionState;
  /** Changes with every write. Of 63 bits, so not exact. */
  version: number;
  /** Unix time in seconds; null if nobody knows. */
  expiresAtS: number | null;
}

export interface SessionDescription extends SessionEntry {
  reason: Reason | (string & {}) | null;
  /** The reason in words, and what to do. */
  message?: string | null;
  generation: number;
  expiry: 'known' | 'assumed' | 'unknown';
  renewedAtS: number | null;
  /** Who renews now, since when, and until when at most. */
  attempt: { owner: string; sinceS: number; untilS: number; [member: string]: unknown } | null;
  retryAfterMs: number | null;
  /** The latest 16 renewals. */
  history: {
    atS: number;
    party: string;
    outcome: string;
    reason: string | null;
    /** A keyed hash. */
    refreshTokenFingerprint: string | null;
    durationMs: number | null;
    [member: string]: unknown;
  }[];
  [member: string]: unknown;
}

export interface Stats {
  /** Tokens from the library's memory. What a {@link Session} object holds itself is not counted. */
  hits: number;
  storeReads: number;
  adopted: number;
  waits: number;
  /** By outcome. */
  exchanges: Record<string, number>;
  replays: number;
  commitRetries: number;
  cachedSessions: number;
  openExchanges: number;
  [member: string]: unknown;
}

export interface Event {
  /** Counts the events of this client. */
  n: number;
  /** Unix time in seconds. */
  atS: number;
  kind:
    | 'renewed'
    | 'adopted'
    | 'renewal_failed'
    | 'ended'
    | 'saved'
    | 'signed_out'
    | 'moved'
    | 'commit_pending'
    | 'signature_mismatch'
    | 'store_warning'
    | 'forgotten'
    | 'revocation_failed'
    | 'introspection_failed'
    | (string & {});
  session?: string;
  outcome?: string;
  reason?: string;
  durationMs?: number;
  [member: string]: unknown;
}

/**
 * A configuration. docs/configuration.md says more of every key; errors name keys as they stand there
 * (`client_id` for `clientId`).
 */
export interface Configuration {
  /** Alone, instead of all others: a JSON file that holds them, as in docs/configuration.md. */
  configFile?: string | undefined;

  /** Salesforce: the site, My Domain or login host, any path prefix included. */
  siteUrl?: string | undefined;
  /** An OpenID or RFC 8414 server whose endpoints are discovered. */
  issuer?: string | undefined;
  /** RFC 6749 section 3.2. */
  tokenEndpoint?: string | undefined;
  /** RFC 6749 section 3.1. */
  authorizationEndpoint?: string | undefined;
  /** RFC 7662. */
  introspectionEndpoint?: string | undefined;
  /** RFC 7009. */
  revocationEndpoint?: string | undefined;

  /** RFC 6749 section 2.2. */
  clientId?: string | undefined;
  /** The secret itself. At most one of these three keys. */
  clientSecret?: string | undefined;
  /** A file that holds the secret. */
  clientSecretFile?: string | undefined;
  /** The name of an environment variable that holds the secret. */
  clientSecretEnv?: string | undefined;
  /** For `private_key_jwt` (RFC 7523): a PEM file with an RSA or P-256 key. It is read at each use. */
  privateKeyFile?: string | undefined;
  /** The `kid` of the assertions. */
  keyId?: string | undefined;
  /** Default: `ES256` with a P-256 key, else `RS256`. */
  assertionAlgorithm?: 'RS256' | 'PS256' | 'ES256' | undefined;
  /** The `aud` of the assertions. Default: `issuer`, else the token endpoint. */
  assertionAudience?: string | undefined;
  /** Default: `client_secret_basic` with a secret, `private_key_jwt` with a private key, else `none`. */
  clientAuth?: 'client_secret_basic' | 'client_secret_post' | 'private_key_jwt' | 'none' | undefined;
  /** What `Authorization: Basic` encodes. Default: `raw` with `siteUrl`, else `form` (RFC 6749 section 2.3.1). */
  basicEncoding?: 'raw' | 'form' | undefined;
  /** The scope to ask for at a renewal. */
  scope?: string | undefined;
  /** More parameters of a renewal. */
  refreshParameters?: Record<string, string> | undefined;
  /** More parameters of an authorization request. */
  authorizeParameters?: Record<string, string> | undefined;
  /** Where a renewal's parameters go. Default `body`. */
  parametersIn?: 'body' | 'headers' | undefined;
  /** The `User-Agent` header. */
  userAgent?: string | undefined;

  /**
   * `sqlite:PATH`, `memory:` (private to the client), or for several machines `postgres://…`, `redis://…` or
   * `rediss://…`, with an encryption key. Default: one file for each `clientId` in the home directory.
   */
  store?: string | undefined;
  /** Which sessions of the store are this client's. Default: token endpoint and `clientId`. */
  namespace?: string | undefined;
  /** 32 bytes in base64, or a list of such: the first seals, all open. At most one of these three keys. */
  encryptionKey?: string | readonly string[] | undefined;
  /** A file that holds one or more. */
  encryptionKeyFile?: string | undefined;
  /** The name of an environment variable that holds one or more. */
  encryptionKeyEnv?: string | undefined;

  /** The life to assume for an access token where the server does not say it, in seconds. */
  sessionLifetimeS?: number | undefined;
  /** Ask the server when a token ends that came without that (RFC 7662). */
  expiryFromIntrospection?: boolean | undefined;
  /** How long before its end a token is renewed early, in seconds. Default: the last fifth of its life, at most 600. */
  renewBeforeS?: number | undefined;
  /** `wait` for hosts that freeze a process after its answer. Default `background`. */
  earlyRenewal?: 'background' | 'wait' | 'off' | undefined;
  /** Memory is trusted no longer than this without one read of the store, in seconds. Default 60. */
  recheckS?: number | undefined;
  /** `false`: use what others renew, never spend a refresh token, write nothing. Default true. */
  renews?: boolean | undefined;

  /** What to do when the reply to a renewal was lost. Default `replay`. */
  lostReply?: 'replay' | 'sign_in' | undefined;
  /** For how long the server documents that it answers a used refresh token again, in seconds. Default: what is known of the server, else 0. */
  reuseWindowS?: number | undefined;
  /** Of several answers to one refresh token the server lets only the latest live. Default: what is known of the server. */
  newestWins?: boolean | undefined;

  /** From the decision to renew until the first byte of the request. Default 10,000. */
  connectTimeoutMs?: number | undefined;
  /** From then until the answer. Default 60,000. */
  exchangeTimeoutMs?: number | undefined;
  /** How long a caller waits. Default 10,000. */
  maxWaitMs?: number | undefined;
  /** How long a close and a normal exit wait for renewals under way. Default 5,000. */
  exitWaitMs?: number | undefined;
  /** Threads for renewals, at one time. Default 32. */
  maxExchanges?: number | undefined;
  /** Sessions kept in memory. Default 100,000. */
  maxCachedSessions?: number | undefined;

  /** Where {@link Session.fetch} and other adapters may send the token, such as `["https://api.example.com"]`. */
  origins?: readonly string[] | undefined;

  /** Certificates in PEM whose owners may sign for a server, besides those that the system trusts. */
  caFile?: string | undefined;
  /** This client's certificate in PEM, and those that lead to its root (mutual TLS, RFC 8705). */
  clientCertificateFile?: string | undefined;
  /** Its private key in PEM, without a password. */
  clientKeyFile?: string | undefined;
  /** `http://`, `https://` or `socks5://`, then `user:password@` if need be, and `host:port`. */
  proxy?: string | undefined;
}
