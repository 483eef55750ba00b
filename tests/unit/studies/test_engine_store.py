"""The store and the workspace, in a folder and in an object store."""

import json
import logging
import os
import platform
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.studies.engine import Store, Workspace
from repsim.studies.engine.claims import STALE, alive, claimed


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "store")
    return Store(f"memory://{uuid.uuid4().hex}/study")


def test_a_part_comes_back_as_it_was(store: Store) -> None:
    assert store.keys("parts") == set()
    store.write_part("k1", {"result": [1, {"ü": 0.1}]})
    assert store.parts.has("k1")
    assert not store.parts.has("k2")
    assert store.part("k1")["result"] == [1, {"ü": 0.1}]
    assert store.keys("parts") == {"k1"}
    assert store.results({"a": "k1", "b": "k2"}) == {"a": [1, {"ü": 0.1}]}
    with pytest.raises(InputError, match="is missing"):
        store.part("k2")


@pytest.mark.parametrize("damage", [b"{", b'{"result": 2, "sha256": "0"}'])
def test_a_damaged_part_is_dropped_with_a_note(
    store: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.write("parts/k1.json", damage)
    store.write("parts/k2.json", b'{"result": 2}')  # as version 0.1 wrote it
    assert store.results({"a": "k1", "b": "k2"}) == {"b": 2}
    assert "parts/k1.json' was damaged and is made anew" in caplog.text
    assert store.keys("parts") == {"k2"}
    with pytest.raises(InputError, match="is missing"):
        store.part("k1")


def test_documents_are_removed_even_if_they_are_not_there(store: Store) -> None:
    store.write_failure("k1", {"error": "no"})
    failure = store.noted("failed", "k1")
    assert failure is not None
    assert failure["log"].endswith("logs/k1.log")
    store.forget("failed", "k1")
    store.forget("failed", "k1")
    assert store.noted("failed", "k1") is None


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot be used"):
        Store("nowhere://bucket/study")


def test_a_folder_goes_through_the_store_to_another_machine(store: Store, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    made = Workspace(here, store, "k1")
    folder = made.folder("models/main/a")
    (folder / "deep").mkdir()
    (folder / "deep" / "w.bin").write_bytes(b"\x00\x01")
    made.publish(folder, "models/main/a")
    # What an interrupted try left there is not taken for the real thing.
    half = there / "models/main/a"
    half.mkdir(parents=True)
    (half / "half").write_text("")
    fetched = Workspace(there, store, "k2").fetch("models/main/a")
    files = sorted(p.relative_to(fetched).as_posix() for p in fetched.rglob("*") if p.is_file())
    assert files == ["deep/w.bin"]
    assert (fetched / "deep/w.bin").read_bytes() == b"\x00\x01"
    assert sorted(p.name for p in fetched.parent.iterdir()) == ["a"]
    # Copied once: a second look finds the local copy.
    (fetched / "mark").write_text("")
    assert (Workspace(there, store, "k3").fetch("models/main/a") / "mark").exists()


def test_what_was_not_published_is_not_fetched(store: Store, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w", store, "k1")
    workspace.folder("models/a")
    with pytest.raises(InputError, match="was not published"):
        workspace.fetch("models/a")


def test_a_folder_of_another_study_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    first = Workspace(tmp_path / "w", store, "k1")
    first.publish(first.folder("models/a"), "models/a")
    first.publish(first.folder("models/a"), "models/a")  # the same unit, once more
    second = Workspace(tmp_path / "w", store, "k2")
    with pytest.raises(UsageError, match="was made by another study"):
        second.folder("models/a")
    with pytest.raises(UsageError, match="was made by another study"):
        second.publish(tmp_path, "models/a")


def test_the_log_holds_what_was_said_printed_and_logged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command that ran in this process before may have turned the messages of training to stderr.
    monkeypatch.setattr(logging.getLogger("repsim.pretraining"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("repsim.pretraining"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("repsim.pretraining"), "level", logging.INFO)
    workspace = Workspace(tmp_path / "w", store, "k1")
    with workspace.logging():
        workspace.log("said")
        sys.stderr.write("printed\n")
        logging.getLogger("repsim.pretraining").info("step %d", 3)
    text = store.fs.cat_file(store.path("logs", "k1", "log")).decode()
    for words in ("said", "printed", "step 3"):
        assert words in text
    logging.getLogger("repsim").info("after")
    assert "after" not in store.fs.cat_file(store.path("logs", "k1", "log")).decode()


def claim(owner: str, **changed: Any) -> dict[str, Any]:
    return {"owner": owner, "host": platform.node(), "pid": os.getpid(), "since": time.time(),
            "beat": time.time(), **changed}  # fmt: skip


def test_a_unit_that_another_run_works_on_is_left_to_it(store: Store) -> None:
    with claimed(store, "k1", "one") as ours, claimed(store, "k1", "two") as theirs:
        assert (ours, theirs) == (True, False)
    assert store.keys("claims") == set()
    with claimed(store, "k1", "two") as ours:
        assert ours


@pytest.mark.parametrize("left", ["dead process", "silent for long", "same run"])
def test_a_claim_that_was_left_behind_is_taken_over(store: Store, left: str) -> None:
    gone = 2**22 + 5  # above the largest process id of Linux
    document = {
        "dead process": claim("one", pid=gone),
        "silent for long": claim("one", host="elsewhere", beat=time.time() - STALE - 1),
        "same run": claim("two"),
    }[left]
    store.note("claims", "k1", document)
    with claimed(store, "k1", "two") as ours:
        assert ours
        known = store.noted("claims", "k1")
        assert known is not None
        assert known["owner"] == "two"


def test_a_process_of_another_machine_is_judged_by_its_last_sign() -> None:
    assert alive(claim("one", host="elsewhere", pid=2**22 + 5))
    assert not alive(None)


def test_files_of_a_folder_are_plain_json(tmp_path: Path) -> None:
    Store(tmp_path).write_part("k1", {"result": 1})
    Store(tmp_path).write_part("k2", {"result": {2: "b", 10: "a"}})  # sorts otherwise as text
    assert Store(tmp_path).part("k2")["result"] == {"2": "b", "10": "a"}
    document = json.loads((tmp_path / "parts" / "k1.json").read_text())
    assert document.pop("sha256")
    assert document == {"schema": "repsim/part/1", "key": "k1", "result": 1}
