"""What the tests of dist/ share: the packages themselves, installations of them, and a server to renew a session at."""

import functools
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parents[2]
TABLE = json.loads((ROOT / "include" / "evergrant.json").read_text())
EXAMPLES = {"python": ROOT / "bindings/python/examples/renew.py", "node": ROOT / "bindings/node/examples/renew.mjs"}
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "make", "cargo", "rustc", "zig")


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """The standard output of a command that must succeed. Nothing of this checkout is in its environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGRANT_", "PYTHON", "npm_"))}
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} in {cwd}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@functools.cache
def sources() -> frozenset[str]:
    """The files of the project: all in the checkout but what .gitignore names."""
    ignored = GitIgnoreSpec.from_lines([*(ROOT / ".gitignore").read_text().splitlines(), ".git"])
    found = set()
    for directory, inner, files in os.walk(ROOT):
        here = Path(directory).relative_to(ROOT)
        inner[:] = [name for name in inner if not ignored.match_file(f"{here / name}/")]
        found |= {path for path in (str(here / name) for name in files) if not ignored.match_file(path)}
    return frozenset(found)


def below(directory: str) -> set[str]:
    """The sources in a directory, named from there."""
    return {path.removeprefix(f"{directory}/") for path in sources() if path.startswith(f"{directory}/")}


def package(pattern: str) -> Path:
    """The one file of dist/ with such a name."""
    (found,) = (ROOT / "dist").glob(pattern)
    return found


@pytest.fixture(scope="session")
def wheel() -> Path:
    return package("*-manylinux_*.whl")


@pytest.fixture(scope="session")
def sdist() -> Path:
    return package("*.tar.gz")


@pytest.fixture(scope="session")
def tarballs() -> list[Path]:
    """The platform's and the binding's."""
    return sorted((ROOT / "dist").glob("*.tgz"), key=lambda path: len(path.name), reverse=True)


@pytest.fixture(scope="session")
def no_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH that has what npm needs to run, and nothing else."""
    directory = tmp_path_factory.mktemp("path")
    for name in ("node", "npm", "sh", "env"):
        (directory / name).symlink_to(shutil.which(name) or name)
    assert not any(shutil.which(compiler, path=str(directory)) for compiler in COMPILERS)
    return str(directory)


def virtual_environment(directory: Path) -> Path:
    """The Python of a new one."""
    run(sys.executable, "-m", "venv", directory)
    return directory / "bin" / "python"


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path, no_compiler: str) -> Path:
    """A Python that has the wheel, which needs nothing from an index."""
    python = virtual_environment(tmp_path_factory.mktemp("python"))
    run(python, "-m", "pip", "install", "--no-index", wheel, PATH=no_compiler)
    return python


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, tarballs: list[Path], no_compiler: str) -> Path:
    """A project that has the tarballs."""
    project = tmp_path_factory.mktemp("node")
    (project / "package.json").write_text('{"private": true}')
    run("npm", "install", "--no-audit", "--no-fund", *tarballs, cwd=project, PATH=no_compiler)
    return project


class Server:
    """A Salesforce site with strict rotation: tests/support/README.md."""

    def __init__(self) -> None:
        program = os.environ.get("EVERGRANT_TEST_SERVER_PROGRAM", str(ROOT / "target/debug/evergrant-test-server"))
        command = [program, "--mode", "salesforce", "--rotation", "strict", "--exit-with-stdin"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        started = json.loads(self._process.stdout.readline())
        self.url, self._control = started["url"], started["control_url"]

    def stop(self) -> None:
        self._process.communicate()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._control}/{path}", data, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def renews(server: Server, tmp_path: Path) -> Any:
    """Runs a command that runs the example program of the README, with arguments for it: it must renew a session."""

    def renews(*command: str | Path, cwd: Path | None = None, **environment: str) -> None:
        config = {
            "site_url": server.url,
            "client_id": "client",
            "client_secret": "secret",
            "store": "sqlite:sessions.db",
        }
        file = tmp_path / "client.json"
        file.write_text(json.dumps(config))
        grant = server.ask("sign_in", {})["refresh_token"]
        first = run(*command, file, "alice", grant, cwd=cwd or tmp_path, **environment)
        again = run(*command, file, "alice", cwd=cwd or tmp_path, **environment)
        assert first == again
        assert first.startswith(f"{server.url} with a token of ")
        assert [entry["outcome"] for entry in server.ask("log?endpoint=token")] == ["ok"]

    return renews
