import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import jsforce from 'jsforce';
import { connect } from '../../recipes/jsforce.mjs';
import { SHORT_LIFE, bearer, serve, signedIn, test } from './kit.mjs';
import { Org } from './org.mjs';

/** A Connection to an org that can move. */
async function withOrg(t, options, config) {
  const site = await signedIn(t, { mode: 'salesforce', ...options }, config);
  const org = new Org(site.isLive);
  const move = async () => {
    const { url, requests } = await serve(t, async (request, response, body) => {
      await site.hold;
      await org.answer(request, response, body, url);
    });
    org.instance = url;
    await site.server.control('settings', { instance_url: url });
    return { url, requests };
  };
  const first = await move();
  await site.session.renew();
  const before = await site.renewals();
  const connection = await connect(jsforce.Connection, site.session, { version: '64.0' });
  connection.bulk.pollInterval = connection.bulk2.pollInterval = 10;
  const { renewals } = site;
  return Object.assign(site, { org, connection, first, move, renewals: async () => (await renewals()) - before });
}

async function upload(job) {
  const batch = job.createBatch();
  batch.once('queue', () => batch.poll(10, 10_000));
  const results = await batch.execute([{ Name: 'a' }]);
  return results.map(({ success }) => success);
}

const APIS = {
  query: async (connection) => assert.equal((await connection.query('SELECT Id FROM Account')).records.length, 1),
  sobject: async (connection) => {
    assert.equal((await connection.sobject('Account').create({ Name: 'a' })).success, true);
  },
  bulk: async (connection) => {
    const job = connection.bulk.createJob('Account', 'insert');
    assert.deepEqual(await upload(job), [true]);
    await job.close();
  },
  bulk2: async (connection) => {
    const input = [{ Name: 'a' }];
    const job = { object: 'Account', operation: 'insert', input };
    const { successfulResults } = await connection.bulk2.loadAndWaitForResults(job);
    assert.equal(successfulResults.length, 1);
  },
  metadata: async (connection) => assert.equal((await connection.metadata.describe()).organizationNamespace, 'ns'),
  soap: async (connection) => assert.equal((await connection.soap.getUserInfo()).userFullName, 'User Example'),
};

for (const [api, call] of Object.entries(APIS)) {
  test(`${api}: it goes on when the token has ended, and when the org has moved`, async (t) => {
    const { connection, session, first, move, expire, renewals } = await withOrg(t);
    await connection.sobject('Account').create({ Name: 'first' });

    await expire();
    await call(connection);
    assert.equal(await renewals(), 1);

    const second = await move();
    await expire();
    const { length } = first.requests;
    await call(connection);
    assert.equal(await renewals(), 2);
    assert.equal(first.requests.length, length + 1);
    assert.equal(connection.instanceUrl, second.url);
    assert.equal(connection.accessToken, await session.accessToken());

    // Another party's renewal says where the org is now: this one need not renew.
    const third = await move();
    await session.renew();
    await call(connection);
    assert.equal(await renewals(), 3);
    assert.equal(connection.instanceUrl, third.url);
  });
}

test('every sobject call, and a query of many pages', async (t) => {
  const { connection, expire, renewals } = await withOrg(t);
  const accounts = connection.sobject('Account');
  const { id } = await accounts.create({ Name: 'a' });
  for (const Name of ['b', 'c', 'd', 'e']) await accounts.create({ Name });
  await expire();
  assert.equal((await accounts.retrieve(id)).Name, 'a');
  await expire();
  assert.equal((await accounts.update({ Id: id, Name: 'z' })).success, true);
  await expire();
  const { records } = await connection.query('SELECT Id, Name FROM Account', { autoFetch: true });
  assert.deepEqual(records.map(({ Name }) => Name), ['z', 'b', 'c', 'd', 'e']);
  await expire();
  assert.equal((await accounts.destroy(id)).success, true);
  assert.equal(await renewals(), 4);
  await assert.rejects(accounts.retrieve(id), { errorCode: 'NOT_FOUND' });
  assert.equal(await renewals(), 4);
});

test('200 calls at a rejection: one renewal', async (t) => {
  const { connection, expire, renewals } = await withOrg(t, { latency_ms: 50 });
  await expire();
  const create = () => connection.sobject('Account').create({ Name: 'a' });
  const created = await Promise.all(Array.from({ length: 200 }, create));
  assert.ok(created.every(({ success }) => success));
  assert.equal(await renewals(), 1);
});

test('a request waits for a renewal under way', async (t) => {
  const { connection, first, server, expire, renewals } = await withOrg(t, { latency_ms: 500 });
  await expire();
  const { length } = await server.refreshes();
  const calls = [connection.sobject('Account').create({ Name: 'a' })];
  while ((await server.refreshes()).length === length) await sleep(10);
  calls.push(connection.sobject('Account').create({ Name: 'b' }));
  await Promise.all(calls);
  assert.deepEqual(first.requests.map(({ status }) => status), [401, 201, 201]);
  assert.equal(await renewals(), 1);
});

test('what another party has renewed is not renewed again', async (t) => {
  const site = await withOrg(t);
  const { connection, session, first, expire, renewals } = site;
  let release;
  site.hold = new Promise((resolve) => { release = resolve; });
  const { accessToken: rejected } = connection;
  const created = connection.sobject('Account').create({ Name: 'a' });
  while (first.requests.length < 1) await sleep(10);
  await expire();
  await session.renew({ rejected });
  release();
  assert.equal((await created).success, true);
  assert.equal(await renewals(), 1);
});

test('where memory has no answer, each request waits for the token once', async (t) => {
  const { session } = await withOrg(t);
  let waits = 0;
  const forgetful = {
    accessTokenNow: () => undefined,
    token: () => {
      waits += 1;
      return session.token();
    },
    renew: (options) => session.renew(options),
    allows: (url) => session.allows(url),
  };
  const connection = await connect(jsforce.Connection, forgetful, { version: '64.0' });
  const accounts = connection.sobject('Account');
  await Promise.all(['a', 'b', 'c'].map((Name) => accounts.create({ Name })));
  await accounts.create({ Name: 'd' });
  assert.equal(waits, 1 + 4);
});

test('across expiry, the org never sees a token that has ended', async (t) => {
  const { connection, first, server, renewals } = await withOrg(t, SHORT_LIFE, { sessionLifetimeS: 2 });
  for (const end = Date.now() + 7000; Date.now() < end; await sleep(50)) {
    await connection.sobject('Account').create({ Name: 'a' });
  }
  await sleep(2500);
  assert.deepEqual(await upload(connection.bulk.createJob('Account', 'insert')), [true]);
  assert.ok((await renewals()) >= 3);
  assert.equal((await server.control('stats')).reuses, 0);
  assert.deepEqual(first.requests.filter(({ status }) => status >= 400), []);
});

test('an org that refuses every token is asked twice', async (t) => {
  const { connection, org, first, renewals } = await withOrg(t);
  org.instance = 'elsewhere';
  const bulk2 = () => connection.bulk2.createJob({ object: 'Account', operation: 'insert' }).open();
  for (const [n, call] of [APIS.query, APIS.metadata, bulk2].entries()) {
    await assert.rejects(call(connection), /refused a token, and the one that was renewed for it/);
    assert.equal(await renewals(), n + 1);
    assert.equal(first.requests.length, 2 * (n + 1));
  }
});

test('a stream that was refused fails, and the next has a new token', async (t) => {
  const { connection, expire, renewals } = await withOrg(t);
  const job = connection.bulk.createJob('Account', 'insert');
  await job.open();
  await expire();
  await assert.rejects(upload(job), /the body is a stream: repeat the call/);
  assert.deepEqual(await upload(job), [true]);
  await job.close();
  assert.equal(await renewals(), 1);
});

test('a session that has ended is the error', async (t) => {
  const { connection, expire, server, session } = await withOrg(t);
  await server.control('users', { user: 'user@example.com', active: false });
  await expire();
  await assert.rejects(connection.query('SELECT Id FROM Account'), /Unable to refresh session due to: .*alice/);
  await assert.rejects(connection.query('SELECT Id FROM Account'), { code: 'EVERGRANT_SIGN_IN_REQUIRED' });
  await assert.rejects(connect(jsforce.Connection, session), { code: 'EVERGRANT_SIGN_IN_REQUIRED' });
});

test('the token goes to the origins of the session only', async (t) => {
  const { connection, session, server } = await withOrg(t);
  const other = await serve(t, (_request, response) => response.end('{}'));
  await assert.rejects(connection.request(`${other.url}/services/data`), /none of the session's origins/);
  assert.equal(other.requests.length, 0);

  const { url, requests } = await serve(t, (request, response) => {
    const location = { '/services/near': '/services/here', '/services/far': `${other.url}/there` }[request.url];
    response.writeHead(location ? 302 : 200, location && { location }).end('{}');
  });
  await server.control('settings', { instance_url: url });
  const { accessToken } = await session.renew();
  await connection.request('/services/near');
  await connection.request('/services/far');
  assert.deepEqual(requests.map(({ path }) => path), ['/services/near', '/services/here', '/services/far']);
  assert.ok(requests.every((request) => bearer(request) === accessToken));
  assert.equal(other.requests.length, 1);
  assert.ok(!JSON.stringify(other.requests[0].headers).includes(accessToken));
});
