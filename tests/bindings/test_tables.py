"""One table: evergrant.json, the header, what the library exports, and what each binding declares."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tomllib
from elftools.elf.elffile import ELFFile

from conftest import ROOT, TABLE, run

ARITIES = {function["name"]: len(function["parameters"]) for function in TABLE["functions"]}
KEYS = {key["name"]: key for key in TABLE["configuration"]}
STATUSES = {status["name"] for status in TABLE["statuses"]}
NOT_ERRORS = {"OK", "STALE"}

OF_PYTHON = """
import inspect, json, typing
import evergrant
from evergrant import _errors, _native

def shown(hint):
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")

parameters = list(inspect.signature(evergrant.Client).parameters.values())
print(json.dumps({
    "abi_version": _native.ABI_VERSION,
    "version": evergrant.__version__,
    "arities": {name: len(prototype) - 1 for name, prototype in _native.PROTOTYPES.items()},
    "keys": [parameter.name for parameter in parameters],
    "only_by_name": all(parameter.kind == parameter.KEYWORD_ONLY for parameter in parameters),
    "typed": {name: shown(hint) for name, hint in typing.get_type_hints(evergrant.Configuration).items()},
}))
"""

OF_NODE = """
import { version } from 'evergrant';
import { ABI_VERSION, prototypes } from './node_modules/evergrant/lib/native.js';
import { keys } from './node_modules/evergrant/lib/keys.js';
const arities = Object.fromEntries(Object.entries(prototypes).map(([name, types]) => [name, types.length - 1]));
console.log(JSON.stringify({ abi_version: ABI_VERSION, version, arities, keys }));
"""


@pytest.fixture(scope="module")
def of_python(python: Path) -> dict[str, Any]:
    """What the installed Python package says of itself."""
    return json.loads(run(python, "-c", OF_PYTHON))


@pytest.fixture(scope="module")
def of_node(node: Path) -> dict[str, Any]:
    """What the installed Node package says of itself."""
    return json.loads(run("node", "--input-type=module", "--eval", OF_NODE, cwd=node))


def exported(library: bytes) -> set[str]:
    symbols = ELFFile(io.BytesIO(library)).get_section_by_name(".dynsym").iter_symbols()
    return {symbol.name for symbol in symbols if symbol.name and symbol["st_shndx"] != "SHN_UNDEF"}


def test_the_header_declares_each_function_of_the_table() -> None:
    header = (ROOT / "include" / "evergrant.h").read_text()
    declarations = re.findall(r"^EVERGRANT_API\s[^;(]*?(\w+)\(([^)]*)\);", header, re.MULTILINE)
    assert {name: 0 if text == "void" else text.count(",") + 1 for name, text in declarations} == ARITIES


def test_the_packaged_libraries_export_each_function_of_the_table(wheel: Path, tarballs: list[Path]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert exported(archive.read("evergrant/libevergrant.so")) == ARITIES.keys()
    with tarfile.open(tarballs[0]) as archive:
        libraries = [member for member in archive.getmembers() if member.name.endswith(".so")]
        assert libraries
        for library in libraries:
            assert exported(archive.extractfile(library).read()) == ARITIES.keys(), library.name


def test_python_declares_each_function_of_the_table(of_python: dict[str, Any]) -> None:
    assert of_python["arities"] == ARITIES


def test_node_declares_each_function_of_the_table(of_node: dict[str, Any]) -> None:
    assert of_node["arities"] == ARITIES


def test_python_takes_each_key_of_the_configuration(of_python: dict[str, Any]) -> None:
    assert of_python["keys"] == list(KEYS), "parameters of Client"
    assert of_python["only_by_name"]
    types = {
        "text": "str",
        "secret": "str",
        "flag": "bool",
        "number": "int",
        "texts": "Sequence[str]",
        "secrets": "str | Sequence[str]",
        "parameters": "Mapping[str, str]",
    }
    expected = {name: types.get(key["kind"]) or f"Literal{key['choices']}" for name, key in KEYS.items()}
    assert of_python["typed"] == expected, "members of Configuration"


def test_node_takes_each_key_of_the_configuration(of_node: dict[str, Any]) -> None:
    camel_case = {re.sub("_(.)", lambda match: match[1].upper(), name): name for name in KEYS}
    assert list(of_node["keys"].items()) == list(camel_case.items())


def test_node_types_each_key_of_the_configuration(node: Path) -> None:
    types = (node / "node_modules/evergrant/index.d.ts").read_text()
    (body,) = re.findall(r"^export interface Configuration \{\n(.*?)^\}", types, re.MULTILINE | re.DOTALL)
    typed = dict(re.findall(r"^  (\w+)\?: (.*) \| undefined;$", body, re.MULTILINE))
    camel_case = {re.sub("_(.)", lambda match: match[1].upper(), name): key for name, key in KEYS.items()}
    types = {
        "text": "string",
        "secret": "string",
        "flag": "boolean",
        "number": "number",
        "texts": "readonly string[]",
        "secrets": "string | readonly string[]",
        "parameters": "Record<string, string>",
    }
    assert typed == {
        name: types.get(key["kind"]) or " | ".join(f"'{choice}'" for choice in key["choices"])
        for name, key in camel_case.items()
    }


def test_every_status_of_an_error_has_a_class_in_python(python: Path) -> None:
    program = """
import json, sys
from evergrant import EvergrantError, InternalError
from evergrant._errors import error_of
for status in json.loads(sys.argv[1]):
    error = error_of({"status": status, "message": "what happened"})
    assert isinstance(error, EvergrantError) and error.status == status, status
    assert type(error) is not EvergrantError, f"{status} has no class"
    assert isinstance(error, InternalError) == (status == "INTERNAL"), status
"""
    run(python, "-c", program, json.dumps(sorted(STATUSES - NOT_ERRORS)))


def test_every_status_of_an_error_has_a_code_in_node(node: Path) -> None:
    types = (node / "node_modules/evergrant/index.d.ts").read_text()
    codes = set(re.findall(r"'EVERGRANT_(\w+)'", types))
    assert codes == STATUSES - NOT_ERRORS


def test_versions_agree(of_python: dict[str, Any], of_node: dict[str, Any], node: Path) -> None:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    manifests = [json.loads(path.read_text()) for path in node.glob("node_modules/evergrant*/package.json")]
    assert len(manifests) == 2
    assert {manifest["version"] for manifest in manifests} == {version}
    (binding,) = (manifest for manifest in manifests if manifest["name"] == "evergrant")
    assert set(binding["optionalDependencies"].values()) == {version}
    assert (of_python["version"], of_node["version"]) == (version, version)
    assert (of_python["abi_version"], of_node["abi_version"]) == (TABLE["abi_version"], TABLE["abi_version"])
