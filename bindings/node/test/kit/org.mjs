// A Salesforce org with what the tests use of its REST, Bulk, Bulk 2.0, Metadata and SOAP APIs. Each carries the
// session id in a place of its own and refuses it in words of its own.

const DATA = String.raw`/services/data/v[\d.]+`;
const ASYNC = String.raw`/services/async/[\d.]+`;

export class Org {
  #accounts = new Map();
  #jobs = new Map();
  #isLive;

  /** Where the org lives now: any other instance refuses every session id. */
  instance;

  /** @param {(sessionId: string) => Promise<boolean>} isLive */
  constructor(isLive) {
    this.#isLive = isLive;
  }

  /** @param {string} instance The URL that was asked. */
  async answer(request, response, body, instance) {
    const { status, type, text } = await this.#answer(request, body.toString(), instance);
    response.writeHead(status, type && { 'content-type': type }).end(text);
  }

  async #answer(request, body, instance) {
    const { method, url } = request;
    const at = (methods, path) => methods.includes(method) && new RegExp(`^${path}/?(?:\\?.*)?$`).exec(url);
    const isLive = async (id) => instance === this.instance && id !== undefined && this.#isLive(id);

    if (url.startsWith('/services/async/')) {
      if (await isLive(request.headers['x-sfdc-session'])) return this.#bulk(at, body);
      return asyncError(400, 'InvalidSessionId', 'Invalid session id');
    }
    if (url.startsWith('/services/Soap/')) {
      if (await isLive(element(body, 'sessionId'))) return soap(body);
      return fault('sf:INVALID_SESSION_ID', 'Invalid Session ID found in SessionHeader: Illegal Session');
    }
    if (await isLive(/^Bearer (.+)$/.exec(request.headers.authorization)?.[1])) return this.#rest(at, body, method);
    return error(401, 'INVALID_SESSION_ID', 'Session expired or invalid');
  }

  #rest(at, body, method) {
    let found;
    if (at('GET', `${DATA}/query`)) return this.#page(0);
    if ((found = at('GET', `${DATA}/query/01g-(\\d+)`))) return this.#page(Number(found[1]));
    if (at('POST', `${DATA}/sobjects/Account`)) {
      return json(201, { id: this.#insert(JSON.parse(body)), success: true, errors: [] });
    }
    if ((found = at(['GET', 'PATCH', 'DELETE'], `${DATA}/sobjects/Account/(\\w+)`))) {
      const account = this.#accounts.get(found[1]);
      if (!account) return error(404, 'NOT_FOUND', 'The requested resource does not exist');
      if (method === 'GET') return json(200, account);
      if (method === 'PATCH') Object.assign(account, JSON.parse(body));
      else this.#accounts.delete(found[1]);
      return { status: 204 };
    }
    if (at('POST', `${DATA}/jobs/ingest`)) return json(200, this.#open(JSON.parse(body)));
    if ((found = at('PUT', `${DATA}/jobs/ingest/(\\w+)/batches`))) {
      this.#load(found[1], body);
      return { status: 201 };
    }
    if ((found = at(['GET', 'PATCH'], `${DATA}/jobs/ingest/(\\w+)`))) return json(200, this.#jobs.get(found[1]));
    if ((found = at('GET', `${DATA}/jobs/ingest/(\\w+)/successfulResults`))) return csv(this.#jobs.get(found[1]).ids);
    if (at('GET', `${DATA}/jobs/ingest/\\w+/\\w+`)) return csv([]);
    return error(404, 'NOT_FOUND', 'The requested resource does not exist');
  }

  #bulk(at, body) {
    let found;
    if (at('POST', `${ASYNC}/job`)) {
      return jobInfo(this.#open({ object: element(body, 'object'), operation: element(body, 'operation') }));
    }
    if ((found = at('POST', `${ASYNC}/job/(\\w+)`))) {
      return jobInfo(Object.assign(this.#jobs.get(found[1]), { state: element(body, 'state') }));
    }
    if ((found = at('POST', `${ASYNC}/job/(\\w+)/batch`))) {
      this.#load(found[1], body);
      return batchInfo(found[1], 'Queued');
    }
    if ((found = at('GET', `${ASYNC}/job/(\\w+)/batch/\\w+`))) return batchInfo(found[1], 'Completed');
    if ((found = at('GET', `${ASYNC}/job/(\\w+)/batch/\\w+/result`))) return csv(this.#jobs.get(found[1]).ids);
    return asyncError(404, 'InvalidUrl', 'no such resource');
  }

  #insert(account) {
    const Id = `001${String(this.#accounts.size).padStart(12, '0')}AAA`;
    this.#accounts.set(Id, { attributes: { type: 'Account' }, Id, ...account });
    return Id;
  }

  /** Two accounts at a time. */
  #page(from) {
    const all = [...this.#accounts.values()];
    const to = from + 2;
    const next = to < all.length && { nextRecordsUrl: `/services/data/v64.0/query/01g-${to}` };
    return json(200, { totalSize: all.length, done: !next, records: all.slice(from, to), ...next });
  }

  #open(job) {
    const id = `750${String(this.#jobs.size).padStart(12, '0')}AAA`;
    this.#jobs.set(id, { ...job, id, state: 'Open', ids: [] });
    return this.#jobs.get(id);
  }

  #load(id, data) {
    const [, ...names] = data.trim().split('\n');
    Object.assign(this.#jobs.get(id), { state: 'JobComplete', ids: names.map((Name) => this.#insert({ Name })) });
  }
}

function soap(body) {
  const result = (method, text) => envelope(200, `<${method}Response><result>${text}</result></${method}Response>`);
  if (body.includes('<describeMetadata>')) {
    return result('describeMetadata', '<organizationNamespace>ns</organizationNamespace>');
  }
  if (body.includes('<getUserInfo')) return result('getUserInfo', '<userFullName>User Example</userFullName>');
  return fault('sf:UNKNOWN_EXCEPTION', 'unknown method');
}

const json = (status, value) => ({ status, type: 'application/json;charset=UTF-8', text: JSON.stringify(value) });
const error = (status, errorCode, message) => json(status, [{ errorCode, message }]);

const csv = (ids) => {
  const rows = ids.map((id) => `"${id}","true","true",""`);
  return { status: 200, type: 'text/csv', text: ['"Id","Success","Created","Error"', ...rows, ''].join('\n') };
};

const xml = (status, text) => {
  return { status, type: 'text/xml;charset=UTF-8', text: `<?xml version="1.0" encoding="UTF-8"?>${text}` };
};
const element = (text, name) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1];

const jobInfo = ({ id, object, operation, state }) =>
  xml(200, `<jobInfo><id>${id}</id><operation>${operation}</operation><object>${object}</object>`
    + `<state>${state}</state></jobInfo>`);
const batchInfo = (job, state) =>
  xml(200, `<batchInfo><id>751${job.slice(3)}</id><jobId>${job}</jobId><state>${state}</state></batchInfo>`);
const asyncError = (status, code, message) =>
  xml(status, `<error><exceptionCode>${code}</exceptionCode><exceptionMessage>${message}</exceptionMessage></error>`);

const SOAP = 'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"';
const envelope = (status, body) =>
  xml(status, `<soapenv:Envelope ${SOAP}><soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`);
const fault = (code, text) =>
  envelope(500, `<soapenv:Fault><faultcode>${code}</faultcode><faultstring>${text}</faultstring></soapenv:Fault>`);
