import { native } from './lib/native.js';

export { Client, isRejection, refresh } from './lib/client.js';
export { EvergrantError } from './lib/errors.js';
export { Session } from './lib/session.js';
export { Token } from './lib/token.js';

export const version = native.evergrant_version();
