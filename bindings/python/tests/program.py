"""Programs of their own, for what a test cannot do to its own process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from server import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROLOGUE = """
import json, sys
import evergrant
SITE = json.loads(sys.argv[1])
"""


class Program:
    """A Python program that has imported the package and has a client's configuration as SITE.

    It shows how far it is by printing lines.
    """

    def __init__(self, source: str, site: Mapping[str, Any], before: str = "") -> None:
        command = [sys.executable, "-u", "-c", before + _PROLOGUE + source, json.dumps(dict(site))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=LIMIT_S)
        return line.rstrip("\n")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, status: int = 0) -> str:
        """Waits for its end; returns what else it has printed."""
        try:
            out, err = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode == status, err
        if status == 0:
            assert not err
        return out


def run(source: str, site: Mapping[str, Any], before: str = "") -> list[str]:
    """The lines that a program prints, which ends well."""
    return Program(source, site, before).end().splitlines()
