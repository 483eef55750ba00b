"""Wheel and source archive hold all that is needed, and work where nothing else of ours is."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import repsim

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "REPSIM_CACHE"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**kept, **environment}, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_and_archive_are_built_and_work_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install '.[dev]'")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("there is no source tree to build from")
    built, unpacked, there = (tmp_path / name for name in ("dist", "source", "there"))
    run("-m", "hatchling", "build", "-t", "sdist", "-d", str(built), cwd=ROOT)
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as held:
        held.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    # What the archive lacks, its wheel would lack too.
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(built), cwd=source)
    (wheel,) = built.glob("*.whl")
    assert re.match(rf"repsim_lm-{re.escape(repsim.__version__)}-py3", wheel.name)
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "repsim").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as held_wheel:
        packed = {name for name in held_wheel.namelist() if name.startswith("repsim/")}
    assert packed == here
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target")
    run("-m", "pip", *install, str(there), str(wheel), cwd=tmp_path)
    where = {"PYTHONPATH": os.pathsep.join([str(there), *packages()]),
             "REPSIM_CACHE": str(tmp_path / "cache"), "PYTHONSAFEPATH": "1"}  # fmt: skip
    said = run("-c", "import repsim; print(repsim.__file__)", cwd=tmp_path, **where)
    assert Path(said.strip()).is_relative_to(there)
    zoo = run("-m", "repsim.cli.main", "zoo", "--json", cwd=tmp_path, **where)
    assert Path(json.loads(zoo)[0]["path"]).is_relative_to(there)
    version = run("-m", "repsim.cli.main", "--version", cwd=tmp_path, **where)
    assert repsim.__version__ in version


def packages() -> list[str]:
    """What else lies on the path, without the source tree."""
    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [path for path in listed if path and Path(path).resolve() != ROOT]
