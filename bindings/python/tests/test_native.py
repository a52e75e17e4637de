"""Finding, loading and checking the library; the tables of it that the package repeats."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Literal

import jedi
import pytest

import evergrant
from evergrant import _configuration, _native

ROOT = Path(__file__).resolve().parents[3]
TABLE = json.loads((ROOT / "include" / "evergrant.json").read_text())
PACKAGE = Path(evergrant.__file__).parent


def run(program: str, package: Path = PACKAGE, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that imports the package from where it is given."""
    variables = {name: value for name, value in os.environ.items() if name != "EVERGRANT_LIBRARY"}
    return subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{program}"],
        capture_output=True,
        text=True,
        env={**variables, **environment},
        check=False,
    )


def copied(directory: Path) -> Path:
    """The package without a library, in a directory of its own."""
    package = directory / "evergrant"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return package


def stub(file: Path, abi: int) -> Path:
    """A library that has nothing but an ABI number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    source = file.with_suffix(".c")
    source.write_text(f"unsigned evergrant_abi_version(void) {{ return {abi}; }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", file, source], check=True)
    return file


def test_another_abi_is_refused_with_both_numbers_and_the_path(tmp_path: Path) -> None:
    other = stub(tmp_path / "libother.so", 77)
    failed = run("import evergrant", EVERGRANT_LIBRARY=str(other))
    assert failed.returncode == 1
    message = failed.stderr.splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert f"ABI {TABLE['abi_version']}" in message
    assert f"{other} has ABI 77" in message


def test_the_abi_is_that_of_the_header() -> None:
    assert TABLE["abi_version"] == _native.ABI_VERSION


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    empty = stub(tmp_path / "empty.so", 1)
    empty.with_suffix(".c").write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", empty, empty.with_suffix(".c")], check=True)
    for path in (text, empty):
        failed = run("import evergrant", EVERGRANT_LIBRARY=str(path))
        assert f"ImportError: evergrant cannot load {path}" in failed.stderr


def test_the_variable_is_an_absolute_path_and_the_only_place(tmp_path: Path) -> None:
    package = copied(tmp_path / "site")
    for relative in ("libevergrant.so", "./libevergrant.so"):
        failed = run("import evergrant", package, EVERGRANT_LIBRARY=relative)
        assert "ImportError: EVERGRANT_LIBRARY must be an absolute path" in failed.stderr
    missing = tmp_path / "missing.so"
    failed = run("import evergrant", PACKAGE, EVERGRANT_LIBRARY=str(missing))
    assert f"ImportError: evergrant found no library. It looked for {missing}\n" in failed.stderr


def test_the_variable_comes_before_the_packaged_file(tmp_path: Path) -> None:
    package = copied(tmp_path / "site")
    stub(package / "libevergrant.so", 77)
    found = run(
        "import evergrant; print(evergrant._native.library.path)", package, EVERGRANT_LIBRARY=_native.library.path
    )
    assert found.stdout == f"{_native.library.path}\n"


def test_the_working_directory_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied(tmp_path / "site")
    stub(tmp_path / "libevergrant.so", 77)
    stub(tmp_path / "target" / "release" / "libevergrant.so", 77)
    monkeypatch.chdir(tmp_path)
    failed = run("import evergrant", package, LD_LIBRARY_PATH=str(tmp_path))
    looked_for = f"It looked for {package / 'libevergrant.so'}\n"
    assert looked_for in failed.stderr


def test_a_checkout_is_searched_release_first(tmp_path: Path) -> None:
    package = copied(tmp_path / "bindings" / "python" / "src")
    failed = run("import evergrant", package)
    assert "target" not in failed.stderr  # no checkout without a Cargo.toml
    (tmp_path / "Cargo.toml").touch()
    target = tmp_path / "target"
    failed = run("import evergrant", package)
    for profile in ("release", "debug"):
        assert str(target / profile / "libevergrant.so") in failed.stderr
    assert "cargo build --release" in failed.stderr
    stub(target / "debug" / "libevergrant.so", 77)
    assert "debug/libevergrant.so has ABI 77" in run("import evergrant", package).stderr
    stub(target / "release" / "libevergrant.so", 78)
    assert "release/libevergrant.so has ABI 78" in run("import evergrant", package).stderr
    stub(package / "libevergrant.so", 79)
    assert "evergrant/libevergrant.so has ABI 79" in run("import evergrant", package).stderr


def test_importing_takes_nothing_that_a_hit_does_not_need() -> None:
    """Neither it nor a hit imports more than ctypes, collections and weakref, whatever a slow call may need."""
    program = """
import __future__, ctypes, collections.abc, weakref, _thread
before = set(sys.modules)
import evergrant
print(*sorted(name for name in set(sys.modules) - before if name.partition(".")[0] != "evergrant"))
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "evergrant"))
"""
    found = run(program, EVERGRANT_LIBRARY=_native.library.path)
    assert not found.stderr
    others, own = found.stdout.splitlines()
    assert others == ""
    assert own.split() == [
        "evergrant",
        *(f"evergrant._{name}" for name in ["client", "errors", "flow", "native", "process", "session", "token"]),
    ]


def test_every_function_of_the_header_has_its_prototype() -> None:
    functions = {function["name"]: len(function["parameters"]) for function in TABLE["functions"]}
    assert {name: len(prototype) - 1 for name, prototype in _native.PROTOTYPES.items()} == functions
    for name in functions:
        assert getattr(_native.library, name)
    with pytest.raises(AttributeError):
        _native.library.evergrant_no_such_function()


KINDS: dict[str, Any] = {
    "text": str,
    "secret": str,
    "flag": bool,
    "number": int,
    "texts": typing.get_type_hints(_configuration.Configuration)["origins"],
    "secrets": typing.get_type_hints(_configuration.Configuration)["encryption_key"],
    "parameters": typing.get_type_hints(_configuration.Configuration)["refresh_parameters"],
}


def test_the_configuration_is_that_of_the_library() -> None:
    expected = {
        key["name"]: Literal[tuple(key["choices"])] if key["kind"] == "choice" else KINDS[key["kind"]]
        for key in TABLE["configuration"]
    }
    found = typing.get_type_hints(_configuration.Configuration)
    assert found == expected
    assert str(KINDS["texts"]) == "collections.abc.Sequence[str]"
    assert str(KINDS["secrets"]) == "str | collections.abc.Sequence[str]"
    assert str(KINDS["parameters"]) == "collections.abc.Mapping[str, str]"
    assert typing.get_type_hints(_configuration.RefreshRequest) == {**expected, "refresh_token": str}


def test_the_arguments_of_a_client_are_the_configuration() -> None:
    parameters = inspect.signature(evergrant.Client).parameters
    hints = _configuration.Configuration.__annotations__
    assert list(parameters) == list(hints)
    for name, parameter in parameters.items():
        assert (parameter.kind, parameter.default) == (parameter.KEYWORD_ONLY, None)
        assert parameter.annotation == f"{hints[name].__forward_arg__} | None"


def test_an_editor_completes_them() -> None:
    source = "import evergrant\nevergrant.Client(session_l"
    completions = jedi.Script(source, environment=jedi.InterpreterEnvironment()).complete()
    assert [completion.name for completion in completions] == ["session_lifetime_s="]


def test_the_version_is_that_of_the_library_and_of_the_package() -> None:
    from importlib.metadata import version

    assert evergrant.__version__ == TABLE["version"]
    assert version("evergrant") == TABLE["version"]


def test_the_names_of_the_package() -> None:
    for name in evergrant.__all__:
        assert getattr(evergrant, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        evergrant.no_such_name  # noqa: B018


def test_what_is_tested_is_an_installed_wheel() -> None:
    assert PACKAGE.is_relative_to(sys.prefix), "bindings/python/test.sh installs a wheel and tests that"
    assert _native.library.path == str(PACKAGE / "libevergrant.so")
