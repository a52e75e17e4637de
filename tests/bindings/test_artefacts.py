"""What is in the files of dist/."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import tomllib
from elftools.elf.elffile import ELFFile
from installer.sources import WheelFile

from conftest import ROOT, TABLE, below, sources

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
SONAME = f"libevergrant.so.{TABLE['abi_version']}"
OLDEST_GLIBC = (2, 28)
MOST_BYTES = 6 * 2**20
OF_GLIBC = {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def files(archive: Path) -> dict[str, bytes]:
    """What a tarball holds below its one directory."""
    with tarfile.open(archive) as opened:
        members = [member for member in opened.getmembers() if not member.isdir()]
        assert [member.name for member in members if not member.isfile()] == [], (
            "links: pip refuses those that lead out"
        )
        assert len({member.name.split("/")[0] for member in members}) == 1
        return {member.name.split("/", 1)[1]: opened.extractfile(member).read() for member in members}


@pytest.fixture(scope="module")
def library(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("evergrant/libevergrant.so")


@pytest.fixture(scope="module")
def elf(library: bytes) -> ELFFile:
    return ELFFile(io.BytesIO(library))


def test_the_library_needs_no_glibc_newer_than_its_tag_says(elf: ELFFile) -> None:
    needed = [
        tuple(map(int, auxiliary.name.removeprefix("GLIBC_").split(".")))
        for _, auxiliaries in elf.get_section_by_name(".gnu.version_r").iter_versions()
        for auxiliary in auxiliaries
    ]
    assert max(needed) <= OLDEST_GLIBC


def test_the_tag_of_the_wheel_is_true(wheel: Path) -> None:
    auditwheel = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel)]
    found = json.loads(subprocess.run(auditwheel, check=True, capture_output=True).stdout)
    assert wheel.name == f"evergrant-{VERSION}-py3-none-{found['overall_tag']}.whl"
    assert found["overall_tag"].startswith("manylinux_{}_{}_".format(*OLDEST_GLIBC))
    assert found["external_libs"] == {}


def test_the_library_is_linked_as_it_must_be(elf: ELFFile) -> None:
    dynamic = elf.get_section_by_name(".dynamic")
    (soname,) = (tag.soname for tag in dynamic.iter_tags("DT_SONAME"))
    (flags,) = (tag["d_val"] for tag in dynamic.iter_tags("DT_FLAGS_1"))
    assert soname == SONAME
    assert flags & 0x8, "DF_1_NODELETE: dlclose() must not unmap it"
    assert {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")} <= OF_GLIBC
    assert not list(dynamic.iter_tags("DT_RPATH"))
    assert not list(dynamic.iter_tags("DT_RUNPATH"))


def test_the_library_is_stripped_and_small(elf: ELFFile, library: bytes) -> None:
    assert not elf.get_section_by_name(".symtab")
    assert not elf.has_dwarf_info(strict=True)
    assert len(library) <= MOST_BYTES


def test_the_library_was_built_with_the_settings_of_cargo_config(elf: ELFFile) -> None:
    """SQLite flushes by fdatasync only where it is told that there is one."""
    assert "fdatasync" in {symbol.name for symbol in elf.get_section_by_name(".dynsym").iter_symbols()}


def test_the_library_names_no_path_of_the_machine_that_built_it(library: bytes) -> None:
    for path in (ROOT, Path.home(), Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))):
        assert str(path).encode() + b"/" not in library


def test_the_wheel_holds_the_package_and_one_library(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = below("bindings/python/src")
    assert "evergrant/py.typed" in package
    info = f"evergrant-{VERSION}.dist-info/"
    about = {
        f"{info}{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE-APACHE", "licenses/LICENSE-MIT")
    }
    assert names == package | about | {"evergrant/libevergrant.so"}


def test_the_record_of_the_wheel_is_true(wheel: Path) -> None:
    with WheelFile.open(wheel) as opened:
        opened.validate_record()
        metadata = opened.read_dist_info("METADATA")
    assert "Requires-Dist" not in metadata
    assert f"Version: {VERSION}\n" in metadata
    assert "Requires-Python: >=3.10\n" in metadata


def test_the_sdist_holds_the_package_and_the_crate_and_nothing_else(sdist: Path) -> None:
    held = files(sdist)
    crate = {name.removeprefix("crate/"): content for name, content in held.items() if name.startswith("crate/")}
    of_cargo = {"Cargo.toml", "Cargo.lock", "Cargo.toml.orig", ".cargo_vcs_info.json"}
    needed = {f"{part}/{name}" for part in ("src", "include", ".cargo") for name in below(part)}
    assert needed | {"build.rs", "Cargo.toml", "Cargo.lock"} <= crate.keys()
    assert crate.keys() - of_cargo <= sources()
    for name in crate.keys() - of_cargo:
        assert crate[name] == (ROOT / name).read_bytes(), name

    package = {name for name in held if not name.startswith("crate/")}
    assert {f"src/{name}" for name in below("bindings/python/src")} <= package
    assert package <= below("bindings/python") | {"PKG-INFO", ".gitignore"}
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        assert held[name] == (ROOT / name).read_bytes(), name


def test_the_tarballs_hold_the_package_and_its_library(tarballs: list[Path], library: bytes) -> None:
    platform, binding = map(files, tarballs)
    licences = {"LICENSE-APACHE", "LICENSE-MIT"}
    modules = {f"{part}/{name}" for part in ("lib", "recipes") for name in below(f"bindings/node/{part}")}
    assert binding.keys() == modules | licences | {"index.js", "index.d.ts", "package.json", "README.md"}
    assert platform.keys() - {"musl/libevergrant.so"} == licences | {
        "package.json",
        "README.md",
        "glibc/libevergrant.so",
    }
    assert platform["glibc/libevergrant.so"] == library, "the wheel's"

    for held in (platform, binding):
        manifest = json.loads(held["package.json"])
        assert "scripts" not in manifest
        assert manifest.get("dependencies", {}).keys() == ({"koffi"} if held is binding else set())
