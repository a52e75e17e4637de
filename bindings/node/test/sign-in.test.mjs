// Sign-in in each of its ways; a small program stands for the browser.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { Client } from 'evergrant';
import { root, serverFor } from './support.mjs';

const run = promisify(execFile);
const browser = join(root, 'tests/browser.py');
const scope = 'api refresh_token';

/** A client of a Salesforce site, and a redirect URI of it. */
async function site(t) {
  const server = await serverFor(t, { mode: 'salesforce' });
  const config = { siteUrl: `${server.url}/customers`, clientId: 'client', clientSecret: 'secret', store: 'memory:' };
  const client = new Client(config);
  t.after(() => client.close());
  return { server, client, config, redirectUri: `${config.siteUrl}/services/oauth2/echo` };
}

/** Where the browser ends that opens the sign-in's URL. */
async function visit({ authorizationUrl }) {
  const { stdout } = await run('python3', [browser, authorizationUrl]);
  return stdout.trim();
}

/** A new session that renews. */
async function begins(session, token) {
  assert.equal(token.generation, 1);
  assert.equal(token.refresh_token, undefined);
  assert.equal(await session.accessToken(), token.accessToken);
  assert.equal((await session.renew()).generation, 2);
}

/** $BROWSER for the rest of the test. */
function browse(t, command) {
  const { BROWSER } = process.env;
  process.env.BROWSER = command;
  t.after(() => {
    if (BROWSER === undefined) delete process.env.BROWSER;
    else process.env.BROWSER = BROWSER;
  });
}

test('a user signs in and comes back to the program', async (t) => {
  const { client, redirectUri } = await site(t);
  const signIn = await client.signInStart({ redirectUri, scope, extra: { login_hint: 'alice' } });
  const url = await visit(signIn);
  await begins(client.session('alice'), await client.signInFinish('alice', signIn, new URL(url)));
  await assert.rejects(client.signInFinish('alice', signIn, url), {
    code: 'EVERGRANT_SIGN_IN_REQUIRED',
    reason: 'code_refused',
    outcome: 'refused',
    session: 'alice',
  });
  await assert.rejects(client.signInFinish('alice', signIn, url.replace('state=', 'state=x')), {
    code: 'EVERGRANT_INVALID_ARGUMENT',
    reason: 'state_mismatch',
  });
  await assert.rejects(client.signInFinish('alice', signIn), { code: 'EVERGRANT_INVALID_ARGUMENT' });
  assert.equal((await client.session('alice').token()).generation, 2);
});

test('a user signs in with a browser of this machine', async (t) => {
  const { client } = await site(t);
  browse(t, `python3 ${browser}`);
  await begins(client.session('alice'), await client.signIn('alice', { scope }));
  browse(t, '/nowhere/browser');
  await assert.rejects(client.signIn('alice'), { code: 'EVERGRANT_INVALID_ARGUMENT', reason: 'no_browser' });
  browse(t, 'true');
  await assert.rejects(client.signIn('alice', { maxWaitMs: 50 }), { code: 'EVERGRANT_TIMED_OUT' });
  const signal = AbortSignal.timeout(50);
  await assert.rejects(client.signIn('alice', {}, { signal }), { name: 'TimeoutError' });
  const waiting = client.signIn('alice');
  await Promise.all([assert.rejects(waiting, { code: 'EVERGRANT_CLOSED' }), client.close()]);
});

test('a program shows the URL itself', async (t) => {
  const { client } = await site(t);
  const signIn = await client.signInStart({ scope, listen: true, maxWaitMs: 60_000 });
  const [token] = await Promise.all([client.signInFinish('alice', signIn), visit(signIn)]);
  await begins(client.session('alice'), token);
});

test('a user signs in by name and password', async (t) => {
  const { server, client, redirectUri } = await site(t);
  const user = { username: 'user@example.com', password: 'password', redirectUri, scope };
  await begins(client.session('alice'), await client.signInWithPassword('alice', user));
  const token = await client.signInWithPassword('bob', { ...user, credentialsIn: 'body' });
  await begins(client.session('bob'), token);
  await assert.rejects(client.signInWithPassword('alice', { ...user, password: 'wrong' }), {
    code: 'EVERGRANT_SIGN_IN_REQUIRED',
    reason: 'access_denied',
    errorDescription: 'authentication failure',
  });
  assert.deepEqual(await server.control('log?endpoint=echo'), []);
});

test('Ctrl-C ends a wait for the browser', async (t) => {
  const { config } = await site(t);
  const program = `import { Client } from 'evergrant';
    const client = new Client(${JSON.stringify(config)});
    console.log('waiting');
    await client.signIn('alice');`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    env: { ...process.env, BROWSER: 'true' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  await new Promise((resolve) => setTimeout(resolve, 300));
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGINT']);
});
