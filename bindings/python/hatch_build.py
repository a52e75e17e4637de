"""Builds the library and puts it into the wheel; puts the crate into the sdist. The version is the crate's.

A wheel holds one library and serves every Python on one platform. Usually cargo builds it, for this machine, and the
wheel is tagged for this machine. Who has built a library for a wider platform sets both of these variables:

    EVERGRANT_BUILD_LIBRARY   the file to take instead: target/x86_64-unknown-linux-gnu/release/libevergrant.so
    EVERGRANT_WHEEL_PLATFORM  the platform tag, such as manylinux_2_28_x86_64 or musllinux_1_2_x86_64
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with hatchling

HERE = Path(__file__).resolve().parent
# In an sdist the crate lies inside.
CRATE = HERE / "crate" if (HERE / "crate").is_dir() else HERE.parent.parent
CARGO = os.environ.get("CARGO", "cargo")


class CrateMetadataHook(MetadataHookInterface):
    """Takes the version from Cargo.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets what ``dynamic`` of pyproject.toml names."""
        metadata["version"] = tomllib.loads((CRATE / "Cargo.toml").read_text("utf-8"))["package"]["version"]


class CrateBuildHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, and the crate to an sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build. An editable installation finds the library in the checkout's target directory."""
        if self.target_name == "sdist":
            self._temporary = tempfile.TemporaryDirectory()
            build_data["force_include"][str(_packaged_crate(Path(self._temporary.name)))] = "crate"
        elif version != "editable":
            library = Path(os.environ.get("EVERGRANT_BUILD_LIBRARY") or _built_library())
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{os.environ.get('EVERGRANT_WHEEL_PLATFORM') or _platform()}"
            build_data["force_include"][str(library)] = f"evergrant/{library.name}"


def _built_library() -> str:
    command = [CARGO, "build", "--release", "--locked", "--lib", "--message-format=json-render-diagnostics"]
    try:
        build = subprocess.run(command, cwd=CRATE, stdout=subprocess.PIPE, check=True)
    except FileNotFoundError as problem:
        raise RuntimeError(
            "to build evergrant from source takes Rust and a C compiler (https://rustup.rs); a wheel takes neither"
        ) from problem
    messages = [json.loads(line) for line in build.stdout.splitlines()]
    for message in messages:
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "evergrant":
            return next(str(file) for file in message["filenames"] if file.endswith((".so", ".dylib", ".dll")))
    raise RuntimeError("cargo built no library")


def _platform() -> str:
    if sys.platform == "darwin":
        from packaging.tags import mac_platforms

        return next(mac_platforms())
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _packaged_crate(directory: Path) -> Path:
    """The crate as cargo publishes it, without tests; and the build settings, which cargo leaves out."""
    if (HERE / "crate").is_dir():
        return HERE / "crate"
    command = [CARGO, "package", "--no-verify", "--allow-dirty", "--quiet", "--target-dir", str(directory)]
    subprocess.run(command, cwd=CRATE, check=True)
    (archive,) = (directory / "package").glob("*.crate")
    with tarfile.open(archive) as crate:
        crate.extractall(directory)
    packaged = directory / archive.stem
    shutil.copytree(CRATE / ".cargo", packaged / ".cargo")
    return packaged
