"""Run folders resume what is theirs and refuse what is not."""

from pathlib import Path

import pyarrow as pa
import pytest

from repsim.core import RunFolder, UsageError
from repsim.core.files import hash_json, read_json


def test_a_part_is_kept_over_a_restart_and_not_written_twice(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "r", kind="compare", config={"a": 1})
    assert not run.resumed
    key = hash_json({"unit": 1})
    assert not run.parts.has(key)
    run.parts.write(key, pa.table({"x": [1, 2]}))
    again = RunFolder.open(tmp_path / "r", kind="compare", config={"a": 1})
    assert again.resumed
    assert again.parts.has(key)
    assert again.parts.read(key).column("x").to_pylist() == [1, 2]


def test_the_manifest_tells_how_it_ended(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, kind="compare", config={})
    assert read_json(tmp_path / "manifest.json")["status"] == "running"
    with pytest.raises(KeyboardInterrupt), run.going():
        raise KeyboardInterrupt("ctrl-c")
    manifest = read_json(tmp_path / "manifest.json")
    assert (manifest["status"], manifest["reason"]) == ("interrupted", "ctrl-c")
    run.finish(rows=3)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["status"] == "complete"
    assert manifest["rows"] == 3
    assert "python" in manifest["environment"]["versions"]


def test_another_configuration_is_refused_unless_forced(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, kind="compare", config={"a": 1})
    run.parts.write("k" * 64, pa.table({"x": [1]}))
    with pytest.raises(UsageError, match=r"another configuration.*--force"):
        RunFolder.open(tmp_path, kind="compare", config={"a": 2})
    forced = RunFolder.open(tmp_path, kind="compare", config={"a": 2}, force=True)
    assert not forced.parts.has("k" * 64)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        RunFolder.open(tmp_path, kind="compare", config={})
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_a_damaged_part_is_dropped_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder.open(tmp_path, kind="compare", config={})
    assert run.parts.read("a" * 64) is None
    table = pa.table({"x": list(range(5000))})
    for key in "ab":
        run.parts.write(key, table)
    path = tmp_path / "scores" / "a.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1  # one bit within a page
    path.write_bytes(data)
    assert set(run.parts.read_all(["a", "b", "c"])) == {"b"}
    assert "scores/a.parquet' was damaged and is made anew" in caplog.text
    assert run.parts.keys() == {"b"}
