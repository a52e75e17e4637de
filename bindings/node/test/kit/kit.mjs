// What the tests of this directory share.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test as nodeTest } from 'node:test';
import { Client } from 'evergrant';
import { serverFor } from '../support.mjs';

/** Nothing here takes this long: what does, hangs. */
const HANG_MS = 120_000;

export const test = (name, run) => nodeTest(name, { timeout: HANG_MS }, run);

/** Tokens live longer than they are said to: a slow machine sends one late. */
export const SHORT_LIFE = { access_token_life_ms: 4000, expires_in: 2 };

/**
 * An authorization server of the test's own, and a session that is signed in there. The options are the server's,
 * `config` is the client's. All of it ends with the test.
 */
export async function signedIn(t, options, config) {
  const server = await serverFor(t, options);
  const isSite = options?.mode === 'salesforce';
  const site = { siteUrl: server.url, tokenEndpoint: undefined, revocationEndpoint: undefined };
  const client = new Client(server.config({ ...(isSite && site), ...config }));
  t.after(() => client.close());
  const session = client.session('alice');
  await session.save(await server.signIn());
  const resource = server.url + (isSite ? '/services/data' : '/resource');
  return {
    server,
    client,
    session,
    /** All access tokens end; the refresh tokens stay good. */
    expire: () => server.control('expire', {}),
    renewals: async () => (await server.refreshes()).filter(({ outcome }) => outcome === 'ok').length,
    /** Whether a resource server should take this access token: the authorization server says it. */
    isLive: async (token) => (await fetch(resource, { headers: { authorization: `Bearer ${token}` } })).ok,
  };
}

/** A resource server, and all that it was asked. */
export async function serve(t, answer, { readsBodies = true } = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const body = readsBodies ? Buffer.concat(await request.toArray()) : undefined;
    const { method, url: path, headers } = request;
    const status = () => (response.headersSent ? response.statusCode : undefined);
    requests.push({ method, path, headers, body, get status() { return status(); } });
    await answer(request, response, body);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}

/** Takes no token at all. */
export function rejected(_request, response) {
  response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end('rejected');
}

export const bearer = (request) => /^Bearer (.+)$/.exec(request.headers.authorization)?.[1];
