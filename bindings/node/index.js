import { camelCased, configuration, snakeCased } from './lib/keys.js';
import { EvergrantError, Handle, invalid, native } from './lib/native.js';
import { call, check, settled } from './lib/queue.js';
import { Session, Token } from './lib/session.js';

export { EvergrantError, Session, Token };

export const version = native.evergrant_version();

/** @typedef {import('./lib/queue.js').Wait} Wait */

const PAGE = 100;

/** How long one native wait for an event is. Nobody notices its end; it only bounds one that was given up. */
const EVENTS_WAIT_MS = 30_000;

export class Client {
  #handle;

  /** @param {import('./index.js').Configuration} config */
  constructor(config) {
    this.#handle = new Handle(configuration(config));
  }

  /** @param {string} name */
  session(name) {
    return new Session(this.#handle, name);
  }

  /** @param {Wait} [wait] */
  async *sessions(wait) {
    let after;
    do {
      /** @type {Record<string, any>} */
      const page = await this.#call('session_list', { after, limit: PAGE }, wait);
      yield* camelCased(page.sessions);
      after = page.next ?? undefined;
    } while (after !== undefined);
  }

  /** @param {Wait} [wait] */
  async stats(wait) {
    return camelCased(await this.#call('client_stats', {}, wait));
  }

  /** @param {import('./index.js').EventsOptions} [options] */
  async *events({ after = 0, ...wait } = {}) {
    try {
      for (;;) {
        const members = { after, max_wait_ms: EVENTS_WAIT_MS };
        const { events, next } = await this.#call('client_events', members, wait);
        yield* camelCased(events);
        after = next;
      }
    } catch (error) {
      if (!(error instanceof EvergrantError && error.code === 'EVERGRANT_CLOSED')) throw error;
    }
  }

  /**
   * @param {string} session
   * @param {import('./index.js').BrowserRequest} [request]
   * @param {Wait} [wait]
   */
  async signIn(session, request = {}, wait) {
    const members = { session, request: snakeCased('the request', request) };
    return new Token(await this.#call('sign_in_with_browser', members, wait));
  }

  /**
   * @param {import('./index.js').SignInRequest} request
   * @param {Wait} [wait]
   */
  async signInStart(request, wait) {
    return camelCased(await this.#call('sign_in_start', { request: snakeCased('the request', request) }, wait));
  }

  /**
   * @param {string} session
   * @param {import('./index.js').SignIn} signIn
   * @param {string | URL | null} [redirectUrl]
   * @param {Wait} [wait]
   */
  async signInFinish(session, signIn, redirectUrl, wait) {
    const url = redirectUrl instanceof URL ? redirectUrl.href : redirectUrl;
    const members = { session, sign_in: snakeCased('the sign-in', signIn), redirect_url: url };
    return new Token(await this.#call('sign_in_finish', members, wait));
  }

  /**
   * @param {string} session
   * @param {import('./index.js').PasswordRequest} request
   * @param {Wait} [wait]
   */
  async signInWithPassword(session, request, wait) {
    const members = { session, request: snakeCased('the request', request) };
    return new Token(await this.#call('sign_in_with_password', members, wait));
  }

  /** @param {import('./index.js').CloseOptions} [options] */
  async close({ maxWaitMs, signal } = {}) {
    if (this.#handle.closed) return;
    check(signal);
    const closing = this.#call('client_close', { max_wait_ms: maxWaitMs }, { ref: false });
    // Also if nobody waits for it any more; but what was refused has closed nothing.
    const end = (/** @type {any} */ error) => error?.code === 'EVERGRANT_INVALID_ARGUMENT' || this.#handle.free();
    closing.then(end, end);
    await settled(closing, { signal });
  }

  [Symbol.asyncDispose]() {
    return this.close();
  }

  /**
   * @param {string} name
   * @param {Record<string, unknown>} members
   * @param {Wait} [wait]
   */
  #call(name, members, wait) {
    return call(this.#handle, name, members, wait);
  }
}

/**
 * @param {import('./index.js').Configuration & { refreshToken: string }} request
 * @param {Wait} [wait]
 */
export async function refresh(request, wait) {
  return new Token(await call(null, 'refresh', { request: configuration(request) }, wait));
}

/**
 * @param {number} status
 * @param {string | null} [body]
 */
export function isRejection(status, body) {
  if (!Number.isInteger(status)) throw invalid('the status must be a whole number');
  if (body != null && typeof body !== 'string') throw invalid('the body is not a string');
  // A body may be anything, but text for the library has no NUL.
  return native.evergrant_is_rejection(status, body?.replaceAll('\0', ' ').toWellFormed() ?? null) !== 0;
}
