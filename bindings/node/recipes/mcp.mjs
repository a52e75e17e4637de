// The official MCP client over streamable HTTP: @modelcontextprotocol/client 2, and @modelcontextprotocol/sdk 1.
//
//   import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
//   const client = new Client({ name: 'my-client', version: '1.0.0' });
//   await client.connect(transport(StreamableHTTPClientTransport, 'https://mcp.example.com/mcp', session));
//
// It is `fetch` that heals, a lost event stream that is opened again included. No `authProvider` beside it: a provider
// is told that a request was rejected, but not with which token.

/**
 * @param {typeof import('@modelcontextprotocol/client').StreamableHTTPClientTransport} Transport
 * @param {string | URL} url
 * @param {import('evergrant').Session} session
 * @param {object} [options] The transport's, without `fetch` and `authProvider`.
 */
export function transport(Transport, url, session, options) {
  return new Transport(new URL(url), { ...options, fetch: session.fetch });
}
