import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { SHORT_LIFE, bearer, rejected, serve, signedIn, test } from './kit.mjs';

const TEXT = 'näme=välue';
const bytes = () => new TextEncoder().encode(TEXT);
const form = () => {
  const form = new FormData();
  form.set('name', TEXT);
  return form;
};

/** Body → what a server reads of it. */
const REPEATABLE = {
  none: [() => undefined, /^$/],
  string: [() => TEXT, /^näme=välue$/],
  URLSearchParams: [() => new URLSearchParams({ a: 'b c' }), /^a=b\+c$/],
  FormData: [form, /name="name"\r\n\r\nnäme=välue\r\n/],
  Blob: [() => new Blob([TEXT]), /^näme=välue$/],
  ArrayBuffer: [() => bytes().buffer, /^näme=välue$/],
  Uint8Array: [bytes, /^näme=välue$/],
  DataView: [() => new DataView(bytes().buffer), /^näme=välue$/],
};

const STREAMS = {
  ReadableStream: () => ReadableStream.from([bytes()]),
  Readable: () => Readable.from([bytes()]),
  generator: async function* () { yield bytes(); },
};

const post = (body) => ({ method: 'POST', body, ...(body?.[Symbol.asyncIterator] && { duplex: 'half' }) });

/** A session, and a resource server that echoes what comes with a live token. */
async function withResource(t, options, config, reject = rejected) {
  const site = await signedIn(t, options, config);
  const { url, requests } = await serve(t, async (request, response, body) => {
    if (await site.isLive(bearer(request))) response.end(body);
    else reject(request, response);
  });
  return { ...site, url, requests };
}

test('the token goes along, and the rest as it is', async (t) => {
  const { session, url, requests, renewals } = await withResource(t);
  const response = await session.fetch(`${url}/a?b=c#d`, {
    method: 'PUT',
    headers: { 'X-Kept': 'yes' },
    body: TEXT,
    signal: null,
  });
  assert.equal(response.status, 200);
  assert.equal(await response.text(), TEXT);
  assert.equal(bearer(requests[0]), await session.accessToken());
  assert.deepEqual([requests[0].method, requests[0].path, requests[0].headers['x-kept']], ['PUT', '/a?b=c', 'yes']);
  assert.equal(await renewals(), 0);
});

test('it works detached, and takes a string, a URL and a Request', async (t) => {
  const { session: { fetch }, url, requests } = await withResource(t);
  for (const input of [url, new URL(url), new Request(url, { headers: { 'X-Kept': 'yes' } })]) {
    assert.equal((await fetch(input)).status, 200);
  }
  assert.equal(requests[2].headers['x-kept'], 'yes');
});

test('what has no origin goes to fetch as it is', async (t) => {
  const { session } = await signedIn(t);
  for (const input of ['no URL', undefined, 'ftp://localhost/']) {
    await assert.rejects(session.fetch(input), TypeError);
  }
  assert.equal(await (await session.fetch('data:,text')).text(), 'text');
});

for (const [kind, [body, expected]] of Object.entries(REPEATABLE)) {
  test(`a rejection is healed once: ${kind}`, async (t) => {
    const { session, url, requests, expire, renewals } = await withResource(t);
    for (const [before, send] of [
      () => session.fetch(url, { ...post(body()), signal: null }),
      () => session.fetch(new Request(url, post(body()))),
      () => session.fetch(new Request(url, post('another')), post(body() ?? '')),
    ].entries()) {
      await expire();
      const response = await send();
      assert.equal(response.status, 200);
      assert.match(await response.text(), expected);
      assert.equal(await renewals(), before + 1);
      assert.equal(requests.length, 2 * (before + 1));
      const [first, second] = requests.slice(-2);
      assert.notEqual(bearer(first), bearer(second));
      assert.equal(first.body.length, second.body.length);
    }
  });
}

for (const [kind, body] of Object.entries(STREAMS)) {
  test(`a body that cannot be sent again: the rejection, and the next call has a new token: ${kind}`, async (t) => {
    const { session, url, requests, expire, renewals } = await withResource(t);
    await expire();
    const response = await session.fetch(url, post(body()));
    assert.equal(response.status, 401);
    assert.equal(await response.text(), 'rejected');
    assert.equal(await renewals(), 1);
    assert.equal(requests.length, 1);
    assert.equal(await (await session.fetch(url, post(body()))).text(), TEXT);
    assert.equal(await renewals(), 1);
  });
}

test('of a Request, a body above 1 MiB is not sent again', async (t) => {
  const { session, url, requests, expire } = await withResource(t);
  for (const [size, status] of [[1024 * 1024, 200], [1024 * 1024 + 1, 401]]) {
    await expire();
    const response = await session.fetch(new Request(url, post(Buffer.alloc(size))));
    assert.equal(response.status, status);
    await response.arrayBuffer();
  }
  assert.deepEqual(requests.map(({ body }) => body.length - 1024 * 1024), [0, 0, 1]);
});

test('an answer before the end of the body is not waited with', async (t) => {
  const { session, renewals } = await signedIn(t);
  const { url } = await serve(t, rejected, { readsBodies: false });
  const endless = new ReadableStream({ start: (controller) => controller.enqueue(bytes()) });
  const response = await session.fetch(new Request(url, post(endless)));
  assert.equal(response.status, 401);
  assert.equal(await renewals(), 1);
});

test('a second rejection is the answer', async (t) => {
  const { session, renewals } = await signedIn(t);
  const { url, requests } = await serve(t, rejected);
  const response = await session.fetch(url);
  assert.equal(response.status, 401);
  assert.equal(await response.text(), 'rejected');
  assert.equal(requests.length, 2);
  assert.equal(await renewals(), 1);
});

test('the rejections of Salesforce are healed: 401 of its REST API, and 403 of its userinfo', async (t) => {
  const { server, session, expire, renewals } = await signedIn(t, { mode: 'salesforce', strict_instance: true });
  for (const [n, path] of ['/services/data/v64.0/limits', '/services/oauth2/userinfo'].entries()) {
    await expire();
    assert.equal((await session.fetch(server.url + path)).status, 200);
    assert.equal(await renewals(), n + 1);
  }
});

test('an error that is no rejection comes as it is, and whole', async (t) => {
  const { session, renewals } = await signedIn(t);
  const long = 'x\0'.repeat(150 * 1024);
  const answers = [
    [401, '{"error":"insufficient_scope"}'], [403, long], [404, ''], [500, 'INVALID_SESSION_ID'], [503, long],
  ];
  const { url, requests } = await serve(t, (request, response) => {
    const [status, body] = answers[Number(request.url.slice(1))];
    response.writeHead(status).end(body);
  });
  for (const [n, [status, body]] of answers.entries()) {
    const response = await session.fetch(`${url}/${n}`);
    assert.equal(response.status, status);
    assert.equal(await response.text(), body);
  }
  assert.equal(requests.length, answers.length);
  assert.equal(await renewals(), 0);
});

test('a rejection without end is let go', async (t) => {
  let isClosed = false;
  const { session, url, requests, expire } = await withResource(t, {}, {}, (_request, response) => {
    response.on('close', () => { isClosed = true; }).writeHead(401).write('x'.repeat(80 * 1024));
  });
  await expire();
  const response = await session.fetch(url);
  assert.equal(response.status, 200);
  assert.equal(requests.length, 2);
  for (let more = 0; more < 10; more += 1) await (await session.fetch(url)).text();
  assert.ok(isClosed);
});

test('200 requests at a rejection: one renewal, and all are healed', async (t) => {
  const { session, url, requests, expire, renewals } = await withResource(t, { latency_ms: 50 });
  await session.fetch(url);
  await expire();
  const responses = await Promise.all(Array.from({ length: 200 }, (_, n) => session.fetch(url, post(`${n}`))));
  assert.deepEqual(await Promise.all(responses.map((response) => response.text())), responses.map((_, n) => `${n}`));
  assert.equal(await renewals(), 1);
  const refused = requests.filter((request) => bearer(request) === bearer(requests[0])).length - 1;
  assert.ok(refused > 1, `${refused} were rejected`);
  assert.equal(requests.length, 1 + 200 + refused);
});

test('across expiry, a resource server never sees a token that has ended', async (t) => {
  const { server, session, url, requests, renewals } = await withResource(t, SHORT_LIFE);
  let sent = 0;
  for (const end = Date.now() + 7000; Date.now() < end; await sleep(50)) {
    assert.equal((await session.fetch(url)).status, 200);
    sent += 1;
  }
  assert.equal(requests.length, sent);
  assert.ok((await renewals()) >= 2);
  assert.equal((await server.control('stats')).reuses, 0);
});

test("the caller's own Authorization wins, and is not healed", async (t) => {
  const { session, url, requests, renewals } = await withResource(t);
  const own = { AUTHORIZATION: 'Basic b3duOm93bg==' };
  for (const send of [
    () => session.fetch(url, { headers: own }),
    () => session.fetch(new Request(url, { headers: own })),
  ]) {
    assert.equal((await send()).status, 401);
    assert.equal(requests.at(-1).headers.authorization, own.AUTHORIZATION);
  }
  assert.equal(requests.length, 2);
  assert.equal(await renewals(), 0);
});

test('another origin gets no token, is not healed, and waits for none', async (t) => {
  const { server, client, renewals } = await signedIn(t, {}, { origins: ['https://api.example.com'] });
  const { url, requests } = await serve(t, rejected);
  const { refresh_token } = await server.signIn();
  const session = client.session('bob');
  await session.save(refresh_token);
  assert.equal((await session.fetch(url)).status, 401);
  assert.equal(requests.length, 1);
  assert.equal(requests[0].headers.authorization, undefined);
  assert.equal(await renewals(), 0);
});

/** Its /from redirects. */
async function redirecting(t) {
  const site = await signedIn(t);
  const { url, requests } = await serve(t, async (request, response, body) => {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost');
    const location = searchParams.get('to') ?? '/to';
    if (pathname === '/from') response.writeHead(searchParams.get('code'), { location }).end();
    else if (await site.isLive(bearer(request))) response.end(body);
    else rejected(request, response);
  });
  return { ...site, url, requests };
}

test('a redirect within the origin keeps the token, and a rejection behind it is healed', async (t) => {
  const { session, requests, url, expire, renewals } = await redirecting(t);
  await expire();
  for (const code of [302, 303, 307, 308]) {
    const response = await session.fetch(`${url}/from?code=${code}`, post(TEXT));
    assert.equal(response.status, 200, `${code}`);
    assert.equal(response.url, `${url}/to`);
    assert.equal(await response.text(), code < 307 ? '' : TEXT);
  }
  assert.equal(await renewals(), 1);
  assert.ok(requests.every(bearer));
});

test('a redirect to another origin loses the token, and a rejection there is not healed', async (t) => {
  const { session, requests, url, renewals } = await redirecting(t);
  const other = await serve(t, rejected);
  for (const code of [301, 302, 303, 307, 308]) {
    const response = await session.fetch(`${url}/from?code=${code}&to=${other.url}`);
    assert.equal(response.status, 401);
    assert.equal(response.url, `${other.url}/`);
  }
  assert.equal(other.requests.length, 5);
  assert.ok(other.requests.every(({ headers }) => headers.authorization === undefined));
  assert.ok(requests.every(bearer));
  assert.equal(await renewals(), 0);
});

test('a session that moves while its token is waited for: the instance that it leaves gets none', async (t) => {
  const { server, client } = await signedIn(t, { mode: 'salesforce' }, { sessionLifetimeS: 1, earlyRenewal: 'off' });
  const former = await serve(t, rejected);
  await server.control('settings', { instance_url: former.url });
  const session = client.session('bob');
  await session.save(await server.signIn());
  assert.equal(session.allows(former.url), true);
  await server.control('settings', { instance_url: server.url });
  while (session.accessTokenNow() !== undefined) await sleep(50);

  assert.equal((await session.fetch(former.url)).status, 401);
  assert.deepEqual(former.requests.map(({ headers }) => headers.authorization), [undefined]);
  assert.equal(session.allows(former.url), false);
});

test('an instance that the session has left gets no new token', async (t) => {
  const { server, session } = await signedIn(t, { mode: 'salesforce' });
  const former = await serve(t, rejected);
  const next = await serve(t, (_request, response) => response.end('here'));
  await server.control('settings', { instance_url: former.url });
  const { instanceUrl } = await session.renew();
  assert.equal(instanceUrl, former.url);

  await server.control('settings', { instance_url: next.url });
  const response = await session.fetch(`${instanceUrl}/services/data`);
  assert.equal(response.status, 401);
  assert.equal(await response.text(), 'rejected');
  assert.equal(former.requests.length, 1);
  assert.notEqual(bearer(former.requests[0]), await session.accessToken());

  const { instanceUrl: current } = await session.token();
  assert.equal(await (await session.fetch(`${current}/services/data`)).text(), 'here');
  assert.equal(bearer(next.requests[0]), await session.accessToken());
});

test('the signal ends the wait for a token', async (t) => {
  const { server, client, url, requests } = await withResource(t);
  const session = client.session('bob');
  const { refresh_token } = await server.signIn();
  await session.save(refresh_token);
  await server.faults({ fault: 'hang', count: null });
  const reason = new Error('enough');
  for (const send of [
    (signal) => session.fetch(url, { signal }),
    (signal) => session.fetch(new Request(url, { signal })),
  ]) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(send(controller.signal), reason);
    await assert.rejects(send(AbortSignal.abort(reason)), reason);
  }
  await server.control('faults', undefined, 'DELETE');
  assert.equal(requests.length, 0);
});

test('the signal ends the wait for a renewal after a rejection', async (t) => {
  const { server, session, url, requests, expire } = await withResource(t);
  await session.fetch(url);
  await expire();
  await server.faults({ fault: 'hang', count: null });
  const reason = new Error('enough');
  const controller = new AbortController();
  const pending = session.fetch(url, { signal: controller.signal });
  while (requests.length < 2) await sleep(10);
  setTimeout(() => controller.abort(reason), 50);
  await assert.rejects(pending, reason);
  assert.equal(requests.length, 2);
});

test('a session that has ended is the error, before and after a rejection', async (t) => {
  const { server, client, session, url, requests, expire } = await withResource(t);
  await session.fetch(url);
  await server.control('users', { user: 'user@example.com', active: false });
  await expire();
  const ended = { code: 'EVERGRANT_SIGN_IN_REQUIRED' };
  await assert.rejects(session.fetch(url), ended);
  assert.equal(requests.length, 2);
  await assert.rejects(session.fetch(url), ended);
  await assert.rejects(client.session('nobody').fetch(url), ended);
  assert.equal(requests.length, 2);
});
