"""The examples of the README and of the docstrings, run as they stand."""

from __future__ import annotations

import asyncio
import doctest
import json
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import evergrant

if TYPE_CHECKING:
    from server import Server

HERE = Path(__file__).resolve().parent
README = (HERE.parent / "README.md").read_text()
# Without those that need other packages: tests/kit has them.
MODULES = [
    f"evergrant.{module.name}"
    for module in pkgutil.iter_modules(evergrant.__path__)
    if module.name.startswith("_") and module.name not in ("_requests", "_httpx")
]


@pytest.mark.parametrize("module", ["evergrant", *MODULES])
def test_docstrings(module: str, server: Server) -> None:
    names = {**vars(evergrant), "SITE": server.url, "REFRESH_TOKEN": server.sign_in()["refresh_token"]}
    assert doctest.testmod(import_module(module), extraglobs=names).failed == 0


def test_there_are_examples() -> None:
    attempted = [doctest.DocTestFinder().find(import_module(module)) for module in ("evergrant", *MODULES)]
    assert sum(len(test.examples) for tests in attempted for test in tests) >= 5


def test_everything_public_has_a_docstring() -> None:
    for name in evergrant.__all__:
        item = getattr(evergrant, name)
        if not isinstance(item, type):
            continue
        assert item.__doc__, name
        for member, value in vars(item).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def test_the_readme(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = {"site_url": server.url, "client_id": "client", "client_secret": "secret", "session_lifetime_s": 6600}
    monkeypatch.setenv("CLIENT_SECRET", "secret")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-org.json").write_text(json.dumps(site))
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    source = "\n".join(blocks).replace("https://example.my.site.com", server.url).replace("YOUR_CONSUMER_KEY", "client")
    rejections: list[str] = []

    def http_get(_url: str, access_token: str) -> Any:
        rejected = not rejections
        rejections.append(access_token)
        return SimpleNamespace(status=401 if rejected else 200, body="", access_token=access_token)

    names: dict[str, Any] = {"REFRESH_TOKEN": server.sign_in()["refresh_token"], "http_get": http_get}
    exec(compile(source, "README.md", "exec"), names)
    assert server.url in capsys.readouterr().out
    assert names["accounts"].status_code == 200
    assert names["get"]("x").status == 200
    assert len(set(rejections)) == 2
    asyncio.run(names["use"]())
    assert "alice active\n" in capsys.readouterr().out
    with pytest.raises(evergrant.SignInRequired) as caught:
        names["signed_in"]().renew(rejected="TEST")
    assert caught.value.reason == "no_refresh_token"
    names["client"].close()


def test_every_recipe_is_in_their_readme() -> None:
    recipes = HERE.parent / "recipes"
    files = {path.name for path in recipes.iterdir() if path.suffix == ".py"}
    assert set(re.findall(r"\]\(([^/)]*\.py)\)", (recipes / "README.md").read_text())) == files
