// axios 1: an instance that sends the session's token to the session's origins, and heals one rejection.
//
//   import axios from 'axios';
//   const api = renewing(axios.create({ baseURL: 'https://api.example.com' }), session);
//
// Where a redirect leaves the origin, axios itself drops the token (seen with 1.21).
//
// Where the fetch adapter will do, no interceptor is needed:
//   const api = axios.create({ adapter: 'fetch', env: { fetch: session.fetch } });

import { isRejection } from 'evergrant';

/**
 * @param {import('axios').AxiosInstance} instance
 * @param {import('evergrant').Session} session
 * @returns {import('axios').AxiosInstance}  The same instance. A request also fails as `session.accessToken()` does.
 */
export function renewing(instance, session) {
  const sent = new WeakMap();

  instance.interceptors.request.use(async (config) => {
    if (config.auth || config.headers.has('Authorization') || !session.allows(instance.getUri(config))) return config;
    const accessToken = await session.accessToken({ signal: config.signal });
    config.headers.setAuthorization(`Bearer ${accessToken}`);
    if (!config.repeated) sent.set(config, accessToken);
    return config;
  });

  instance.interceptors.response.use(undefined, async (error) => {
    const { config, response } = error;
    const rejected = response && sent.get(config);
    if (!rejected || !isRejection(response.status, text(response.data))) throw error;
    // Behind a redirect, another server may have answered, to a request without the token.
    if (!session.allows(response.request?.res?.responseUrl ?? instance.getUri(config))) throw error;
    await session.renew({ rejected, signal: config.signal });
    if (typeof config.data?.pipe === 'function') throw error; // a stream has been read
    config.headers.delete('Authorization');
    return instance.request({ ...config, repeated: true });
  });
  return instance;
}

function text(data) {
  return typeof data === 'string' ? data : JSON.stringify(data ?? '');
}
