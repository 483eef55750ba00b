"""The README says what is so: its Python runs, its commands exist, its flags are real."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from repsim.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GALLERY = (ROOT / "figures" / "make.sh").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [
    part.strip()
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    for part in line.split("&&")
    if part.strip().startswith("repsim ")
]
COMMAND_LINES += re.findall(
    r"(repsim [a-z].*?)(?:$|; })", GALLERY.replace("\\\n", ""), re.MULTILINE
)


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run_as_files(block: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "REPSIM_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_parse(line: str) -> None:
    _, verb, *arguments = shlex.split(line, comments=True)
    assert verb in COMMANDS
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    command.make_context(verb, arguments)


def test_there_are_two_commands_for_a_fresh_machine() -> None:
    for marker in ("main job", "test command"):
        block = README.split(f"<!-- {marker} -->")[1].split("```")[1]
        assert block.startswith("console\npython3 -m venv")
        assert len(block.strip().splitlines()) == 2


def test_the_foreign_package_is_never_recommended() -> None:
    assert not re.search(r"pip install (-\S+ )*repsim\b(?!-lm)", README)
