"""`repsim study` from a file to an atlas and its report."""

import json
from pathlib import Path

import pytest

from repsim.core.atlas import Atlas
from repsim.studies.atlases import shipped_atlases
from tests.planted.atlases import planted_atlas
from tests.unit.studies.conftest import run


def test_a_study_goes_from_its_file_to_its_atlas_in_pieces(
    micro: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("run", micro, "-o", str(out), "--only", "pretrain", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["failed"], first["atlas"]["merges"]) == (0, 0)
    assert first["atlas"]["models"] == first["done"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "not complete"
    weights = sorted(out.glob("models/*/*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]

    assert run("status", str(out), "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert {row["kind"]: row["left"] for row in status["kinds"]}["pretrain"] == 0

    assert run("run", micro, "-o", str(out)) == 0
    assert "repsim study report" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in weights] == before
    atlas = Atlas.load(out / "atlas")
    assert len(atlas.merges) >= 2
    assert set(atlas.merges.column("language")) == {"eng_Latn", "deu_Latn"}
    assert run("plan", micro, "-o", str(out), "--json") == 0
    total = json.loads(capsys.readouterr().out)["kinds"][-1]
    assert total["done"] == total["units"]
    assert run("collect", str(out), "-o", str(tmp_path / "atlas"), "--json") == 0
    again = Atlas.load(tmp_path / "atlas")
    assert list(again.merges.rows()) == list(atlas.merges.rows())


def test_a_report_is_made_of_an_atlas_by_its_name_or_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", "cpu_atlas") == 2
    assert "-o DIR" in capsys.readouterr().err
    assert run("report", "nothing", "-o", str(tmp_path / "report")) == 3
    assert f"one of: {', '.join(shipped_atlases())}" in capsys.readouterr().err
    planted_atlas().save(tmp_path / "atlas")
    assert run("report", str(tmp_path / "atlas"), "-o", str(tmp_path / "report"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "report/report.html")
    assert "barrier" in (tmp_path / "report/report.md").read_text()
