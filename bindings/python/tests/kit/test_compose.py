"""docs/docker-compose.yml: right by the Compose specification, and a configuration that a client takes."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import compose_spec
import pytest

import evergrant

FILE = Path(__file__).parents[4] / "docs" / "docker-compose.yml"


def read() -> dict[str, Any]:
    file: dict[str, Any] = compose_spec.PyCompose.from_yaml(FILE.read_text()).to_dict()
    return file


def test_a_client_takes_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read()
    app = file["services"]["app"]
    assert app["deploy"]["replicas"] == 2
    monkeypatch.setenv("CLIENT_SECRET", "secret")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (name,) = app["secrets"]
    (tmp_path / name).write_bytes(base64.b64encode(bytes(32)))
    content: str = file["configs"]["evergrant"]["content"]
    variables = set(re.findall(r"\$\{(\w+):\?\}", content))
    assert variables == {"CLIENT_ID", "DATABASE_PASSWORD"}
    configuration = json.loads(re.sub(r"\$\{(\w+):\?\}", "value", content).replace("/run/secrets", str(tmp_path)))
    assert configuration["client_secret_env"] in app["environment"]
    with evergrant.Client(**configuration) as client:
        # It connects when a session is asked for: the host is that of a service, which is not here.
        assert "database" in file["services"]
        with pytest.raises(evergrant.StoreError, match="database"):
            client.session("alice").token(max_wait_ms=100)


def test_a_key_that_compose_does_not_have_is_noticed() -> None:
    text = FILE.read_text()
    with pytest.raises(ValueError, match="`replica`"):
        compose_spec.PyCompose.from_yaml(text.replace("    build: .\n", "    build: .\n    replica : 2\n"))
