import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import axios from 'axios';
import { renewing } from '../../recipes/axios.mjs';
import { bearer, rejected, serve, signedIn, test } from './kit.mjs';

/** Both ways of the recipe. */
const WAYS = {
  interceptors: (session, config) => renewing(axios.create(config), session),
  'fetch adapter': (session, config) => axios.create({ ...config, adapter: 'fetch', env: { fetch: session.fetch } }),
};

/** An instance, and a resource server that echoes what comes with a live token. */
async function withApi(t, way, options, config) {
  const site = await signedIn(t, options, config);
  const { url, requests } = await serve(t, async (request, response, body) => {
    if (await site.isLive(bearer(request))) response.end(body);
    else rejected(request, response);
  });
  return { ...site, url, requests, api: WAYS[way](site.session, { baseURL: url }) };
}

const BODIES = {
  none: [() => undefined, ''],
  object: [() => ({ name: 'välue' }), { name: 'välue' }],
  string: [() => 'välue', 'välue'],
  URLSearchParams: [() => new URLSearchParams({ a: 'b c' }), 'a=b+c'],
  Buffer: [() => Buffer.from('välue'), 'välue'],
};

for (const way of Object.keys(WAYS)) {
  for (const [kind, [body, expected]] of Object.entries(BODIES)) {
    test(`${way}: a rejection is healed once: ${kind}`, async (t) => {
      const { api, requests, expire, renewals } = await withApi(t, way);
      await expire();
      const response = await api.post('/a', body(), { headers: { 'X-Kept': 'yes' }, params: { b: 'c' } });
      assert.deepEqual(response.data, expected);
      assert.equal(await renewals(), 1);
      assert.equal(requests.length, 2);
      assert.notEqual(bearer(requests[0]), bearer(requests[1]));
      for (const request of requests) {
        assert.equal(request.path, '/a?b=c');
        assert.equal(request.headers['x-kept'], 'yes');
        assert.deepEqual(request.body, requests[0].body);
      }
    });
  }

  test(`${way}: FormData is sent again`, async (t) => {
    const { api, requests, expire } = await withApi(t, way);
    await expire();
    const form = new FormData();
    form.set('name', 'välue');
    assert.match((await api.post('/', form)).data, /name="name"\r\n\r\nvälue\r\n/);
    assert.equal(requests.length, 2);
  });

  test(`${way}: a stream is not sent again, and the next call has a new token`, async (t) => {
    const { api, requests, expire, renewals } = await withApi(t, way);
    await expire();
    const post = () => api.post('/', Readable.from([Buffer.alloc(2 * 1024 * 1024)]), { maxRedirects: 0 });
    await assert.rejects(post(), { status: 401 });
    assert.equal((await post()).status, 200);
    assert.equal(requests.length, 2);
    assert.equal(await renewals(), 1);
  });

  test(`${way}: a second rejection is the answer`, async (t) => {
    const { session, renewals } = await signedIn(t);
    const { url, requests } = await serve(t, rejected);
    const api = WAYS[way](session, { baseURL: url });
    await assert.rejects(api.get('/'), ({ response }) => response.status === 401 && response.data === 'rejected');
    assert.equal(requests.length, 2);
    assert.equal(await renewals(), 1);
  });

  test(`${way}: an error that is no rejection is not healed`, async (t) => {
    const { session, renewals } = await signedIn(t);
    const { url, requests } = await serve(t, (_request, response) => {
      response.writeHead(401, { 'content-type': 'application/json' }).end('{"error":"insufficient_scope"}');
    });
    await assert.rejects(WAYS[way](session, { baseURL: url }).get('/'), { status: 401 });
    assert.equal(requests.length, 1);
    assert.equal(await renewals(), 0);
  });

  test(`${way}: 50 requests at a rejection: one renewal`, async (t) => {
    const { api, expire, renewals } = await withApi(t, way, { latency_ms: 50 });
    await api.get('/');
    await expire();
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => api.post('/', `${n}`)));
    assert.deepEqual(answers.map(({ data }) => Number(data)), answers.map((_, n) => n));
    assert.equal(await renewals(), 1);
  });

  test(`${way}: the token goes to the session's origins only, also behind a redirect`, async (t) => {
    const other = await serve(t, rejected);
    const { session, renewals } = await signedIn(t);
    const { url, requests } = await serve(t, (_request, response) => {
      response.writeHead(302, { location: other.url }).end();
    });
    const api = WAYS[way](session);
    await assert.rejects(api.get(url), { status: 401 });
    await assert.rejects(api.get(other.url), { status: 401 });
    assert.ok(requests.every(bearer));
    assert.equal(other.requests.length, 2);
    assert.ok(other.requests.every(({ headers }) => headers.authorization === undefined));
    assert.equal(await renewals(), 0);
  });

  test(`${way}: the caller's own Authorization wins`, async (t) => {
    const { api, requests, renewals } = await withApi(t, way);
    const headers = { authorization: 'Basic b3duOm93bg==' };
    await assert.rejects(api.get('/', { headers }), { status: 401 });
    await assert.rejects(api.get('/', { auth: { username: 'own', password: 'own' } }), { status: 401 });
    assert.deepEqual(requests.map((request) => request.headers.authorization), Array(2).fill(headers.authorization));
    assert.equal(await renewals(), 0);
  });

  test(`${way}: the signal ends the wait for a token`, async (t) => {
    const { server, client, url, requests } = await withApi(t, way);
    const { refresh_token } = await server.signIn();
    const session = client.session('bob');
    await session.save(refresh_token);
    await server.faults({ fault: 'hang', count: null });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    await assert.rejects(WAYS[way](session).get(url, { signal: controller.signal }), /abort|cancel/i);
    assert.equal(requests.length, 0);
  });
}

test('interceptors: a redirect to a subdomain loses the token', async (t) => {
  const { session } = await signedIn(t);
  const { url, requests } = await serve(t, ({ headers }, response) => {
    const { host } = headers;
    if (host.startsWith('sub.')) response.end();
    else response.writeHead(302, { location: `http://sub.${host}` }).end();
  });
  const api = renewing(axios.create({ lookup: async () => '127.0.0.1' }), session);
  assert.equal((await api.get(url.replace('127.0.0.1', 'localhost'))).status, 200);
  assert.deepEqual(requests.map(({ headers }) => Boolean(headers.authorization)), [true, false]);
});
