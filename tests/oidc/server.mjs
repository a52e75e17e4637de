// A real authorization server for tests: oidc-provider on 127.0.0.1, any free port, refresh token rotation on.
// It signs one user in with each of its clients, or with OIDC_TLS lets users do that at its own pages; prints one JSON line
// (README.md), and serves until stdin ends or SIGTERM.

import { constants, createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import { Provider } from 'oidc-provider';

const ACCESS_TOKEN_LIFE_S = Number(process.env.OIDC_ACCESS_TOKEN_LIFE_S || 5);
if (!(ACCESS_TOKEN_LIFE_S > 0)) throw new Error('OIDC_ACCESS_TOKEN_LIFE_S: a number of seconds above 0');

// A file with a certificate and its key: with it, https, and users who come with a browser.
const TLS = process.env.OIDC_TLS && readFileSync(process.env.OIDC_TLS);

const REDIRECT_URI = 'https://app.example/callback'; // never fetched: the code is read from the redirect itself
const LOOPBACK_URI = 'http://127.0.0.1/callback'; // with any port: RFC 8252 §7.3
const SCOPE = 'openid offline_access';

// Ids and secrets with every character that RFC 6749 §2.3.1 makes awkward. RFC 6749 appendix A allows %x20-7E only.
const CLIENTS = [
  { client_auth: 'client_secret_basic', client_id: 'basic: a+b%20c &=/?~', client_secret: 's:e+c%72 &=/?~%C3%A9' },
  { client_auth: 'client_secret_post', client_id: 'post: a+b%20c &=/?~', client_secret: 'p:o+s%74 &=/?~%' },
  { client_auth: 'none', client_id: 'public: a+b%20c &=/?~' },
  ...['RS256', 'PS256', 'ES256'].map(keyClient),
];

/** A client that authenticates by a private key of its own, with which it must sign in just this way. */
function keyClient(algorithm) {
  const kind = algorithm === 'ES256' ? ['ec', { namedCurve: 'P-256' }] : ['rsa', { modulusLength: 2048 }];
  const { privateKey, publicKey } = generateKeyPairSync(...kind);
  const key_id = `key of ${algorithm}`;
  return {
    client_auth: 'private_key_jwt',
    client_id: `${algorithm}: a+b%20c &=/?~`,
    key_id,
    assertion_algorithm: algorithm,
    private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: key_id, alg: algorithm, use: 'sig' }] },
  };
}

function startProvider(issuer) {
  const provider = new Provider(issuer, {
    clients: CLIENTS.map(({ client_auth, client_id, client_secret, assertion_algorithm, jwks }) => ({
      client_id,
      client_secret,
      token_endpoint_auth_method: client_auth,
      token_endpoint_auth_signing_alg: assertion_algorithm,
      jwks,
      grant_types: ['authorization_code', 'refresh_token'],
      application_type: 'native', // which may come back to any port of the loopback address (RFC 8252 §7.3)
      redirect_uris: [REDIRECT_URI, LOOPBACK_URI],
    })),
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    rotateRefreshToken: true,
    clockTolerance: 0,
    pkce: { required: () => true },
    ttl: { AccessToken: ACCESS_TOKEN_LIFE_S, RefreshToken: 86_400, Grant: 86_400, Session: 86_400, Interaction: 600, IdToken: 60 },
    features: { devInteractions: { enabled: Boolean(TLS) }, revocation: { enabled: true }, introspection: { enabled: true } },
    ...(!TLS && { interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` } }),
    cookies: { keys: [randomBytes(32).toString('hex')] },
    jwks: { keys: [generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })] },
  });

  const stats = count(provider);
  provider.use(async (ctx, next) => {
    if (ctx.path === '/_stats') ctx.body = stats;
    else if (!TLS && ctx.path.startsWith('/interaction/')) ctx.redirect(await interact(provider, ctx));
    else await next();
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  return { provider, stats };
}

/** Counters behind GET /_stats. A reuse is judged by the tokens presented, so that it shows however the provider answered it. */
function count(provider) {
  const spent = new Set();
  const refused = [];
  const stats = {
    refresh_ok: 0,
    refresh_failed: 0,
    get reuse_detected() { return this.refresh_ok - spent.size + refused.filter((token) => spent.has(token)).length; },
    grant_revoked: 0,
  };
  const onRefresh = (note) => (ctx, error) => {
    const { grant_type, refresh_token } = ctx.oidc.params ?? {};
    if (grant_type === 'refresh_token') note(refresh_token, error);
  };
  provider.on('grant.success', onRefresh((token) => {
    stats.refresh_ok += 1;
    spent.add(token);
  }));
  provider.on('grant.error', onRefresh((token, error) => {
    stats.refresh_failed += 1;
    if (error.error === 'invalid_grant') refused.push(token);
  }));
  provider.on('grant.revoked', () => { stats.grant_revoked += 1; });
  return stats;
}

/** The pages that a user would see, with a user who says yes to everything. Returns where to go on. */
async function interact(provider, { req, res }) {
  const { prompt, params, session } = await provider.interactionDetails(req, res);
  if (prompt.name === 'login') return provider.interactionResult(req, res, { login: { accountId: 'alice' } });

  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionResult(req, res, { consent: { grantId: await grant.save() } });
}

/** The authorization code flow with PKCE S256, as a browser and an application would run it. Returns the token answer. */
async function signIn(metadata, client) {
  const { client_auth, client_id, client_secret } = client;
  const verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(16).toString('base64url');
  const authorization = new URL(metadata.authorization_endpoint);
  authorization.search = new URLSearchParams({
    client_id,
    response_type: 'code',
    redirect_uri: REDIRECT_URI,
    scope: SCOPE,
    prompt: 'consent', // OpenID Connect Core §11: no offline_access without it
    state,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });

  const callback = await browse(authorization);
  if (callback.searchParams.get('state') !== state || !callback.searchParams.has('code')) {
    throw new Error(`${client_auth}: no code for us in ${callback}`);
  }

  const headers = {};
  const body = new URLSearchParams({
    grant_type: 'authorization_code', code: callback.searchParams.get('code'), redirect_uri: REDIRECT_URI, code_verifier: verifier,
  });
  if (client_auth === 'private_key_jwt') {
    body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
    body.set('client_assertion', assertion(metadata, client));
  } else if (client_auth === 'client_secret_basic') {
    const userinfo = [client_id, client_secret].map(encodeURIComponent).join(':');
    headers.authorization = `Basic ${Buffer.from(userinfo).toString('base64')}`;
  } else {
    body.set('client_id', client_id);
    if (client_secret) body.set('client_secret', client_secret);
  }
  const answer = await fetch(metadata.token_endpoint, { method: 'POST', headers, body });
  const token = await answer.json();
  if (!token.refresh_token) throw new Error(`${client_auth}: no refresh token: ${answer.status} ${JSON.stringify(token)}`);
  return token;
}

/** RFC 7523 §3. */
function assertion({ issuer }, { client_id, key_id, assertion_algorithm, private_key }) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: client_id, sub: client_id, aud: issuer, jti: randomBytes(16).toString('hex'), iat: now, exp: now + 60 };
  const encode = (json) => Buffer.from(JSON.stringify(json)).toString('base64url');
  const signed = `${encode({ alg: assertion_algorithm, kid: key_id })}.${encode(claims)}`;
  const padding = assertion_algorithm === 'PS256' ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 } : {};
  const signature = sign('sha256', Buffer.from(signed), { key: private_key, dsaEncoding: 'ieee-p1363', ...padding });
  return `${signed}.${signature.toString('base64url')}`;
}

/** Follows redirects with a cookie jar of its own, until one leaves for the application. */
async function browse(start) {
  const jar = new Map();
  let url = start;
  for (let hops = 0; hops < 10; hops += 1) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      jar.set(name, value);
    }
    const location = answer.headers.get('location');
    if (!location) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(REDIRECT_URI)) return url;
  }
  throw new Error('the sign-in goes round in circles');
}

const server = TLS ? https.createServer({ cert: TLS, key: TLS }) : http.createServer();
await once(server.listen(0, '127.0.0.1'), 'listening');
const issuer = `${TLS ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
const { provider, stats } = startProvider(issuer);
server.on('request', provider.callback());

const stop = () => process.exit(0);
process.on('SIGTERM', stop);
process.stdin.on('end', () => process.stdout.write(`${JSON.stringify(stats)}\n`, stop)).on('error', stop).resume();
process.stdout.on('error', stop); // nobody wants to know

const clients = CLIENTS.map(({ jwks, ...client }) => client);
const metadata = TLS ? {} : await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
if (!TLS) for (const client of clients) client.token = await signIn(metadata, client);
const { authorization_endpoint, token_endpoint, revocation_endpoint, introspection_endpoint, userinfo_endpoint } = metadata;
const endpoints = { authorization_endpoint, token_endpoint, revocation_endpoint, introspection_endpoint, userinfo_endpoint };
console.log(JSON.stringify({ issuer, ...endpoints, clients }));
