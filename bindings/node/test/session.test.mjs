import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Client, EvergrantError, Session, Token, isRejection, refresh } from 'evergrant';
import { serverFor, temporaryDirectory } from './support.mjs';

const code = (name) => ({ name: 'EvergrantError', code: `EVERGRANT_${name}` });

async function signedIn(t, options, config) {
  const server = await serverFor(t, options);
  const client = new Client(server.config(config));
  t.after(() => client.close());
  const session = client.session('alice');
  const answer = await server.signIn();
  await session.save(answer);
  return { server, client, session, answer };
}

test('a session, from its first token to its end', async (t) => {
  const { server, client, session, answer } = await signedIn(t, { access_token_life_ms: 3_600_000 });

  const first = await session.token();
  assert.ok(first instanceof Token);
  assert.equal(first.accessToken, answer.access_token);
  assert.equal(first.generation, 1);
  assert.equal(first.session, 'alice');
  assert.equal(first.expiry, 'known');
  assert.ok(first.expiresIn > 3_500 && first.expiresIn <= 3_600);
  assert.equal(first.get('expires_in'), first.expiresIn);
  assert.equal(first.get('toString'), undefined);
  assert.equal(first.refreshToken, undefined);
  assert.equal(first.toObject().access_token, answer.access_token);

  const renewed = await session.renew();
  assert.equal(renewed.generation, 2);
  assert.notEqual(renewed.accessToken, first.accessToken);
  assert.equal(session.accessTokenNow(), renewed.accessToken);
  assert.equal((await session.renew({ rejected: first.accessToken })).accessToken, renewed.accessToken);
  assert.equal((await server.refreshes()).length, 1);

  const description = await session.describe();
  assert.equal(description.state, 'active');
  assert.equal(description.generation, 2);
  assert.equal(description.history.length, 2);
  assert.ok(description.history.every(({ atS }) => Number.isInteger(atS)));
  const stats = await client.stats();
  assert.equal(stats.exchanges.done, 1);
  assert.equal(stats.openExchanges, 0);

  assert.equal((await session.introspect()).active, true);

  await session.signOut();
  await assert.rejects(session.token(), { ...code('SIGN_IN_REQUIRED'), reason: 'signed_out', session: 'alice' });
  assert.equal(session.accessTokenNow(), undefined);
  assert.equal((await server.control('tokens'))[0].revoked.why, 'revoked');
  await session.forget();
  await assert.rejects(session.describe(), code('SIGN_IN_REQUIRED'));
});

test('a session moves to another store', async (t) => {
  const directory = temporaryDirectory(t);
  const [here, there] = ['here.db', 'there.db'].map((file) => `sqlite:${join(directory, file)}`);
  const { server, session } = await signedIn(t, {}, { store: here });
  const token = await session.token();
  await session.move({ store: there, namespace: 'ours' });
  await assert.rejects(session.renew(), { ...code('STORE'), reason: 'moved' });
  const other = new Client(server.config({ store: there, namespace: 'ours' }));
  t.after(() => other.close());
  const moved = other.session('alice');
  assert.equal(await moved.accessToken(), token.accessToken);
  assert.equal((await moved.renew()).generation, token.generation + 1);
});

test('sessions are listed over pages, in order', async (t) => {
  const { client } = await signedIn(t);
  const names = Array.from({ length: 250 }, (_, i) => `user-${String(i).padStart(3, '0')}`);
  await Promise.all(names.map((name) => client.session(name).save(`refresh token of ${name}`)));
  const listed = [];
  for await (const { session, state } of client.sessions()) {
    assert.equal(state, 'active');
    listed.push(session);
  }
  assert.deepEqual(listed, ['alice', ...names]);
});

test('what is saved may be an answer, a Token or a refresh token, and counts once', async (t) => {
  const { server, client, session, answer } = await signedIn(t);
  const token = await refresh({ ...server.config({ store: undefined }), refreshToken: answer.refresh_token });
  assert.equal(token.get('refresh_token'), token.refreshToken);
  await client.session('bob').save(token);
  assert.equal(await client.session('bob').accessToken(), token.accessToken);
  const { refresh_token: another } = await server.signIn('carol@example.com');
  await client.session('carol').save(another);
  const first = await client.session('carol').token();
  await client.session('carol').save(another);
  assert.equal((await client.session('carol').token()).accessToken, first.accessToken);
  assert.equal(session.name, 'alice');
});

test('neither a token nor an error shows a secret', async (t) => {
  const extra = { id_token: 'SECRET-ID-TOKEN', other: 'SECRET-OTHER' };
  const { server, session, answer } = await signedIn(t, { extra });
  const token = await session.renew();
  const refreshToken = (await server.signIn()).refresh_token;
  const bare = await refresh({ ...server.config({ store: undefined }), refreshToken });
  for (const shown of [token, bare, { token }, [bare], session]) {
    for (const text of [inspect(shown, { depth: 9, showHidden: true }), JSON.stringify(shown), `${shown}`]) {
      for (const secret of [token.accessToken, bare.accessToken, bare.refreshToken, answer.refresh_token, 'SECRET']) {
        assert.ok(!text.includes(secret), text);
      }
    }
  }
  assert.match(inspect(token), /^Token \{.*session: 'alice'/s);
  assert.equal(token.idToken, 'SECRET-ID-TOKEN');
  assert.throws(() => {
    token.accessToken = 'another';
  }, TypeError);
});

test('errors say what the server said', async (t) => {
  const { server, session } = await signedIn(t);
  await server.faults({ fault: 'status', code: 503, retry_after: '7' });
  await assert.rejects(session.renew(), (error) => {
    assert.ok(error instanceof EvergrantError && error instanceof Error);
    assert.equal(error.code, 'EVERGRANT_UNAVAILABLE');
    assert.equal(error.httpStatus, 503);
    assert.equal(error.outcome, 'unknown');
    assert.equal(error.session, 'alice');
    assert.ok(error.retryAfterMs > 0);
    assert.match(error.stack, /^EvergrantError: /);
    return true;
  });
  const other = new Client(server.config({ clientSecret: 'wrong' }));
  t.after(() => other.close());
  await other.session('bob').save('a refresh token');
  await assert.rejects(other.session('bob').token(), { ...code('REFUSED'), error: 'invalid_client' });
});

test('wrong input is an error that names it', async (t) => {
  const { server, client, session } = await signedIn(t);
  const config = server.config();
  const wrong = code('INVALID_ARGUMENT');

  for (const value of [undefined, null, 'a', [], 7]) assert.throws(() => new Client(value), wrong);
  assert.throws(() => new Client({ ...config, clientID: 'x' }), { ...wrong, message: /"clientID".*"client_id"/ });
  assert.throws(() => new Client({ ...config, client_id: 'x' }), { ...wrong, message: /clientId/ });
  assert.throws(() => new Client({ ...config, maxWaitMs: Infinity }), { ...wrong, message: /max_wait_ms/ });
  assert.throws(() => new Client({ ...config, maxWaitMs: 1n }), { ...wrong, message: /max_wait_ms/ });
  assert.throws(() => new Client({ ...config, scope: () => 'api' }), { ...wrong, message: /scope/ });
  assert.throws(() => new Client({ ...config, proxy: 'localhost' }), { ...wrong, message: /proxy/ });

  for (const name of [undefined, null, 7, {}, '', 'a\0b', 'a\nb', '\ud800', 'x'.repeat(256)]) {
    assert.throws(() => client.session(name), wrong, String(name));
  }
  assert.throws(() => new Session({}, 'alice'), Error);

  const wrongOptions = [{ maxWait: 1 }, { maxWaitMs: 'a' }, { maxWaitMs: -1 }, { minValidS: NaN }, { signal: {} }];
  for (const options of [null, 'a', 7, ...wrongOptions]) {
    const what = inspect(options);
    await assert.rejects(session.token(options), wrong, what);
    await assert.rejects(session.accessToken(options), wrong, what);
    await assert.rejects(session.renew(options), wrong, what);
  }
  await assert.rejects(session.renew({ rejected: 7 }), wrong);
  await assert.rejects(session.renew({ anyway: 'yes' }), wrong);
  for (const token of [undefined, null, 7, [], {}, '', { refresh_token: 7 }, { access_token: 'a\nb' }]) {
    await assert.rejects(session.save(token), wrong, inspect(token));
  }
  for (const name of ['describe', 'introspect', 'signOut', 'forget']) {
    await assert.rejects(session[name]({ signal: 'a' }), wrong, name);
  }
  for (const url of [undefined, null, 7, '', 'nowhere', 'https://', 'https://a\0b']) {
    assert.throws(() => session.allows(url), wrong, String(url));
  }

  await assert.rejects(client.sessions({ signal: 1 }).next(), wrong);
  await assert.rejects(client.stats({ signal: 1 }), wrong);
  await assert.rejects(client.events({ after: -1 }).next(), wrong);
  await assert.rejects(client.events({ after: 'a' }).next(), wrong);
  await assert.rejects(client.close({ maxWaitMs: 'a' }), wrong);
  assert.equal(typeof session.accessTokenNow(), 'string', 'a close that was refused closes nothing');

  for (const request of [undefined, null, 7, {}]) {
    await assert.rejects(client.signInStart(request), wrong);
    await assert.rejects(client.signInFinish('alice', request, 'https://localhost/'), wrong);
    await assert.rejects(client.signInWithPassword('alice', request), wrong);
    if (request !== undefined && Object(request) !== request) {
      await assert.rejects(client.signIn('alice', request), wrong);
    }
    await assert.rejects(refresh(request), wrong);
  }
  await assert.rejects(refresh(config), wrong);
  for (const status of [undefined, null, '401', 401.5, NaN]) assert.throws(() => isRejection(status), wrong);
  assert.throws(() => isRejection(401, 7), wrong);
  assert.throws(() => isRejection(401, Buffer.from('a')), wrong);
});

test('a closed client answers with CLOSED, whatever it is asked', async (t) => {
  const { server, client, session } = await signedIn(t);
  const closed = code('CLOSED');
  const waiting = client.events({ after: 1_000 }).next();
  assert.equal(typeof (await session.accessToken()), 'string');
  await client.close();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  assert.equal(session.accessTokenNow(), undefined);
  assert.throws(() => client.session('alice'), closed);
  assert.throws(() => session.allows('https://example.com'), closed);
  // Where its memory was, others may be by now.
  const others = Array.from({ length: 20 }, () => new Client(server.config()));
  t.after(() => Promise.all(others.map((other) => other.close())));
  const calls = [
    () => session.token(),
    () => session.accessToken(),
    () => session.renew(),
    () => session.save('a'),
    () => session.describe(),
    () => session.introspect(),
    () => session.signOut(),
    () => session.forget(),
    () => client.stats(),
    () => client.sessions().next(),
    () => client.signIn('alice'),
    () => client.signInStart({ redirectUri: 'a' }),
  ];
  for (const call of calls) await assert.rejects(call, closed, String(call));
  assert.deepEqual(await client.events().next(), { done: true, value: undefined });
  await client.close();
  await client[Symbol.asyncDispose]();
});

test('closing lets a renewal finish, and says if it has not', async (t) => {
  const directory = temporaryDirectory(t);
  const server = await serverFor(t);
  const config = server.config({ store: `sqlite:${join(directory, 'a.db')}` });
  const client = new Client(config);
  const session = client.session('alice');
  await session.save(await server.signIn());
  const struck = async () => {
    while ((await server.control('faults')).length > 0) await sleep(10);
  };
  await server.faults({ fault: 'delay', before_ms: 1_000 });
  const renewal = assert.rejects(session.renew(), code('CLOSED'));
  await struck();
  await Promise.all([renewal, client.close({ maxWaitMs: 10_000 })]);
  const next = new Client(config);
  assert.equal((await next.session('alice').token()).generation, 2);
  await server.faults({ fault: 'delay', before_ms: 3_000 });
  const another = assert.rejects(next.session('alice').renew(), code('CLOSED'));
  await struck();
  await Promise.all([another, assert.rejects(next.close({ maxWaitMs: 10 }), code('TIMED_OUT'))]);
  assert.throws(() => next.session('alice'), code('CLOSED'));
});

test('the session that is not there', async (t) => {
  const { client } = await signedIn(t);
  await assert.rejects(client.session('nobody').token(), { ...code('SIGN_IN_REQUIRED'), reason: 'no_session' });
});

test('where a token may go', async (t) => {
  const { server, client, session } = await signedIn(t, {}, { origins: ['https://api.example.com'] });
  assert.equal(session.allows('https://api.example.com/a?b'), true);
  assert.equal(session.allows(new URL('https://api.example.com:443')), true);
  assert.equal(session.allows('https://other.example.com'), false);
  assert.equal(session.allows(server.url), false);

  const open = new Client(server.config());
  t.after(() => open.close());
  const first = open.session('alice');
  assert.equal(first.allows('http://example.com/'), false, 'not https: does not count as the first');
  assert.equal(first.allows('https://one.example.com/a'), true);
  assert.equal(first.allows('https://two.example.com/'), false);
  assert.equal(first.allows('https://one.example.com/b'), true);
  assert.equal(open.session('alice').allows('https://two.example.com/'), true, 'each object has its own first URL');
  assert.equal(client.session('bob').allows('https://api.example.com'), true);
});

test('what counts as a rejection', () => {
  assert.equal(isRejection(401), true);
  assert.equal(isRejection(401, 'a\0b\ud800'), true);
  assert.equal(isRejection(403, '\0Bad_OAuth_Token'), true);
  assert.equal(isRejection(401, null), true);
  assert.equal(isRejection(403, 'Bad_OAuth_Token'), true);
  assert.equal(isRejection(403, 'something else'), false);
  assert.equal(isRejection(200, ''), false);
});
