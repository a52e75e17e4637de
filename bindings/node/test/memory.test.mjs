// Tokens that a session holds itself, so that a hit is no call at all.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'evergrant';
import { native } from '../node_modules/evergrant/lib/native.js';
import { serverFor, temporaryDirectory } from './support.mjs';

/** Counts all calls of the library while the test runs. */
function counted(t) {
  let calls = 0;
  for (const name of ['evergrant_session_peek', 'evergrant_queue_submit']) {
    const original = native[name];
    Object.defineProperty(native, name, { configurable: true, value: (...args) => (calls++, original(...args)) });
    t.after(() => Object.defineProperty(native, name, { configurable: true, value: original }));
  }
  return () => calls;
}

async function signedIn(t, options, config) {
  const server = await serverFor(t, options);
  const client = new Client(server.config(config));
  t.after(() => client.close());
  const session = client.session('alice');
  await session.save(await server.signIn());
  return { server, client, session };
}

test('a hit calls nothing', async (t) => {
  const { session } = await signedIn(t);
  const token = await session.token();
  const calls = counted(t);
  for (let i = 0; i < 100; i++) {
    assert.equal(session.accessTokenNow(), token.accessToken);
    assert.equal(await session.accessToken(), token.accessToken);
    assert.equal(await session.accessToken({ minValidS: 10, maxWaitMs: 5 }), token.accessToken);
    assert.equal(await session.token(), token);
  }
  assert.equal(calls(), 0);
});

test('what is held is dropped when anything changes it', async (t) => {
  const directory = temporaryDirectory(t);
  const { server, client, session } = await signedIn(t, {}, { store: `sqlite:${join(directory, 'a.db')}` });
  const first = await session.token();
  assert.equal(await session.accessToken(), first.accessToken);
  const other = client.session('alice');
  const second = await other.renew();
  assert.equal(await session.accessToken(), second.accessToken, 'renewed by another object');
  assert.equal(session.accessTokenNow(), second.accessToken);
  assert.equal((await session.token()).generation, 2);

  await other.save(await server.signIn());
  assert.notEqual(session.accessTokenNow(), second.accessToken, 'saved anew');
  assert.equal((await session.token()).generation, 1);

  await other.signOut();
  assert.equal(session.accessTokenNow(), undefined, 'signed out');
  await assert.rejects(session.token(), { code: 'EVERGRANT_SIGN_IN_REQUIRED' });
  assert.notEqual(first.accessToken, second.accessToken);

  await other.save(await server.signIn());
  const last = await session.accessToken();
  await other.forget();
  assert.equal(session.accessTokenNow(), undefined, 'forgotten');
  await other.save(await server.signIn());
  assert.notEqual(await session.accessToken(), last);
});

test('closing a client drops what its sessions hold', async (t) => {
  const { client, session } = await signedIn(t);
  await session.token();
  assert.equal(typeof session.accessTokenNow(), 'string');
  await client.close();
  assert.equal(session.accessTokenNow(), undefined);
  await assert.rejects(session.accessToken(), { code: 'EVERGRANT_CLOSED' });
});

test('a token is held no longer than it is good, by the clock', async (t) => {
  const { session } = await signedIn(t, { access_token_life_ms: 60_000 }, { earlyRenewal: 'off' });
  const { accessToken } = await session.token();
  const calls = counted(t);
  assert.equal(session.accessTokenNow(), accessToken);
  assert.equal(calls(), 0);
  const now = Date.now();
  t.after(() => mock.restoreAll());
  mock.method(Date, 'now', () => now + 3_600_000);
  session.accessTokenNow();
  assert.equal(calls(), 1, 'the library is asked');
});

test('a token is held no longer than it is good, whatever the clock says', async (t) => {
  const { session } = await signedIn(t, { access_token_life_ms: 3_000 }, { earlyRenewal: 'off' });
  const { accessToken } = await session.token();
  const now = Date.now();
  t.after(() => mock.restoreAll());
  mock.method(Date, 'now', () => now - 3_600_000);
  assert.equal(session.accessTokenNow(), accessToken);
  await sleep(3_200);
  assert.equal(session.accessTokenNow(), undefined);
  mock.restoreAll();
  assert.notEqual(await session.accessToken(), accessToken);
});

test('a token that must be valid for longer is asked for', async (t) => {
  const { server, session } = await signedIn(t, { access_token_life_ms: 30_000 }, { earlyRenewal: 'off' });
  const first = await session.token();
  assert.equal((await session.token({ minValidS: 10 })).accessToken, first.accessToken);
  assert.notEqual(await session.accessToken({ minValidS: 40 }).catch(() => 'none'), first.accessToken);
  assert.equal((await server.refreshes()).length, 1);
});

test('where external memory is refused, a word is decoded', async (t) => {
  const { default: koffi } = await import('koffi');
  const { wordAt } = await import('../node_modules/evergrant/lib/native.js');
  const address = koffi.address(koffi.alloc('int32_t', 2));
  const view = new Int32Array(koffi.view(address, 8));
  t.after(() => mock.restoreAll());
  const refusal = mock.method(koffi, 'view', () => {
    throw new Error('External buffers are not allowed');
  });
  const word = wordAt(address);
  view[0] = 7;
  assert.equal(word[0], 7);
  view[0] = -7;
  assert.equal(word[0], -7);
  assert.equal(wordAt(address), word);
  assert.equal(refusal.mock.callCount(), 1);
});
