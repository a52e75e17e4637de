"""What a package brings along in this environment: MiB of files, and other packages."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from rounds import row


def closure(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Adds the package and whatever it needs here."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed") from None
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found and not extras:
        return
    found[key] = package
    for text in package.requires or []:
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            closure(need.name, frozenset(need.extras), found)


def size(package: Distribution) -> Iterator[int]:
    for file in package.files or []:
        path = file.locate()
        if path.is_file() and path.suffix != ".pyc":  # type: ignore[attr-defined]
            yield path.stat().st_size  # type: ignore[attr-defined]


def installed(requirement: str) -> tuple[float, int]:
    need = Requirement(requirement)
    found: dict[str, Distribution] = {}
    closure(need.name, frozenset(need.extras), found)
    return sum(sum(size(package)) for package in found.values()) / 2**20, len(found) - 1


PEERS = ("google-auth[requests]", "msal", "authlib", "simple-salesforce")

mib, others = installed("evergrant")
for number, peer in enumerate(PEERS):
    their_mib, their_others = installed(peer)
    what = "" if number else f"installed for Python, with {others} more packages;"
    row(f"{what or ' '} peer: {peer}, with {their_others}", "MiB", "" if number else "0 packages", [mib], [their_mib])
