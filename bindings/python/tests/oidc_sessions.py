"""Sessions of a real authorization server, kept renewed: run by tests/oidc/run.sh, which then asks the server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import evergrant

RENEWALS = 20


def is_accepted(provider: dict[str, Any], access_token: str) -> bool:
    request = urllib.request.Request(provider["userinfo_endpoint"], headers={"Authorization": f"Bearer {access_token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return "sub" in json.load(answer)


def configuration(provider: dict[str, Any], registration: dict[str, Any], directory: str) -> dict[str, Any]:
    file_name = quote(registration["client_id"], safe="")
    names = ("client_secret", "key_id", "assertion_algorithm")
    given: dict[str, Any] = {name: registration[name] for name in names if name in registration}
    endpoints = {key: provider[key] for key in ("token_endpoint", "revocation_endpoint", "introspection_endpoint")}
    if "private_key" in registration:
        file = Path(directory, f"{file_name}.pem")
        file.write_text(registration["private_key"])
        given["private_key_file"] = str(file)
        endpoints = {"issuer": provider["issuer"]}
    return {
        **endpoints,
        **given,
        "client_auth": registration["client_auth"],
        "client_id": registration["client_id"],
        "store": f"sqlite:{directory}/{file_name}.db",
        "early_renewal": "off",
    }


def blocking(provider: dict[str, Any], site: dict[str, Any], answer: dict[str, Any], renewals: int) -> None:
    with evergrant.Client(**site) as client:
        alice = client.session("alice")
        alice.save(answer)
        for _ in range(renewals):
            old = alice.access_token()
            token = alice.renew(rejected=old)
            assert alice.access_token() == token.access_token != old
        assert is_accepted(provider, alice.access_token())


async def in_asyncio(provider: dict[str, Any], site: dict[str, Any], renewals: int) -> None:
    async with evergrant.Client(**site) as client:
        alice = client.session("alice")
        for _ in range(renewals):
            old = await alice.aaccess_token()
            tokens = await asyncio.gather(*[alice.arenew(rejected=old) for _ in range(50)])
            assert {token.access_token for token in tokens} == {await alice.aaccess_token()} != {old}
        assert is_accepted(provider, await alice.aaccess_token())


def outlives_its_token(provider: dict[str, Any], site: dict[str, Any]) -> None:
    with evergrant.Client(**site) as client:
        alice = client.session("alice")
        token = alice.token()
        assert token.expires_at_s is not None
        time.sleep(max(0, token.expires_at_s - time.time()) + 1)  # whole seconds
        later = alice.access_token()
        assert later != token.access_token
        assert is_accepted(provider, later)
        if site["client_auth"] != "none":
            assert alice.introspect()["active"] is True
        alice.sign_out()


def begins_in_a_browser(site: dict[str, Any], provider: dict[str, Any]) -> None:
    with evergrant.Client(**site, authorization_endpoint=provider["authorization_endpoint"]) as client:
        bob = client.session("bob")
        # OpenID Connect Core section 11: no offline_access without consent.
        token = client.sign_in("bob", scope="openid offline_access", extra={"prompt": "consent"})
        assert token.generation == 1
        assert bob.access_token() == token.access_token
        for generation in range(2, 7):
            assert bob.renew().generation == generation
        assert is_accepted(provider, bob.access_token())


def main() -> None:
    os.environ["BROWSER"] = f"{sys.executable} {Path(__file__).resolve().parents[3] / 'tests' / 'browser.py'}"
    provider = json.loads(Path(os.environ["EVERGRANT_OIDC"]).read_text())
    with tempfile.TemporaryDirectory() as directory:
        for registration in provider["clients"]:
            site = configuration(provider, registration, directory)
            blocking(provider, site, registration["token"], RENEWALS // 2)
            # As every program does at its start.
            blocking(provider, site, registration["token"], 0)
            asyncio.run(in_asyncio(provider, site, RENEWALS // 2))
            outlives_its_token(provider, site)
            begins_in_a_browser(site, provider)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
