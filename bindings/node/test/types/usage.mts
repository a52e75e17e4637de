// The whole API as a program in TypeScript writes it, and what it must not write. Compiled, never run.
import { Client, EvergrantError, Session, Token, isRejection, refresh, version } from 'evergrant';
import type {
  BrowserRequest,
  CloseOptions,
  Configuration,
  ErrorCode,
  Event,
  EventsOptions,
  PasswordRequest,
  Reason,
  RenewOptions,
  SessionDescription,
  SessionEntry,
  SessionState,
  SignIn,
  SignInRequest,
  Stats,
  TokenAnswer,
  TokenOptions,
  WaitOptions,
} from 'evergrant';

/** Fails to compile unless the two types are the same. */
function same<A,>() {
  return <B,>(..._: (<T,>() => T extends A ? 1 : 2) extends <T,>() => T extends B ? 1 : 2 ? [value: B] : [never]) => {};
}

const config: Configuration = {
  siteUrl: 'https://example.my.site.com',
  clientId: 'id',
  clientSecretEnv: 'CLIENT_SECRET',
  encryptionKey: ['new', 'old'],
  refreshParameters: { audience: 'https://api.example.com' },
  sessionLifetimeS: 6600,
  earlyRenewal: 'wait',
  origins: ['https://api.example.com'],
  renews: true,
  proxy: undefined,
};
// @ts-expect-error: keys are in camelCase
const snake: Configuration = { client_id: 'id' };
// @ts-expect-error: no such choice
const choice: Configuration = { earlyRenewal: 'later' };
// @ts-expect-error: a number
const number: Configuration = { recheckS: '5' };

await using client = new Client(config);
// @ts-expect-error: a configuration is needed
new Client();

const session: Session = client.session('alice');
same<string>()(session.name);
// @ts-expect-error: a name is needed
client.session();
// @ts-expect-error: a name is a string
client.session(7);
// @ts-expect-error: made by client.session()
new Session();
// @ts-expect-error: read-only
session.name = 'bob';

const wait: WaitOptions = { signal: AbortSignal.timeout(1_000) };
const options: TokenOptions = { ...wait, maxWaitMs: 1_000, minValidS: 60 };
const renewal: RenewOptions = { ...options, rejected: 'token', anyway: true };

same<string>()(await session.accessToken());
same<string>()(await session.accessToken(options));
same<string | undefined>()(session.accessTokenNow());
// @ts-expect-error: it takes nothing
session.accessTokenNow(options);
// @ts-expect-error: no such option
await session.token({ maxWait: 1 });
// @ts-expect-error: only renew() takes it
await session.token({ anyway: true });

const token: Token = await session.token(options);
same<Token>()(await session.renew());
same<Token>()(await session.renew(renewal));
same<string>()(token.accessToken);
same<string | undefined>()(token.instanceUrl);
same<string | undefined>()(token.refreshToken);
same<number | null | undefined>()(token.expiresAtS);
same<number | undefined>()(token.expiresIn);
same<boolean>()(token.uncommitted);
same<'known' | 'assumed' | 'unknown' | undefined>()(token.expiry);
const community: string = token.get('sfdc_community_url');
const answer: TokenAnswer = token.toObject();
// @ts-expect-error: read-only
token.accessToken = 'another';
// @ts-expect-error: made by the library
new Token();

same<void>()(await session.save('a refresh token'));
await session.save({ access_token: 'a', refresh_token: 'b', instance_url: 'https://example.com' }, wait);
await session.save(token);
await session.save(answer);
// @ts-expect-error: not a token
await session.save(7);
const description: SessionDescription = await session.describe(wait);
same<SessionState>()(description.state);
same<number | null>()(description.retryAfterMs);
same<Record<string, unknown>>()(await session.introspect(wait));
await session.signOut(wait);
await session.forget();
same<boolean>()(session.allows('https://example.com'));
same<boolean>()(session.allows(new URL('https://example.com')));
const response: Response = await session.fetch('https://example.com', { method: 'POST', body: 'text' });
await session.fetch(new Request('https://example.com'));
const detached: typeof fetch = session.fetch;

for await (const entry of client.sessions()) same<SessionEntry>()(entry);
const events: EventsOptions = { after: 7, ref: false, ...wait };
for await (const event of client.events(events)) {
  same<Event>()(event);
  if (event.kind === 'renewed') break;
}
same<Stats>()(await client.stats());
const closing: CloseOptions = { maxWaitMs: 1_000, ...wait };
same<void>()(await client.close(closing));
await client.close();

const start: SignInRequest = { redirectUri: 'https://localhost/', scope: 'api', extra: { prompt: 'login' } };
const signIn: SignIn = await client.signInStart(start, wait);
same<string>()(signIn.authorizationUrl);
same<Token>()(await client.signInFinish('alice', signIn, new URL('https://localhost/?code=a&state=b'), wait));
const listening: SignIn = await client.signInStart({ listen: true, maxWaitMs: 5_000 });
same<Token>()(await client.signInFinish('alice', listening));
const browser: BrowserRequest = { scope: 'api', redirectUri: 'http://127.0.0.1/x', maxWaitMs: 5_000 };
same<Token>()(await client.signIn('alice', browser, wait));
same<Token>()(await client.signIn('alice'));
const password: PasswordRequest = { credentialsIn: 'body', username: 'a', password: 'b', redirectUri: 'https://localhost/' };
same<Token>()(await client.signInWithPassword('alice', password));
// @ts-expect-error: a redirect URI is needed
await client.signInStart({});

same<Token>()(await refresh({ ...config, refreshToken: 'a refresh token' }, wait));
// @ts-expect-error: a refresh token is needed
await refresh(config);
same<boolean>()(isRejection(401));
same<boolean>()(isRejection(response.status, await response.text()));
// @ts-expect-error: a number
isRejection('401');
same<string>()(version);

try {
  await session.token();
} catch (error) {
  if (!(error instanceof EvergrantError)) throw error;
  const code: ErrorCode = error.code;
  // @ts-expect-error: no such code
  if (error.code === 'EVERGRANT_STALE') throw error;
  const reason: Reason | string | undefined = error.reason;
  same<number | undefined>()(error.httpStatus);
  same<number | undefined>()(error.retryAfterMs);
  console.error(code, reason, error.errorDescription, error.outcome, error.session, error.message);
}
console.log(snake, choice, number, community, detached);
