"""Salesforce's REST, Bulk, Bulk 2.0 and Metadata APIs, as far as the tests call them: a real HTTP server.

It takes the session id only from where each API carries it, and asks the authorization server whether it is alive.
Answers have the shape of Salesforce's documentation.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
METADATA = "http://soap.sforce.com/2006/04/metadata"
XSI = "http://www.w3.org/2001/XMLSchema-instance"


class SalesforceApi:
    """Serves from the moment it is made until `close()`.

    - `calls`: (API, method, path, whether the session id was taken) of each request.
    - `once`: each access token ends when it has been used, so that each call but the first needs a renewal.
    - `moved`: the org lives elsewhere now; nothing is taken here.
    - `redirect_to`: an origin to which every request is redirected.
    """

    def __init__(self, site: str, control: str, client_id: str = "client", client_secret: str = "secret") -> None:
        self.site, self.control = site, control
        self.credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self.once = self.moved = False
        self.redirect_to = ""
        self.calls: list[tuple[str, str, str, bool]] = []
        self.batches: dict[str, bytes] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                status, headers, body = api.answer(self.command, self.path, self.headers, self.rfile.read(length))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def takes(self, session_id: str | None) -> bool:
        if self.moved or not session_id:
            return False
        form = urllib.parse.urlencode({"token": session_id, "token_type_hint": "access_token"}).encode()
        asked = self._post(
            f"{self.site}/services/oauth2/introspect", form, {"Authorization": f"Basic {self.credentials}"}
        )
        if not asked["active"]:
            return False
        if self.once:
            self._post(f"{self.control}/expire", json.dumps({"access_token": session_id}).encode(), {})
        return True

    @staticmethod
    def _post(url: str, body: bytes, headers: dict[str, str]) -> Any:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes]:
        bare = path.partition("?")[0]
        if self.redirect_to:
            return 307, {"Location": self.redirect_to + path}, b""
        if bare.startswith("/services/async/"):
            api, session_id = "bulk", headers.get("X-SFDC-Session")
            reject, accept = _bulk_rejection, self._bulk
        elif bare.startswith("/services/Soap/m/"):
            found = re.search(rb"<(?:\w+:)?sessionId>([^<]*)</", body)
            api, session_id = "metadata", found.group(1).decode() if found else None
            reject, accept = _soap_rejection, self._metadata
        else:
            api = "bulk2" if "/jobs/" in bare else "rest"
            scheme, _, token = headers.get("Authorization", "").partition(" ")
            session_id = token if scheme == "Bearer" else None
            reject, accept = _rest_rejection, self._bulk2 if api == "bulk2" else self._rest
        taken = self.takes(session_id)
        self.calls.append((api, method, bare, taken))
        return accept(method, path, body) if taken else reject()

    # ---- REST ----

    def _rest(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if "/query/" in path:
            more = "/services/data/v59.0/query/01gxx-2000"
            record = {"attributes": {"type": "Account"}, "Id": "001xx0000000001AAA"}
            if path.startswith(more):
                return _json(200, {"totalSize": 2, "done": True, "records": [record]})
            return _json(200, {"totalSize": 2, "done": False, "nextRecordsUrl": more, "records": [record]})
        if method == "POST":
            return _json(201, {"id": "001xx0000000002AAA", "success": True, "errors": [], "sent": json.loads(body)})
        return _json(200, {"attributes": {"type": "Account"}, "Id": path.rpartition("/")[2], "Name": "Example"})

    # ---- Bulk ----

    def _bulk(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        job, batch = "750xx000000001AAA", "751xx000000001AAA"
        match path.partition("/job")[2].strip("/").split("/"):
            case [""] | [_] if method == "POST":
                return _json(201, {"id": job, **json.loads(body)})
            case [_, "batch"] if b"refused" in body:
                return _json(400, {"exceptionCode": "InvalidJob", "exceptionMessage": "Job is closed"})
            case [_, "batch"]:
                self.batches[batch] = body
                return _json(201, {"id": batch, "jobId": job, "state": "Queued"})
            case [_, "batch", _]:
                return _json(200, {"id": batch, "jobId": job, "state": "Completed", "stateMessage": None})
            case [_, "batch", _, "result"]:
                records = json.loads(self.batches[batch])
                made = [{"id": f"001{n}", "success": True, "created": True, "errors": []} for n in range(len(records))]
                return _json(200, made)
        return _json(404, {"exceptionCode": "InvalidUrl", "exceptionMessage": path})

    # ---- Bulk 2.0 ----

    def _bulk2(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        job = "750xx000000002AAA"
        match urllib.parse.urlsplit(path).path.partition("/jobs/")[2].split("/"):
            case ["ingest" | "query"]:
                return _json(200, {"id": job, "state": "Open", **json.loads(body)})
            case ["ingest", _, "batches"]:
                self.batches[job] = body
                return 201, {}, b""
            case ["ingest" | "query", _]:
                processed = max(len(self.batches.get(job, b"").splitlines()) - 1, 0)
                state = {"state": "JobComplete", "numberRecordsProcessed": processed, "numberRecordsFailed": 0}
                return _json(200, {"id": job, **state})
            case ["query", _, "results"]:
                headers = {"Content-Type": "text/csv", "Sforce-Locator": "null", "Sforce-NumberOfRecords": "1"}
                return 200, headers, b'"Id"\n"001xx0000000001AAA"\n'
            case ["ingest", _, "successfulResults"]:
                return 200, {"Content-Type": "text/csv"}, b'"sf__Id","sf__Created","Name"\n"001","true","Example"\n'
        return _json(404, [{"errorCode": "NOT_FOUND", "message": path}])

    # ---- Metadata ----

    def _metadata(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = re.search(rb"<(?:[\w-]+:)?Body>\s*<(?:[\w-]+:)?(\w+)", body)
        operation = found.group(1).decode() if found else ""
        assert method == "POST", path
        result = {
            "describeMetadata": "<metadataObjects><directoryName>classes</directoryName><inFolder>false</inFolder>"
            "<metaFile>true</metaFile><suffix>cls</suffix><xmlName>ApexClass</xmlName></metadataObjects>"
            "<organizationNamespace></organizationNamespace><partialSaveAllowed>true</partialSaveAllowed>"
            "<testRequired>false</testRequired>",
            "readMetadata": f'<records xsi:type="CustomObject" xmlns:xsi="{XSI}">'
            "<fullName>Thing__c</fullName><label>Thing</label></records>",
            "createMetadata": "<fullName>Thing__c</fullName><success>true</success>",
            "deploy": "<done>false</done><id>0Afxx0000000001AAA</id><state>Queued</state>",
            "checkDeployStatus": "<done>true</done><id>0Afxx0000000001AAA</id><status>Succeeded</status>"
            "<numberComponentErrors>0</numberComponentErrors><numberComponentsDeployed>1</numberComponentsDeployed>"
            "<numberComponentsTotal>1</numberComponentsTotal>",
        }[operation]
        return _soap(200, f'<{operation}Response xmlns="{METADATA}"><result>{result}</result></{operation}Response>')


def _json(status: int, value: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json;charset=UTF-8"}, json.dumps(value).encode()


def _soap(status: int, content: str) -> tuple[int, dict[str, str], bytes]:
    envelope = f'<soapenv:Envelope xmlns:soapenv="{SOAP}"><soapenv:Body>{content}</soapenv:Body></soapenv:Envelope>'
    body = f'<?xml version="1.0" encoding="UTF-8"?>{envelope}'.encode()
    return status, {"Content-Type": "text/xml;charset=UTF-8"}, body


def _rest_rejection() -> tuple[int, dict[str, str], bytes]:
    return _json(401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])


def _bulk_rejection() -> tuple[int, dict[str, str], bytes]:
    return _json(400, {"exceptionCode": "InvalidSessionId", "exceptionMessage": "Invalid session id"})


def _soap_rejection() -> tuple[int, dict[str, str], bytes]:
    text = "INVALID_SESSION_ID: Invalid Session ID found in SessionHeader: Illegal Session"
    fault = f"<faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>{text}</faultstring>"
    return _soap(500, f'<soapenv:Fault xmlns:sf="{METADATA}">{fault}</soapenv:Fault>')
