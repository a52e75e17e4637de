// `session.fetch`. Session has it as a bound property, so that it works detached, as the `fetch` of other libraries.
import { isRejection } from '../index.js';

/** @typedef {import('../index.js').Session} Session */

/** How much of an error's body is looked at. */
const ANSWER_LIMIT = 64 * 1024;

/** How much of a Request's body is kept: a Request does not tell whether its body can be had again. */
const REQUEST_LIMIT = 1024 * 1024;

/**
 * The global fetch() with the session's access token (RFC 6750 section 2.1), for the session's origins only. A
 * rejection is healed once.
 *
 * - Where the caller sets Authorization, or `session.allows()` says no, this is the global fetch().
 * - After a rejection the session is renewed, and the request repeated if its body can be: no stream, nor a Request's
 *   body above 1 MiB. Else the rejection is the answer, and the next call has the new token.
 * - Redirects are the global fetch()'s, which drops the token where one leaves the origin (Fetch Standard,
 *   HTTP-redirect fetch). What another origin answers is not healed.
 *
 * It fails as the global fetch() does, and as `accessToken()` and `renew()` do. The signal ends every wait.
 *
 * @param {Session} session
 * @param {string | URL | Request} input
 * @param {RequestInit} [init]
 */
export async function sessionFetch(session, input, init) {
  const request = input instanceof Request ? input : undefined;
  const target = request ?? new URL(/** @type {string | URL} */ (input)).href;
  const url = request?.url ?? /** @type {string} */ (target);
  const headers = new Headers(init?.headers ?? request?.headers);
  const signal = (init?.signal === undefined ? request?.signal : init.signal) ?? undefined;

  const token = headers.has('authorization') ? undefined : await tokenFor(session, url, signal);
  if (token === undefined) return fetch(target, init);

  /** @param {string} accessToken @param {RequestInit} [body] */
  const send = (accessToken, body) => {
    headers.set('authorization', `Bearer ${accessToken}`);
    return fetch(target, { ...init, ...body, headers });
  };
  const bodyToRepeat = keepBody(request, init);
  const response = await send(token);
  if (!(await rejects(response, url))) return response;

  try {
    await session.renew({ rejected: token, signal });
    const body = bodyToRepeat();
    const renewed = body && (await tokenFor(session, url, signal));
    if (renewed === undefined) return response;
    discard(response.body);
    return await send(renewed, body);
  } catch (error) {
    discard(response.body);
    throw error;
  }
}

/**
 * @param {Session} session
 * @param {string} url
 * @param {AbortSignal | undefined} signal
 */
async function tokenFor(session, url, signal) {
  // Of the schemes that fetch() knows, the others have no origin.
  if (!url.startsWith('http') || !session.allows(url)) return undefined;
  const token = session.accessTokenNow() ?? (await session.accessToken({ signal }));
  // A renewal can move the session to another instance, and then this is its origin no more.
  return session.allows(url) ? token : undefined;
}

/**
 * A function that gives what to add to `init` for the same body again, or undefined if that cannot be.
 *
 * @param {Request | undefined} request
 * @param {RequestInit | undefined} init
 * @returns {() => RequestInit | undefined}
 */
function keepBody(request, init) {
  const body = init?.body ?? undefined;
  // Streams of every kind are async iterable, and nothing else that fetch() takes is.
  if (body !== undefined) return () => (Object(body)[Symbol.asyncIterator] ? undefined : {});
  if (!request?.body) return () => ({});
  /** @type {RequestInit | undefined} */
  let kept;
  read(request, REQUEST_LIMIT).then(
    ({ bytes, complete }) => {
      if (complete) kept = { body: bytes };
    },
    () => {}, // fetch() reads the same, and tells the caller
  );
  return () => kept;
}

/**
 * @param {Response} response
 * @param {string} url where the token was sent
 */
async function rejects(response, url) {
  if (response.status < 400 || response.status >= 500) return false;
  if (response.redirected && new URL(response.url).origin !== new URL(url).origin) return false;
  const { bytes } = await read(response, ANSWER_LIMIT);
  return isRejection(response.status, bytes.toString());
}

/**
 * The beginning of a body that somebody else reads too.
 *
 * @param {Request | Response} message
 * @param {number} limit
 */
async function read(message, limit) {
  const reader = message.clone().body?.getReader();
  const chunks = [];
  for (let length = 0; reader && length <= limit; length += chunks[chunks.length - 1].length) {
    const { done, value } = await reader.read();
    if (done) return { bytes: Buffer.concat(chunks), complete: true };
    chunks.push(value);
  }
  discard(reader);
  return { bytes: Buffer.concat(chunks), complete: !reader };
}

/**
 * Not to be waited for: one branch of a clone is cancelled when the other is.
 *
 * @param {{ cancel(): Promise<void> } | null | undefined} body
 */
function discard(body) {
  body?.cancel().catch(() => {});
}
