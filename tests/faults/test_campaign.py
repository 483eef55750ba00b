"""The short form of the campaign; the long one: `python -m tests.faults --help`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="needs /proc")
def test_nothing_is_lost_or_silent_in_a_short_campaign() -> None:
    command = [sys.executable, "-m", "tests.faults", "--kills", "4", "--inputs", "40"]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
