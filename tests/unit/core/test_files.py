"""Files are whole or not there."""

from pathlib import Path

import pytest

from repsim.core.errors import InputError
from repsim.core.files import (
    cache_folder,
    hash_bytes,
    hash_files,
    hash_json,
    read_json,
    write_json,
    written_aside,
)


def test_an_error_while_writing_leaves_the_old_file_and_no_leftovers(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="power cut"), written_aside(target) as aside:
        aside.write_text("half")
        raise RuntimeError("power cut")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_written_aside_too(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(RuntimeError, match="stop"), written_aside(target) as aside:
        aside.mkdir()
        (aside / "x").write_text("half")
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    with written_aside(target) as aside:
        aside.mkdir()
        (aside / "x").write_text("whole")
    assert (target / "x").read_text() == "whole"


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = write_json(tmp_path / "deep" / "a.json", {"b": [1, "ä"]})
    assert read_json(path) == {"b": [1, "ä"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert read_json(path) == {"b": [1, "ä"]}


def test_bad_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json' does not exist"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json' is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_hashes_see_borders_order_and_names(tmp_path: Path) -> None:
    assert hash_bytes(b"ab", b"c") != hash_bytes(b"a", b"bc")
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    one = hash_files([tmp_path / "x", tmp_path / "y"])
    assert one == hash_files([tmp_path / "y", tmp_path / "x"])
    (tmp_path / "y").write_bytes(b"3")
    assert one != hash_files([tmp_path / "x", tmp_path / "y"])


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("REPSIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "repsim"
