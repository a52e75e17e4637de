"""What msal asks its authority for at the start, without a network, and a client whose cache has one token."""

import json
from dataclasses import dataclass, field

import msal

AUTHORITY = "https://login.example.com/tenant"
SCOPES = ["https://api.example.com/.default"]


@dataclass
class Answer:
    text: str
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def raise_for_status(self) -> None: ...


class Offline:
    def get(self, url: str, **_: object) -> Answer:
        endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "issuer": ""}
        return Answer(json.dumps({name: f"{AUTHORITY}/{path}".rstrip("/") for name, path in endpoints.items()}))

    def post(self, url: str, **_: object) -> Answer:
        raise AssertionError(f"no network here: {url}")


def application(cache: msal.SerializableTokenCache) -> msal.ConfidentialClientApplication:
    return msal.ConfidentialClientApplication(
        "client", "secret", oidc_authority=AUTHORITY, token_cache=cache, http_client=Offline()
    )
