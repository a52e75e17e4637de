"""A certified server, whose rules nobody here made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
RUN = HERE.parents[2] / "tests" / "oidc" / "run.sh"


@pytest.mark.timeout(600)  # it may install the server first
def test_sessions_of_oidc_provider_stay_renewed() -> None:
    ended = subprocess.run(
        [RUN, sys.executable, HERE / "oidc_sessions.py"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "done\n" in ended.stdout
    assert "reuse_detected: 0" in ended.stdout
