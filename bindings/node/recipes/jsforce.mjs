// jsforce 3: a Connection that keeps working when its token ends or is revoked, and when the org moves.
//
//   import jsforce from 'jsforce';
//   const connection = await connect(jsforce.Connection, session, { version: '64.0' });
//
// It covers REST, Bulk, Bulk 2.0, Metadata and SOAP calls, but not the Streaming API. A call that the org refuses is
// repeated once, unless its body is a stream, as in Bulk uploads: such a call fails, and the next one has a new token.

/**
 * @param {typeof import('jsforce').Connection} Connection
 * @param {import('evergrant').Session} session
 * @param {object} [options] The Connection's, without any that signs in.
 * @throws {import('evergrant').EvergrantError} As `session.token()`, here and in later calls. Where a call was refused,
 *   jsforce puts the message into an error of its own.
 */
export async function connect(Connection, session, options) {
  const { accessToken, instanceUrl } = await session.token();
  const connection = new Connection({
    ...options,
    accessToken,
    instanceUrl,
    refreshFn: (_connection, done) => void renew().then((token) => done(null, token), done),
  });
  const former = new Set();
  let answered;

  function adopt(token) {
    if (token.instanceUrl !== connection.instanceUrl) former.add(connection.instanceUrl);
    connection.accessToken = token.accessToken;
    connection.instanceUrl = token.instanceUrl;
    return token.accessToken;
  }

  async function renew() {
    if (answered.isRepeated) throw new Error('the org refused a token, and the one that was renewed for it');
    return adopt(await session.renew({ rejected: answered.accessToken }));
  }

  // Before every request jsforce waits for a refresh under way. Here it also waits for the token, where somebody else
  // has renewed it or its end has come. Each wait lets one request pass.
  const delegate = connection._refreshDelegate;
  const isRefreshing = delegate.isRefreshing.bind(delegate);
  const waitRefresh = delegate.waitRefresh.bind(delegate);
  let waited = 0;
  delegate.isRefreshing = () => {
    if (waited > 0) return void (waited -= 1);
    return isRefreshing() || session.accessTokenNow() !== connection.accessToken;
  };
  delegate.waitRefresh = async () => {
    await waitRefresh();
    adopt(await session.token());
    waited += 1;
  };

  // All APIs send through this: it sees which token an answer is for, and where a token goes.
  const transport = connection._transport;
  const sent = new WeakSet();
  connection._transport = {
    httpRequest(request, settings) {
      const isRepeated = sent.has(request);
      if (isRepeated && request.body === undefined && !['GET', 'HEAD', 'DELETE'].includes(request.method)) {
        throw new Error('the org refused the token, and the body is a stream: repeat the call, which has a new token');
      }
      sent.add(request);

      // jsforce made the URL before it knew of a move.
      const old = [...former].find((instance) => request.url.startsWith(`${instance}/`));
      if (old) request.url = connection.instanceUrl + request.url.slice(old.length);
      if (!session.allows(request.url)) {
        throw new Error(`${new URL(request.url).origin} is none of the session's origins (configuration: origins)`);
      }
      const followRedirect = (location) => {
        const url = new URL(location, request.url).href;
        return { method: 'GET', url, headers: session.allows(url) ? request.headers : {} };
      };

      const { accessToken } = connection;
      const answer = transport.httpRequest(request, { ...settings, followRedirect });
      // Where this is a refusal, refreshFn is called before any other answer is looked at.
      answer.then(() => { answered = { accessToken, isRepeated }; }, () => {});
      return answer;
    },
  };
  return connection;
}
