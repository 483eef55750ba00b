"""The README says what is so: its Python runs, its commands exist, its flags are real."""

import re
import shlex
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
def test_python_blocks_run(
    block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path))
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


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
