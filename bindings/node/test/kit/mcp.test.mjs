import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import * as client2 from '@modelcontextprotocol/client';
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node';
import {
  McpServer, OAuthError, OAuthErrorCode, bearerAuthChallengeResponse, createMcpHandler, verifyBearerToken,
} from '@modelcontextprotocol/server';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { z } from 'zod';
import { transport } from '../../recipes/mcp.mjs';
import { SHORT_LIFE, serve, signedIn, test } from './kit.mjs';

const NAME = { name: 'evergrant-tests', version: '1.0.0' };

/** A real server of each era, and the clients that speak with it. */
const PAIRS = {
  'client 2, protocol of 2026': {
    client: () => new client2.Client(NAME, { versionNegotiation: { mode: 'auto' } }),
    Transport: client2.StreamableHTTPClientTransport,
    server: modern,
  },
  'client 2, protocol of 2025': {
    client: () => new client2.Client(NAME),
    Transport: client2.StreamableHTTPClientTransport,
    server: withSessions,
  },
  'sdk 1': { client: () => new Client1(NAME), Transport: Transport1, server: withSessions },
};

function mcpServer() {
  const server = new McpServer(NAME, { capabilities: { logging: {} } });
  server.registerTool('double', { inputSchema: z.object({ n: z.number() }) }, ({ n }) => ({
    content: [{ type: 'text', text: `${2 * n}` }],
  }));
  return server;
}

/** Every request by itself. */
function modern() {
  return { handle: toNodeHandler(createMcpHandler(mcpServer, { legacy: 'reject' })) };
}

/** A session of the protocol, with an event stream that the client keeps open. */
function withSessions() {
  const sessions = new Map();
  const handle = async (request, response) => {
    const id = request.headers['mcp-session-id'];
    let session = sessions.get(id);
    if (!id) {
      session = { server: mcpServer(), transport: new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => void sessions.set(id, session),
      }) };
      await session.server.connect(session.transport);
    }
    await session.transport.handleRequest(request, response);
  };
  return { handle, sessions };
}

/** Signed in, and connected to an MCP server that asks for a live token with every request. */
async function connected(t, { client: newClient, Transport, server: newServer }, options) {
  const site = await signedIn(t, options);
  const verifier = {
    async verifyAccessToken(token) {
      if (!(await site.isLive(token))) throw new OAuthError(OAuthErrorCode.InvalidToken, 'the access token has ended');
      return { token, clientId: 'client', scopes: [], expiresAt: Date.now() / 1000 + 60 };
    },
  };
  const { handle, sessions } = newServer();
  const { url, requests } = await serve(t, async (request, response) => {
    try {
      request.auth = await verifyBearerToken(request.headers.authorization, { verifier });
    } catch (error) {
      const challenge = bearerAuthChallengeResponse(error);
      response.writeHead(challenge.status, Object.fromEntries(challenge.headers)).end(await challenge.text());
      return;
    }
    await handle(request, response);
  }, { readsBodies: false });

  const client = newClient();
  const reconnectionOptions = {
    initialReconnectionDelay: 10, maxReconnectionDelay: 10, reconnectionDelayGrowFactor: 1, maxRetries: 2,
  };
  await client.connect(transport(Transport, `${url}/mcp`, site.session, { reconnectionOptions }));
  t.after(() => client.close());
  return { ...site, client, requests, sessions, double: (n) => double(client, n) };
}

async function double(client, n) {
  const { content } = await client.callTool({ name: 'double', arguments: { n } });
  return Number(content[0].text);
}

for (const [pair, parts] of Object.entries(PAIRS)) {
  test(`${pair}: it goes on when the token has ended`, async (t) => {
    const { double, requests, expire, renewals } = await connected(t, parts);
    assert.equal(await double(1), 2);
    for (const n of [2, 3, 4]) {
      await expire();
      assert.equal(await double(n), 2 * n);
      assert.equal(await renewals(), n - 1);
    }
    assert.ok(requests.every(({ headers }) => headers.authorization));
    assert.equal(requests.filter(({ status }) => status === 401).length, 3);
  });

  test(`${pair}: 50 calls at a rejection: one renewal`, async (t) => {
    const { double, expire, renewals } = await connected(t, parts, { latency_ms: 50 });
    await expire();
    const numbers = Array.from({ length: 50 }, (_, n) => n);
    assert.deepEqual(await Promise.all(numbers.map(double)), numbers.map((n) => 2 * n));
    assert.equal(await renewals(), 1);
  });

  test(`${pair}: across expiry, the server never sees a token that has ended`, async (t) => {
    const { double, requests, server, renewals } = await connected(t, parts, SHORT_LIFE);
    for (const end = Date.now() + 6000; Date.now() < end; await sleep(50)) assert.equal(await double(21), 42);
    assert.ok((await renewals()) >= 2);
    assert.equal((await server.control('stats')).reuses, 0);
    assert.deepEqual(requests.filter(({ status }) => status === 401), []);
  });

  test(`${pair}: to connect heals too, and what cannot be healed is the error`, async (t) => {
    const { client, session, server, requests, expire } = await connected(t, parts);
    await expire();
    const another = parts.client();
    t.after(() => another.close());
    await another.connect(transport(parts.Transport, new URL('/mcp', `http://${requests[0].headers.host}`), session));
    assert.equal(await double(another, 4), 8);

    await server.control('users', { user: 'user@example.com', active: false });
    await expire();
    await assert.rejects(double(client, 1), { code: 'EVERGRANT_SIGN_IN_REQUIRED' });
  });
}

for (const [pair, parts] of Object.entries(PAIRS).filter(([, { server }]) => server === withSessions)) {
  test(`${pair}: the event stream is opened again with a new token`, async (t) => {
    const { client, sessions, requests, expire, renewals } = await connected(t, parts);
    const events = new EventEmitter();
    client.fallbackNotificationHandler = async ({ method }) => void events.emit(method);
    const streams = () => requests.filter(({ method, status }) => method === 'GET' && status === 200).length;
    while (streams() < 1) await sleep(10);

    await expire();
    const [{ server, transport }] = sessions.values();
    transport.closeStandaloneSSEStream();
    while (streams() < 2) await sleep(10);
    const changed = once(events, 'notifications/tools/list_changed');
    server.sendToolListChanged();
    await changed;
    assert.equal(await renewals(), 1);
  });
}
