"""Writes what the peers start from: a token that is valid, in the files that each of them keeps it in.

Argument: a directory.
"""

import base64
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LIFE_S = 86_400


def token_answer() -> dict[str, Any]:
    return {
        "access_token": "00Dxx0000001gPL!" + "A" * 96,
        "refresh_token": "5Aep861KIwKdekr90KlxVVUI47zdR6dOfs",
        "expires_in": LIFE_S,
        "token_type": "Bearer",
        "instance_url": "https://example.my.salesforce.com",
    }


def msal_cache() -> str:
    import msal
    from offline import AUTHORITY, SCOPES

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now = int(time.time())
    claims = {"iss": AUTHORITY, "sub": "u", "aud": "client", "preferred_username": "u", "iat": now, "exp": now + LIFE_S}
    answer = {"id_token": f"{part({'alg': 'none'})}.{part(claims)}.x", "client_info": part({"uid": "u", "utid": "t"})}
    cache = msal.SerializableTokenCache()
    cache.add(
        {
            "client_id": "client",
            "scope": SCOPES,
            "token_endpoint": f"{AUTHORITY}/token",
            "response": token_answer() | answer,
        }
    )
    return cache.serialize()


def main() -> None:
    directory = Path(sys.argv[1])
    answer = token_answer()
    google = {
        "token": answer["access_token"],
        "refresh_token": answer["refresh_token"],
        "client_id": "c",
        "client_secret": "s",
        "token_uri": "http://127.0.0.1:1/token",
        "expiry": (datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=LIFE_S)).isoformat() + "Z",
    }
    (directory / "token.json").write_text(json.dumps(answer, separators=(",", ":")))
    (directory / "google.json").write_text(json.dumps(google))
    (directory / "msal.json").write_text(msal_cache())


if __name__ == "__main__":
    main()
