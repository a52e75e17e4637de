"""A simple-salesforce object that stays signed in: REST, Bulk, Bulk 2.0 and Metadata calls.

    sf = Salesforce(client.session("alice"))
    sf.query("SELECT Id FROM Account")
    sf.bulk.Account.insert([{"Name": "Example"}])
    sf.mdapi.describe_metadata()

simple-salesforce copies the session id, when it is given one, to where each API wants it: into `Authorization`, into
`X-SFDC-Session` and into the envelope's `<sessionId>`. So it is given a placeholder. Each request that it makes gets
the session's token in the placeholder's place, and goes to the instance that the token is for.
"""

from __future__ import annotations

from typing import Any

import requests
from simple_salesforce import api
from simple_salesforce.metadata import SfdcMetadataApi

import evergrant

_PLACEHOLDER = "THE-TOKEN-IS-PUT-HERE"


class _Http(requests.Session):
    """What simple-salesforce sends its requests with."""

    def __init__(self, session: evergrant.Session) -> None:
        super().__init__()
        self._session = session
        self.instance = ""  # of simple-salesforce's URLs; the org may move to another one

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        if not url.startswith(f"{self.instance}/"):
            return super().request(method, url, **options)
        token = self._session.token()
        answer = self._send(token, method, url, **options)
        if answer.status_code >= 400 and evergrant.is_rejection(answer.status_code, answer.text):
            token = self._session.renew(rejected=token.access_token)
            answer = self._send(token, method, url, **options)
        return answer

    def _send(
        self, token: evergrant.Token, method: str, url: str, headers: Any = None, data: Any = None, **options: Any
    ) -> requests.Response:
        url = token["instance_url"].rstrip("/") + url.removeprefix(self.instance)
        if not self._session.allows(url):
            raise requests.exceptions.InvalidURL(f"the session's token may not go to {url}: see the key origins")
        access_token = token.access_token
        headers = {name: value.replace(_PLACEHOLDER, access_token) for name, value in (headers or {}).items()}
        if isinstance(data, str):
            data = data.replace(_PLACEHOLDER, access_token)
        elif isinstance(data, bytes):
            data = data.replace(_PLACEHOLDER.encode(), access_token.encode())
        # A redirect would take the token along to wherever it leads.
        options["allow_redirects"] = False
        return super().request(method, url, headers=headers, data=data, **options)


class Salesforce(api.Salesforce):
    """Takes the options of simple_salesforce.Salesforce that do not sign in. Its `session_id` is the placeholder."""

    def __init__(self, session: evergrant.Session, **options: Any) -> None:
        http = _Http(session)
        super().__init__(session_id=_PLACEHOLDER, instance_url=session.token()["instance_url"], session=http, **options)
        http.instance = f"https://{self.sf_instance}"

    @property
    def mdapi(self) -> SfdcMetadataApi:
        mdapi = super().mdapi
        # Its SOAP client brings a requests session of its own.
        mdapi._client.transport.session = self.session
        return mdapi
