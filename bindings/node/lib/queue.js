// Every call that may wait goes through one queue of the library: none of them holds a thread, and what has finished
// makes a descriptor readable that the event loop watches. One queue for each JavaScript environment (a worker thread
// loads modules of its own), made at the first call.
import { EvergrantError, invalid, invoke, json, native } from './native.js';

/**
 * @typedef {import('./native.js').Handle} Handle
 * @typedef {{ resolve: (value: any) => void, reject: (error: unknown) => void, handle: Handle | null }} Pending
 * @typedef {{ promise: Promise<any>, since: number }} Flight
 * @typedef {{ signal?: AbortSignal | undefined, ref?: boolean | undefined }} Wait
 *   `ref: false`: this wait does not keep the process alive
 */

// Of a clock that is never set. performance.now() would load a module first.
const nowMs = () => process.uptime() * 1000;

/** @type {bigint | undefined} */
let queue;
/** @type {import('node:net').Socket | undefined} */
let socket;
let descriptor = -1;
let lastTag = 0;
let waiting = 0;

/** What outlives a call is started in here: else the AsyncLocalStorage of its caller would live as long as it does. */
export const own = new (process.getBuiltinModule('node:async_hooks').AsyncResource)('evergrant');

const LOOK_MS = 2;
let looking = false;
let lookUntil = 0;

/** @type {Map<number, Pending>} */
const pending = new Map();

function openQueue() {
  /** @type {[bigint | null]} */
  const out = [null];
  const descriptorOut = [-1];
  invoke('evergrant_queue_open', out, descriptorOut);
  queue = /** @type {bigint} */ (out[0]);
  descriptor = descriptorOut[0];
  process.once('exit', () => {
    native.evergrant_queue_free(queue);
    if (socket === undefined) process.getBuiltinModule('node:fs').closeSync(descriptor);
    queue = undefined;
  });
}

// What a store on this machine answers is there before node:net would be loaded: so until a call takes longer than
// that, turns of the event loop just look.
function look() {
  take();
  if (pending.size > 0 && nowMs() > lookUntil) watch();
  looking = pending.size > 0 && socket === undefined;
  if (looking) setImmediate(look);
}

function watch() {
  const { Socket } = process.getBuiltinModule('node:net');
  // What arrives means only "take".
  const onread = { buffer: new Uint8Array(64), callback: take };
  const options = { fd: descriptor, readable: true, writable: false, onread };
  socket = new Socket(options).on('error', fail).on('end', fail);
  if (waiting === 0) socket.unref();
}

function take() {
  /** @type {[string]} */
  const taken = ['[]'];
  try {
    invoke('evergrant_queue_take', queue, 0, taken);
  } catch (error) {
    fail(error);
  }
  for (const { tag, status, value, error } of JSON.parse(taken[0])) {
    const call = pending.get(tag);
    pending.delete(tag);
    if (status === 'OK') call?.resolve(value);
    else call?.reject(new EvergrantError(error));
  }
  return true;
}

/** @param {unknown} [error] */
function fail(error) {
  const reason = error ?? new EvergrantError({ status: 'INTERNAL', message: 'the queue of calls has ended' });
  for (const { reject } of pending.values()) reject(reason);
  pending.clear();
}

/**
 * @param {Handle | null} handle
 * @param {string} text
 * @returns {Promise<any>}
 */
function submit(handle, text) {
  if (queue === undefined) openQueue();
  const tag = ++lastTag;
  invoke('evergrant_queue_submit', queue, handle && handle.pointer, tag, text);
  if (socket === undefined && !looking) {
    looking = true;
    lookUntil = nowMs() + LOOK_MS;
    own.runInAsyncScope(setImmediate, undefined, look);
  }
  return new Promise((resolve, reject) => pending.set(tag, { resolve, reject, handle }));
}

/**
 * The same promise for one who waits for it: who may give up, and keeps the process alive meanwhile.
 * @param {Promise<any>} promise
 * @param {Wait} [wait]
 * @returns {Promise<any>}
 */
export function settled(promise, { signal, ref = true } = {}) {
  if (ref && waiting++ === 0) socket?.ref();
  return new Promise((resolve, reject) => {
    /** @type {<T>(settle: (value: T) => void) => (value: T) => void} */
    const ending = (settle) => (value) => {
      signal?.removeEventListener('abort', abort);
      if (ref && --waiting === 0) socket?.unref();
      ref = false;
      settle(value);
    };
    const abort = ending(() => reject(signal?.reason));
    signal?.addEventListener('abort', abort);
    promise.then(ending(resolve), ending(reject));
  });
}

/**
 * To be called before anything is started: a wait that has ended before it begins starts nothing.
 * @param {AbortSignal} [signal]
 */
export function check(signal) {
  if (signal === undefined) return;
  if (typeof signal?.addEventListener !== 'function') throw invalid('signal must be an AbortSignal');
  signal.throwIfAborted();
}

/**
 * Calls the library: `name` is its function without `evergrant_`, `members` are its arguments.
 * @param {Handle | null} handle
 * @param {string} name
 * @param {Record<string, unknown>} members
 * @param {Wait} [wait]
 * @returns {Promise<any>}
 */
export async function call(handle, name, members, wait) {
  check(wait?.signal);
  return settled(submit(handle, json({ call: name, ...members })), wait);
}

/**
 * The same for calls that are the same. Without options it is soon made: thousands may join one call in one turn.
 * @param {string} name
 * @param {Record<string, unknown>} members
 */
function nameOf(name, members) {
  const { session, rejected_access_token: rejected = '', options = {}, ...others } = members;
  const plain = typeof rejected === 'string' && isEmpty(options) && isEmpty(others);
  return plain ? `${name}\n${session}\n${rejected}` : json({ call: name, ...members });
}

/** @param {unknown} value */
function isEmpty(value) {
  for (const _ in /** @type {object} */ (value)) return false;
  return true;
}

/** @type {WeakMap<Handle, Map<string, Flight>>} */
const flights = new WeakMap();

/**
 * The same, for calls whose answer is good for everybody who asks: those in flight are joined.
 * @param {Handle} handle
 * @param {string} name
 * @param {Record<string, unknown>} members
 * @param {Wait} [wait]
 * @returns {Promise<any>}
 */
export async function sharedCall(handle, name, members, wait) {
  check(wait?.signal);
  let ofHandle = flights.get(handle);
  if (ofHandle === undefined) flights.set(handle, (ofHandle = new Map()));
  const key = nameOf(name, members);
  const now = nowMs();
  let flight = ofHandle.get(key);
  if (flight === undefined) {
    flight = { promise: submit(handle, json({ call: name, ...members })), since: now };
    ofHandle.set(key, flight);
    const end = () => ofHandle.delete(key);
    flight.promise.then(end, end);
  }
  const late = Math.floor(now - flight.since);
  try {
    return await settled(flight.promise, wait);
  } catch (error) {
    // The wait that was joined has ended, but this one began later: it goes on for as long as it was late.
    if (late === 0 || !(error instanceof EvergrantError) || error.code !== 'EVERGRANT_TIMED_OUT') throw error;
    const options = { .../** @type {object} */ (members.options), max_wait_ms: late };
    return sharedCall(handle, name, { ...members, options }, wait);
  }
}
