"""`repsim study` from the outside."""

import json
from pathlib import Path

import click
import pytest

from repsim.cli.study import study
from tests.unit.studies.conftest import run

FLAGS = {
    "plan": "--json --out --workers",
    "run": """--device --dry-run --executor --gpus --json --max-seconds --only --out --processes
        --store --workers""",
    "status": "--json",
    "collect": "--json --out",
    "report": "--json --out",
}


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_the_flags_are_those_that_were_meant(name: str) -> None:
    options = [p for p in study.commands[name].params if isinstance(p, click.Option)]
    assert {max(p.opts, key=len) for p in options} == set(FLAGS[name].split())
    assert all(p.help for p in options)


def test_a_plan_lists_units_and_what_they_take(
    micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", micro, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["merges"] >= 1
    assert [row["kind"] for row in plan["kinds"]][-1] == "all"
    assert plan["kinds"][-1]["units"] == len(plan["units"])
    assert plan["kinds"][-1]["done"] == 0
    assert {"pretrain", "score", "features", "merge"} == {u["kind"] for u in plan["units"]}


def test_a_dry_run_makes_nothing(
    micro: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", micro, "-o", str(tmp_path / "out"), "--dry-run") == 0
    assert "pretrain" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert run("run", micro) == 2
    assert "--out" in capsys.readouterr().err


def test_a_folder_without_a_study_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("status", str(tmp_path)) == 3
    assert "is not the folder of a study" in capsys.readouterr().err
