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
