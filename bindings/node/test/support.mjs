// The test server, for tests: a real authorization server in a process of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** The root of the source tree. */
export const root = process.env.EVERGRANT_ROOT;

const program = process.env.EVERGRANT_TEST_SERVER_PROGRAM ?? join(root, 'target/release/evergrant-test-server');

/**
 * Starts a test server: `const server = await startServer({ rotation: 'strict' })`, then `await using` it or `stop()`.
 * Options are those of tests/support/README.md, in snake_case; `mode` too.
 */
export async function startServer({ mode = 'generic', rotation = 'strict', ...options } = {}) {
  const args = ['--mode', mode, '--rotation', rotation, '--options', JSON.stringify(options), '--exit-with-stdin'];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const lines = createInterface(child.stdout);
  const [line] = await Promise.race([
    once(lines, 'line'),
    ended.then(() => Promise.reject(new Error('the test server did not start'))),
  ]);
  lines.close();
  return new TestServer(child, ended, JSON.parse(line));
}

export class TestServer {
  #child;
  #ended;

  constructor(child, ended, { url, control_url, token_endpoint }) {
    this.#child = child;
    this.#ended = ended;
    this.url = url;
    this.controlUrl = control_url;
    this.tokenEndpoint = token_endpoint;
  }

  /** A client configuration for this server; `memory:` unless told otherwise. */
  config(overrides = {}) {
    return {
      tokenEndpoint: this.tokenEndpoint,
      revocationEndpoint: this.tokenEndpoint.replace(/token$/, 'revoke'),
      introspectionEndpoint: this.tokenEndpoint.replace(/token$/, 'introspect'),
      clientId: 'client',
      clientSecret: 'secret',
      basicEncoding: 'raw',
      store: 'memory:',
      ...overrides,
    };
  }

  /** A first token answer, without a browser. */
  signIn(user = 'user@example.com') {
    return this.control('sign_in', { client_id: 'client', user, scope: 'api refresh_token' });
  }

  /** GET without a body, POST with one; the answer is JSON. */
  async control(path, body, method = body === undefined ? 'GET' : 'POST') {
    const answer = await fetch(`${this.controlUrl}/${path}`, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`control/${path}: ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  }

  faults(...faults) {
    return this.control('faults', faults);
  }

  /** The requests of the token endpoint so far. */
  refreshes() {
    return this.control('log?endpoint=token');
  }

  async stop() {
    this.#child.stdin.end();
    await this.#ended;
  }

  [Symbol.asyncDispose]() {
    return this.stop();
  }
}

/** A directory of the test's own, removed when it ends: `temporaryDirectory(t)`. */
export function temporaryDirectory(t) {
  const path = mkdtempSync(join(tmpdir(), 'evergrant-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Ends with the test, whatever comes of it. */
export async function serverFor(t, options) {
  const server = await startServer(options);
  t.after(() => server.stop());
  return server;
}
