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
