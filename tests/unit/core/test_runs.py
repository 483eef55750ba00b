"""Run folders resume what is theirs and refuse what is not."""

from pathlib import Path

import pyarrow as pa
import pytest

from repsim.core import InputError, RunFolder, UsageError
from repsim.core.files import hash_json, read_json


def test_a_part_is_kept_over_a_restart_and_not_written_twice(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "r", kind="compare", config={"a": 1})
    assert not run.resumed
    key = hash_json({"unit": 1})
    assert not run.has_part(key)
    run.write_part(key, pa.table({"x": [1, 2]}))
    again = RunFolder.open(tmp_path / "r", kind="compare", config={"a": 1})
    assert again.resumed
    assert again.has_part(key)
    assert again.read_part(key).column("x").to_pylist() == [1, 2]


def test_the_manifest_tells_how_it_ended(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, kind="compare", config={})
    assert read_json(tmp_path / "manifest.json")["status"] == "running"
    run.stop("interrupted", "ctrl-c")
    assert read_json(tmp_path / "manifest.json")["reason"] == "ctrl-c"
    run.finish(rows=3)
    manifest = RunFolder.load(tmp_path, kind="compare").manifest
    assert manifest["status"] == "complete"
    assert manifest["rows"] == 3
    assert "python" in manifest["environment"]["versions"]


def test_another_configuration_is_refused_unless_forced(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, kind="compare", config={"a": 1})
    run.write_part("k" * 64, pa.table({"x": [1]}))
    with pytest.raises(UsageError, match=r"another configuration.*--force"):
        RunFolder.open(tmp_path, kind="compare", config={"a": 2})
    forced = RunFolder.open(tmp_path, kind="compare", config={"a": 2}, force=True)
    assert not forced.has_part("k" * 64)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        RunFolder.open(tmp_path, kind="compare", config={})
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_missing_and_damaged_parts_and_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder.*repsim compare"):
        RunFolder.load(tmp_path)
    run = RunFolder.open(tmp_path, kind="compare", config={})
    with pytest.raises(InputError, match="is missing"):
        run.read_part("a" * 64)
    run.write_part("a" * 64, pa.table({"x": [1]})).write_bytes(b"junk")
    with pytest.raises(InputError, match="is damaged"):
        run.read_part("a" * 64)
    with pytest.raises(InputError, match="holds a run of 'compare', not of 'merge'"):
        RunFolder.load(tmp_path, kind="merge")
