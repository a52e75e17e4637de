import { camelCased, configuration, object, snakeCased } from './keys.js';
import { OK, cString, invoke, native, wordAt } from './native.js';
import { call, own, sharedCall } from './queue.js';

/** Shown where a token is printed. All else, the server's own members included, may be secret. */
const shown = /** @type {const} */ ([
  'session',
  'generation',
  'expiry',
  'expiresAtS',
  'tokenType',
  'scope',
  'instanceUrl',
]);

export class Token {
  #members;

  /** @param {Record<string, any>} members the library's answer; kept, so not to be changed */
  constructor(members) {
    this.#members = members;
    Object.freeze(this);
  }

  get accessToken() {
    return this.#members.access_token;
  }

  get tokenType() {
    return this.#members.token_type;
  }

  get refreshToken() {
    return this.#members.refresh_token;
  }

  get idToken() {
    return this.#members.id_token;
  }

  get scope() {
    return this.#members.scope;
  }

  get instanceUrl() {
    return this.#members.instance_url;
  }

  get session() {
    return this.#members.session;
  }

  get generation() {
    return this.#members.generation;
  }

  get expiry() {
    return this.#members.expiry;
  }

  get expiresAtS() {
    return this.#members.expires_at_s;
  }

  // A token is handed out again while it is good: what the server said of its life counts from now, not from then.
  get expiresIn() {
    const { expires_at_s: end, expires_in: life } = this.#members;
    return typeof end === 'number' ? Math.max(0, Math.floor(end - Date.now() / 1000)) : life;
  }

  get uncommitted() {
    return this.#members.uncommitted === true;
  }

  /** @param {string} name */
  get(name) {
    if (name === 'expires_in') return this.expiresIn;
    return Object.hasOwn(this.#members, name) ? this.#members[name] : undefined;
  }

  toObject() {
    const copy = structuredClone(this.#members);
    const { expiresIn } = this;
    if (expiresIn !== undefined) copy.expires_in = expiresIn;
    return copy;
  }

  toJSON() {
    return Object.fromEntries(shown.filter((name) => this[name] !== undefined).map((name) => [name, this[name]]));
  }

  /**
   * @param {number} _depth
   * @param {import('node:util').InspectOptionsStylized} options
   * @param {typeof import('node:util').inspect} inspect
   */
  [Symbol.for('nodejs.util.inspect.custom')](_depth, options, inspect) {
    return `Token ${inspect(this.toJSON(), options)}`;
  }
}

/** The longest that a timer of Node runs. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * @typedef {import('./native.js').Handle} Handle
 * @typedef {import('./queue.js').Wait} Wait
 */

export class Session {
  #handle;
  #word;
  /** @type {string | undefined} */
  #firstUrl;

  // An answer from memory stays the answer while the word has not changed and the clock has not passed its end.
  #seen = 0;
  #until = 0;
  /** @type {string | undefined} */
  #accessToken;
  /** @type {Promise<string> | undefined} */
  #promise;
  /** @type {Token | undefined} */
  #token;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;

  // The word when memory had no answer. While waits are under way and it has not changed, memory need not be asked again.
  #stale = 0;
  #waits = 0;

  /**
   * @param {Handle} handle
   * @param {string} name
   */
  constructor(handle, name) {
    /** @type {[bigint]} */
    const address = [0n];
    invoke('evergrant_session_stamp', handle.pointer, cString('the session name', name), address);
    this.#handle = handle;
    this.#word = wordAt(address[0]);
    this.name = name;
  }

  accessTokenNow() {
    // A plain read: the word is another thread's to write, and nothing of JavaScript's waits for it.
    if (this.#word[0] === this.#seen && Date.now() < this.#until) return this.#accessToken;
    return this.#peek();
  }

  /** @param {import('../index.js').TokenOptions} [options] */
  accessToken(options) {
    const hit = this.#hit();
    if (hit !== undefined && this.#suffices(options)) return (this.#promise ??= Promise.resolve(hit));
    return this.#wait('session_access_token', {}, options);
  }

  /** @param {import('../index.js').TokenOptions} [options] */
  async token(options) {
    const hit = this.#hit();
    if (hit !== undefined && this.#token?.accessToken === hit && this.#suffices(options)) return this.#token;
    return this.#keep(await this.#wait('session_token', {}, options));
  }

  /** @param {import('../index.js').RenewOptions} [options] */
  async renew(options = {}) {
    const { rejected, ...others } = object('the options', options);
    return this.#keep(await this.#wait('session_renew', { rejected_access_token: rejected }, others));
  }

  /**
   * @param {string | Token | Record<string, unknown>} token
   * @param {Wait} [wait]
   */
  async save(token, wait) {
    if (typeof token === 'string') token = { refresh_token: token };
    else if (token instanceof Token) token = token.toObject();
    await this.#call('session_save', { token: object('the token', token) }, wait);
  }

  /** @param {Wait} [wait] */
  async describe(wait) {
    return camelCased(await this.#call('session_describe', {}, wait));
  }

  /** @param {Wait} [wait] */
  introspect(wait) {
    return this.#call('session_introspect', {}, wait);
  }

  /** @param {Wait} [wait] */
  async signOut(wait) {
    await this.#call('session_sign_out', {}, wait);
  }

  /** @param {Wait} [wait] */
  async forget(wait) {
    await this.#call('session_forget', {}, wait);
  }

  /**
   * @param {import('../index.js').Destination} to
   * @param {Wait} [wait]
   */
  async move(to, wait) {
    await this.#call('session_move', { to: configuration(to) }, wait);
  }

  /** @param {string | URL} url */
  allows(url) {
    const text = cString('the URL', url instanceof URL ? url.href : url);
    const allowed = [0];
    invoke('evergrant_session_allows', this.#handle.pointer, this.name, text, this.#firstUrl ?? null, allowed);
    if (allowed[0] === 0) return false;
    this.#firstUrl ??= text;
    return true;
  }

  // Bound, so that it works detached, as the `fetch` option of other packages.
  get fetch() {
    /** @type {(input: string | URL | Request, init?: RequestInit) => Promise<Response>} */
    return async (input, init) => (await import('./fetch.js')).sessionFetch(this, input, init);
  }

  #hit() {
    return this.#waits > 0 && this.#word[0] === this.#stale ? undefined : this.accessTokenNow();
  }

  #peek() {
    if (this.#handle.closed) return undefined;
    // Read before the question: whatever changes from now on makes the next call ask again.
    const seen = this.#word[0];
    /** @type {[string | undefined]} */
    const accessToken = [undefined];
    const until = [0];
    if (native.evergrant_session_peek(this.#handle.pointer, this.name, accessToken, until) !== OK) {
      this.#stale = seen;
      this.#drop();
      return undefined;
    }
    if (this.#accessToken !== accessToken[0]) this.#drop();
    clearTimeout(this.#timer);
    this.#seen = seen;
    this.#until = until[0];
    this.#accessToken = accessToken[0];
    // A timer does not follow a clock that is set back.
    const left = Math.min(until[0] - Date.now(), LONGEST_MS);
    this.#timer = own.runInAsyncScope(setTimeout, undefined, this.#drop, left).unref();
    this.#handle.holders.add(this.#drop);
    return accessToken[0];
  }

  #drop = () => {
    clearTimeout(this.#timer);
    this.#handle.holders.delete(this.#drop);
    this.#until = 0;
    this.#accessToken = this.#promise = this.#token = this.#timer = undefined;
  };

  /** @param {Record<string, unknown>} members */
  #keep(members) {
    const token = new Token(members);
    if (!token.uncommitted && this.accessTokenNow() === token.accessToken) this.#token = token;
    return token;
  }

  /**
   * Whether what is held is an answer to these options. What the library would refuse, it is left to refuse.
   * @param {import('../index.js').TokenOptions} [options]
   */
  #suffices(options) {
    if (options === undefined) return true;
    if (options === null) return false;
    const { minValidS = 0, maxWaitMs = 0, signal, ...unknown } = options;
    return (
      typeof options === 'object' &&
      isWhole(minValidS) &&
      isWhole(maxWaitMs) &&
      signal === undefined &&
      Object.keys(unknown).length === 0 &&
      Date.now() + minValidS * 1000 < this.#until
    );
  }

  /**
   * @param {string} name
   * @param {Record<string, unknown>} members
   * @param {import('../index.js').RenewOptions} [options]
   */
  async #wait(name, members, options = {}) {
    const { signal, ...others } = /** @type {Wait} */ (object('the options', options));
    const all = { session: this.name, ...members, options: snakeCased('the options', others) };
    // To renew whatever is there is an order: each one is carried out.
    const how = name === 'session_renew' && members.rejected_access_token === undefined ? call : sharedCall;
    this.#waits++;
    try {
      return await how(this.#handle, name, all, { signal });
    } finally {
      this.#waits--;
    }
  }

  /**
   * @param {string} name
   * @param {Record<string, unknown>} members
   * @param {Wait} [wait]
   */
  #call(name, members, wait) {
    return call(this.#handle, name, { session: this.name, ...members }, wait);
  }
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isWhole(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}
