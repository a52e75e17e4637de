import { invalid } from './native.js';

/** Every configuration key: its name here, and its name in the library. */
export const keys = {
  configFile: 'config_file',
  siteUrl: 'site_url',
  issuer: 'issuer',
  tokenEndpoint: 'token_endpoint',
  authorizationEndpoint: 'authorization_endpoint',
  introspectionEndpoint: 'introspection_endpoint',
  revocationEndpoint: 'revocation_endpoint',
  clientId: 'client_id',
  clientSecret: 'client_secret',
  clientSecretFile: 'client_secret_file',
  clientSecretEnv: 'client_secret_env',
  privateKeyFile: 'private_key_file',
  keyId: 'key_id',
  assertionAlgorithm: 'assertion_algorithm',
  assertionAudience: 'assertion_audience',
  clientAuth: 'client_auth',
  basicEncoding: 'basic_encoding',
  scope: 'scope',
  refreshParameters: 'refresh_parameters',
  authorizeParameters: 'authorize_parameters',
  parametersIn: 'parameters_in',
  store: 'store',
  namespace: 'namespace',
  encryptionKey: 'encryption_key',
  encryptionKeyFile: 'encryption_key_file',
  encryptionKeyEnv: 'encryption_key_env',
  sessionLifetimeS: 'session_lifetime_s',
  expiryFromIntrospection: 'expiry_from_introspection',
  renewBeforeS: 'renew_before_s',
  earlyRenewal: 'early_renewal',
  recheckS: 'recheck_s',
  renews: 'renews',
  lostReply: 'lost_reply',
  reuseWindowS: 'reuse_window_s',
  newestWins: 'newest_wins',
  connectTimeoutMs: 'connect_timeout_ms',
  exchangeTimeoutMs: 'exchange_timeout_ms',
  maxWaitMs: 'max_wait_ms',
  exitWaitMs: 'exit_wait_ms',
  maxExchanges: 'max_exchanges',
  maxCachedSessions: 'max_cached_sessions',
  origins: 'origins',
  caFile: 'ca_file',
  clientCertificateFile: 'client_certificate_file',
  clientKeyFile: 'client_key_file',
  proxy: 'proxy',
  userAgent: 'user_agent',
};

/** @type {Map<string, string>} */
const toLibrary = new Map(Object.entries(keys)).set('refreshToken', 'refresh_token');
const libraryKeys = new Set(toLibrary.values());

/**
 * A configuration as the library takes it. A key that is in no table goes on as it is: the library names it, and the
 * nearest one.
 * @param {unknown} config
 */
export function configuration(config) {
  /** @type {Record<string, unknown>} */
  const result = {};
  for (const [key, value] of Object.entries(object('the configuration', config))) {
    const name = toLibrary.get(key);
    if (name === undefined && libraryKeys.has(key)) {
      throw invalid(`configuration key "${key}": in JavaScript it is written ${camelCase(key)}`);
    }
    result[name ?? key] = value;
  }
  return result;
}

/** @param {string} name */
function camelCase(name) {
  return name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
}

/**
 * An answer of the library, all the way down, with the names of its members in JavaScript's spelling.
 * @param {any} value
 * @returns {any}
 */
export function camelCased(value) {
  if (Array.isArray(value)) return value.map(camelCased);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [camelCase(name), camelCased(member)]));
}

/**
 * Options or a request as the library takes them: only the names of the outermost members are ours.
 * @param {string} what
 * @param {unknown} value
 */
export function snakeCased(what, value) {
  return Object.fromEntries(
    Object.entries(object(what, value)).map(([name, member]) => [
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      member,
    ]),
  );
}

/**
 * @param {string} what
 * @param {unknown} value
 * @returns {Record<string, unknown>}
 */
export function object(what, value) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw invalid(`${what} must be an object`);
  return /** @type {Record<string, unknown>} */ (value);
}
