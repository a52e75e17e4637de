"""The packages install in clean environments, and what is installed renews a session."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import EXAMPLES, ROOT, TABLE, run, virtual_environment


def test_the_wheel_installs_without_a_compiler_or_an_index(python: Path, no_compiler: str, renews: Any) -> None:
    renews(python, EXAMPLES["python"], PATH=no_compiler)


def test_the_tarballs_install_without_a_compiler(node: Path, no_compiler: str, renews: Any) -> None:
    program = node / "renew.mjs"
    program.write_bytes(EXAMPLES["node"].read_bytes())
    renews("node", program, PATH=no_compiler)


def test_the_sdist_builds_and_installs(tmp_path: Path, sdist: Path, renews: Any) -> None:
    python = virtual_environment(tmp_path / "venv")
    # What the packages of the registry compile to is taken over: only the crate itself is built again.
    built, target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")), tmp_path / "target"
    ours = shutil.ignore_patterns("libevergrant*", "evergrant*", "incremental")
    shutil.copytree(built / "release", target / "release", symlinks=True, ignore=ours)
    run(python, "-m", "pip", "install", sdist, CARGO_TARGET_DIR=str(target))
    assert len(list((tmp_path / "venv").glob("lib/*/site-packages/evergrant/libevergrant.so"))) == 1
    renews(python, EXAMPLES["python"])


def test_a_checkout_installs(tmp_path: Path, renews: Any) -> None:
    python = virtual_environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", ROOT / "bindings/python")
    assert len(list((tmp_path / "venv").glob("lib/*/site-packages/evergrant/libevergrant.so"))) == 1
    renews(python, EXAMPLES["python"])


def test_a_checkout_can_be_edited_while_it_is_installed(tmp_path: Path, renews: Any) -> None:
    python = virtual_environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", "--editable", ROOT / "bindings/python")
    where = run(python, "-c", "import evergrant, evergrant._native as n; print(evergrant.__file__, n.library.path)")
    module, library = map(Path, where.split())
    assert module == ROOT / "bindings/python/src/evergrant/__init__.py"
    assert library.parent.parent == ROOT / "target"
    renews(python, EXAMPLES["python"])


@pytest.fixture(scope="module")
def other_abi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of another time."""
    directory = tmp_path_factory.mktemp("abi")
    source, library = directory / "abi.c", directory / "libevergrant.so"
    source.write_text(f"unsigned evergrant_abi_version(void) {{ return {TABLE['abi_version'] + 1}; }}\n")
    run("cc", "-shared", "-fPIC", source, "-o", library)
    return library


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_library_with_another_abi_is_refused(language: str, python: Path, node: Path, other_abi: Path) -> None:
    commands = {
        "python": [python, "-c", "import evergrant"],
        "node": ["node", "--input-type=module", "--eval", "import 'evergrant'"],
    }
    environment = os.environ | {"EVERGRANT_LIBRARY": str(other_abi)}
    done = subprocess.run(commands[language], cwd=node, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (sentence,) = (line for line in done.stderr.splitlines() if str(other_abi) in line and "Error" in line)
    numbers = re.findall(r"\b\d+\b", sentence.replace(str(other_abi), ""))
    assert sorted(map(int, numbers)) == [TABLE["abi_version"], TABLE["abi_version"] + 1], sentence
