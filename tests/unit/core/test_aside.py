"""What dead processes left is swept; what others are writing is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repsim.core.aside import ABANDONED, locked, make_folder, sweep, temporary, written_aside
from repsim.core.errors import InputError, UsageError

WRITER = """
import os, sys
from repsim.core.aside import written_aside
with written_aside(sys.argv[1]) as aside:
    aside.write_text("half")
    os._exit(9)
"""


def test_only_leftovers_of_dead_processes_are_swept(tmp_path: Path) -> None:
    deep = tmp_path / "deep" / "er"
    subprocess.run([sys.executable, "-c", WRITER, str(deep / "x.json")], check=False)
    (dead,) = deep.iterdir()
    mine = temporary(tmp_path / "folder")
    (mine / "in").mkdir(parents=True)
    foreign = tmp_path / ".x.json.000000-1-0123abcd.tmp"  # of another machine
    foreign.write_text("being written there")
    kept = [tmp_path / ".notes.tmp", tmp_path / "a.tmp", mine, foreign]
    for path in kept[:2]:
        path.write_text("not ours")
    assert sweep(tmp_path) == [dead]
    assert all(path.exists() for path in kept)
    os.utime(foreign, (0, foreign.stat().st_mtime - ABANDONED - 60))
    assert sweep(tmp_path) == [foreign]


def test_a_long_name_and_a_file_in_the_way(tmp_path: Path) -> None:
    with written_aside(tmp_path / ("x" * 250)) as aside:
        aside.write_text("whole")
    assert (tmp_path / ("x" * 250)).read_text() == "whole"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in the way"):
        make_folder(tmp_path / "file" / "below")


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", "somebody writes"),
        pytest.raises(UsageError, match="somebody writes"),
        locked(tmp_path / "lock", "somebody writes"),
    ):
        pass
    with locked(tmp_path / "lock", "somebody writes"):
        pass
