import koffi from 'koffi';

/** The names of the library's statuses that can end a call. */
export const statuses = [
  'INVALID_ARGUMENT',
  'SIGN_IN_REQUIRED',
  'REFUSED',
  'UNAVAILABLE',
  'TIMED_OUT',
  'STORE',
  'CLOSED',
  'INTERNAL',
];

/** @typedef {Record<string, any> & { status: string, message: string }} Parts the JSON of an `evergrant_error` */

export class EvergrantError extends Error {
  /** @param {Parts} parts */
  constructor(parts) {
    super(parts.message);
    // Callers match on codes: one that a later library adds is, as its contract says, an internal one.
    this.code = `EVERGRANT_${statuses.includes(parts.status) ? parts.status : 'INTERNAL'}`;
    if (parts.session !== undefined) this.session = parts.session;
    if (parts.reason !== undefined) this.reason = parts.reason;
    if (parts.outcome !== undefined) this.outcome = parts.outcome;
    if (parts.error !== undefined) this.error = parts.error;
    if (parts.error_description !== undefined) this.errorDescription = parts.error_description;
    if (parts.error_uri !== undefined) this.errorUri = parts.error_uri;
    if (parts.http_status !== undefined) this.httpStatus = parts.http_status;
    if (parts.retry_after_ms !== undefined) this.retryAfterMs = parts.retry_after_ms;
  }
}
EvergrantError.prototype.name = 'EvergrantError';

/**
 * An argument that the library cannot judge, because it would not reach it as it is.
 * @param {string} message
 */
export function invalid(message) {
  return new EvergrantError({ status: 'INVALID_ARGUMENT', message });
}

export function closed() {
  return new EvergrantError({ status: 'CLOSED', message: 'the client is closed: open a new one' });
}

/** The binary interface that this package was written for. */
export const ABI_VERSION = 1;

const { arch, env, getBuiltinModule: builtin, platform } = process;
const file = platform === 'win32' ? 'evergrant.dll' : `libevergrant.${platform === 'darwin' ? 'dylib' : 'so'}`;

/** Where the library may be, best first: paths, never a name that the system would search for. */
function* candidates() {
  if (env.EVERGRANT_LIBRARY) {
    yield builtin('node:path').resolve(env.EVERGRANT_LIBRARY);
    return;
  }
  const { fileURLToPath } = builtin('node:url');
  try {
    const manifest = import.meta.resolve(`evergrant-${platform}-${arch}/package.json`);
    const path = fileURLToPath(new URL(platform === 'linux' ? `${libc()}/${file}` : file, manifest));
    // Electron reads modules out of an archive, but the system's loader cannot.
    yield process.versions.electron ? path.replace(/\.asar(?=[/\\])/, '.asar.unpacked') : path;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ERR_MODULE_NOT_FOUND') throw error;
  }
  if (import.meta.url.endsWith('/bindings/node/lib/native.js')) {
    for (const profile of ['release', 'debug']) {
      yield fileURLToPath(new URL(`../../../target/${profile}/${file}`, import.meta.url));
    }
  }
}

// A program names its C library's loader in its first page. process.report would take 10 ms.
function libc() {
  const { closeSync, openSync, readSync } = builtin('node:fs');
  const page = Buffer.alloc(4096);
  const program = openSync(process.execPath, 'r');
  readSync(program, page);
  closeSync(program);
  return page.includes('/ld-musl-') ? 'musl' : 'glibc';
}

function load() {
  const tried = [];
  for (const path of candidates()) {
    let library;
    try {
      library = koffi.load(path);
    } catch (error) {
      tried.push(`${path} (${/** @type {Error} */ (error).message})`);
      continue;
    }
    const abi = library.func('evergrant_abi_version', 'uint32_t', [])();
    if (abi === ABI_VERSION) return library;
    throw unusable(
      `The library ${path} has the binary interface ${abi}, but this package, evergrant for Node, needs ` +
        `${ABI_VERSION}: install both in the same version.`,
    );
  }
  throw unusable(
    `There is no evergrant library for ${platform}-${arch}. Install the package evergrant-${platform}-${arch}, an ` +
      'optional dependency of evergrant that npm leaves out with --omit=optional, or name a library in ' +
      `EVERGRANT_LIBRARY. Looked at: ${tried.join('; ') || 'no such package'}.`,
  );
}

/** @param {string} message */
function unusable(message) {
  return Object.assign(new Error(message), { code: 'EVERGRANT_LIBRARY' });
}

// koffi unloads a library that nobody refers to.
const library = load();

const freeString = library.func('evergrant_string_free', 'void', ['void *']);
const text = 'str';
const object = 'void *';
const status = 'int32_t';
const objectOut = koffi.out(koffi.pointer('void *'));
const textOut = koffi.out(koffi.pointer(koffi.disposable('str', freeString)));
const int32Out = koffi.out(koffi.pointer('int32_t'));
const int64Out = koffi.out(koffi.pointer('int64_t'));

/**
 * Every function of include/evergrant.h: what it returns, and what it takes.
 * @type {Record<string, [result: string, ...parameters: (string | typeof textOut)[]]>}
 */
export const prototypes = {
  evergrant_version: [text],
  evergrant_abi_version: ['uint32_t'],
  evergrant_status_name: [text, 'int32_t'],
  evergrant_json_member: [status, text, text, textOut, objectOut],
  evergrant_is_rejection: ['int32_t', 'int32_t', text],
  evergrant_refresh: [status, text, textOut, objectOut],
  evergrant_string_free: ['void', object],
  evergrant_error_status: [status, object],
  evergrant_error_message: [text, object],
  evergrant_error_json: [text, object],
  evergrant_error_free: ['void', object],
  evergrant_client_open: [status, text, objectOut, objectOut],
  evergrant_client_stats: [status, object, textOut, objectOut],
  evergrant_client_events: [status, object, 'uint64_t', 'uint32_t', textOut, objectOut],
  evergrant_client_close: [status, object, 'uint32_t'],
  evergrant_client_free: ['void', object],
  evergrant_session_save: [status, object, text, text, objectOut],
  evergrant_session_token: [status, object, text, text, textOut, objectOut],
  evergrant_session_access_token: [status, object, text, text, textOut, objectOut],
  evergrant_session_renew: [status, object, text, text, text, textOut, objectOut],
  evergrant_session_peek: [status, object, text, textOut, int64Out],
  evergrant_session_stamp: [status, object, text, objectOut, objectOut],
  evergrant_session_allows: [status, object, text, text, text, int32Out, objectOut],
  evergrant_session_describe: [status, object, text, textOut, objectOut],
  evergrant_session_list: [status, object, text, 'uint32_t', textOut, objectOut],
  evergrant_session_introspect: [status, object, text, textOut, objectOut],
  evergrant_session_sign_out: [status, object, text, objectOut],
  evergrant_session_forget: [status, object, text, objectOut],
  evergrant_session_move: [status, object, text, text, objectOut],
  evergrant_sign_in_start: [status, object, text, textOut, objectOut],
  evergrant_sign_in_finish: [status, object, text, text, text, textOut, objectOut],
  evergrant_sign_in_with_browser: [status, object, text, text, textOut, objectOut],
  evergrant_sign_in_with_password: [status, object, text, text, textOut, objectOut],
  evergrant_queue_open: [status, objectOut, int32Out, objectOut],
  evergrant_queue_submit: [status, object, object, 'uint64_t', text, objectOut],
  evergrant_queue_take: [status, object, 'uint32_t', textOut, objectOut],
  evergrant_queue_free: ['void', object],
};

/**
 * The functions by name. Each is bound when it is first used.
 * @type {Record<string, (...args: any[]) => any>}
 */
export const native = {};
for (const [name, [result, ...parameters]] of Object.entries(prototypes)) {
  Object.defineProperty(native, name, {
    configurable: true,
    get() {
      const value = library.func(name, result, parameters);
      Object.defineProperty(native, name, { value });
      return value;
    },
  });
}

/** The number of evergrant_status that means "done". */
export const OK = 0;

/**
 * Calls a function whose last parameter is `error_out`. Only for what never waits.
 * @param {string} name
 * @param {unknown[]} args
 */
export function invoke(name, ...args) {
  /** @type {[bigint | null]} */
  const error = [null];
  if (native[name](...args, error) === OK) return;
  try {
    throw new EvergrantError(JSON.parse(native.evergrant_error_json(error[0])));
  } finally {
    native.evergrant_error_free(error[0]);
  }
}

/**
 * A string as C would see it whole: JSON carries any, an argument of a function ends at a NUL.
 * @param {string} what
 * @param {unknown} value
 */
export function cString(what, value) {
  if (typeof value !== 'string') throw invalid(`${what} must be a string`);
  if (value.includes('\0') || !value.isWellFormed()) throw invalid(`${what} must be text without NUL`);
  return value;
}

/**
 * JSON that says what the value says: what JSON.stringify() would drop or make null is an error.
 * @param {unknown} value
 */
export function json(value) {
  return JSON.stringify(value, (name, member) => {
    if (unspeakable.has(typeof member)) throw invalid(`${name} cannot be a ${typeof member}`);
    if (typeof member === 'number' && !Number.isFinite(member)) throw invalid(`${name} cannot be ${member}`);
    return member;
  });
}
const unspeakable = new Set(['function', 'symbol', 'bigint']);

/** @typedef {{ readonly [index: number]: number }} Word at 0: a 32-bit word of the library, as it is now */

/** @type {Map<bigint, Word>} */
const words = new Map();

/**
 * The word at an address that stays good for the life of the process.
 * @param {bigint} address
 * @returns {Word}
 */
export function wordAt(address) {
  const known = words.get(address);
  if (known !== undefined) return known;
  /** @type {Word} */
  let word;
  try {
    word = new Int32Array(koffi.view(address, 4));
  } catch {
    // Electron allows no memory in an ArrayBuffer that is not its own.
    word = {
      get 0() {
        return koffi.decode.int32(address);
      },
    };
  }
  words.set(address, word);
  return word;
}

/** @typedef {{ pointer: bigint | undefined }} Cell what a client and its finalizer share */

/** @type {Set<Cell>} */
const open = new Set();

/** @type {FinalizationRegistry<Cell>} */
const lost = new FinalizationRegistry(free);

/** @param {Cell} cell */
function free(cell) {
  native.evergrant_client_free(cell.pointer ?? null);
  cell.pointer = undefined;
  open.delete(cell);
}

// What a worker thread leaves open stays open in the process that goes on. (The main thread's is left to the library,
// which lets renewals under way settle.)
process.once('exit', () => {
  if (open.size > 0 && !builtin('node:worker_threads').isMainThread) open.forEach(free);
});

/** An open client of the library, shared by what uses it: freed at once by close, or when nothing uses it any more. */
export class Handle {
  /** @type {Cell} */
  #cell;

  /** @type {Set<() => void>} how sessions that hold a token drop it */
  holders = new Set();

  /** @param {Record<string, unknown>} config */
  constructor(config) {
    /** @type {[bigint | undefined]} */
    const out = [undefined];
    invoke('evergrant_client_open', json(config), out);
    this.#cell = { pointer: out[0] };
    open.add(this.#cell);
    lost.register(this, this.#cell);
  }

  get closed() {
    return this.#cell.pointer === undefined;
  }

  get pointer() {
    if (this.closed) throw closed();
    return this.#cell.pointer;
  }

  free() {
    free(this.#cell);
    for (const drop of this.holders) drop();
  }
}
