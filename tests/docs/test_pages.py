"""README, pages and guides say what is so: Python runs, commands exist, links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

import repsim
from repsim.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "notebooks" / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(SITE.rglob("*.md")))
}
GALLERY = (ROOT / "figures" / "make.sh").read_text(encoding="utf-8")
PYTHON = {
    name: blocks
    for name, text in TEXTS.items()
    if name != "CONTRIBUTING.md"
    and (blocks := re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
}
COMMAND_LINES = {
    part.strip(): name
    for name, text in TEXTS.items()
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
    for part in line.split("&&")
    if part.strip().startswith("repsim ")
}
COMMAND_LINES |= dict.fromkeys(
    re.findall(r"(repsim [a-z].*?)(?:$|; })", GALLERY.replace("\\\n", ""), re.MULTILINE),
    "figures/make.sh",
)


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run_as_files(page: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text("\n".join(PYTHON[page]), encoding="utf-8")
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
    assert verb in COMMANDS, COMMAND_LINES[line]
    command: click.Command | None = cli.get_command(click.Context(cli), verb)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        assert name in command.commands, COMMAND_LINES[line]
        command = command.commands[name]
    assert command is not None
    command.make_context(verb, arguments)


def test_there_are_two_commands_for_a_fresh_machine() -> None:
    for marker in ("main job", "test command"):
        block = README.split(f"<!-- {marker} -->")[1].split("```")[1]
        assert block.startswith("console\npython3 -m venv")
        assert len(block.strip().splitlines()) == 2


def test_the_foreign_package_is_never_recommended() -> None:
    for text in TEXTS.values():
        assert not re.search(r"pip install (-\S+ )*repsim\b(?!-lm)", text)


def test_exit_codes_are_those_of_the_help() -> None:
    table = README.split("**Exit codes**")[1].split("Every command")[0]
    shown = CliRunner().invoke(cli, ["--help"]).output.split("Exit codes:")[1].split("Environ")[0]
    assert re.findall(r"\d+", table) == re.findall(r"\d+", shown)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name: str) -> None:
    here = (ROOT / name).parent
    for link in re.findall(r"\]\(((?!https?:|mailto:)[^)\s]+)\)", TEXTS[name]):
        path, _, heading = link.partition("#")
        target = (here / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, link


def test_recipes_and_families_on_the_pages_are_read(tmp_path: Path) -> None:
    readers = {"recipe": repsim.merging.read_recipe, "family": repsim.pretraining.load_config}
    for name, read in readers.items():
        (block,) = re.findall(
            r"```yaml\n(.*?)```", TEXTS[f"notebooks/docs/howto/{name}.md"], flags=re.DOTALL
        )
        (tmp_path / f"{name}.yml").write_text(block, encoding="utf-8")
        assert read(tmp_path / f"{name}.yml")


def test_the_contents_of_the_site_are_its_pages() -> None:
    config = yaml.safe_load((ROOT / "notebooks" / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: object) -> list[str]:
        below = entry.values() if isinstance(entry, dict) else entry
        return [entry] if isinstance(entry, str) else [p for part in below for p in pages(part)]

    assert sorted(pages(config["nav"])) == sorted(
        path.relative_to(SITE).as_posix() for path in SITE.rglob("*.md")
    )


def test_the_reference_holds_every_public_name_by_its_place() -> None:
    listed = {
        line.removeprefix("::: ")
        for name, text in TEXTS.items()
        for line in text.splitlines()
        if line.startswith("::: ")
    }
    for public in repsim._PUBLIC:
        item = getattr(repsim, public)
        assert f"{item.__module__}.{item.__qualname__}" in listed
    for place in listed:
        module, _, attribute = place.rpartition(".")
        assert getattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), attribute)
