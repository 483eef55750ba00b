"""Working through a graph, in this process."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.studies.engine import (
    Event,
    Outcome,
    Store,
    StudyFolder,
    Unit,
    make_executor,
    run_graph,
    unit_keys,
)
from repsim.studies.engine.claims import claimed
from repsim.studies.engine.progress import live_view
from tests.unit.studies.planted_units import small_graph, unit


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def run(units: list[Unit], folder: Path, **options: object) -> tuple[Outcome, list[Event]]:
    heard: list[Event] = []
    found = run_graph(units, Store(folder), make_executor("inprocess"), heard.append, **options)  # type: ignore[arg-type]
    return found, heard


def told(events: list[Event], what: str) -> list[str]:
    return [event.unit.name for event in events if event.what == what and event.unit]


def test_results_go_along_the_graph(tmp_path: Path) -> None:
    a, b = unit("total", "a", x=1), unit("total", "b", x=2)
    both = unit("total", "a+b", ("a", "b"), x=10)
    found, events = run([a, b, both], tmp_path)
    assert found.complete
    assert Store(tmp_path).results(found.keys) == {"a": 1, "b": 2, "a+b": 13}
    assert told(events, "start") == told(events, "done") == ["a", "b", "a+b"]
    part = Store(tmp_path).part(found.keys["a+b"])
    assert part["needs"] == {"a": found.keys["a"], "b": found.keys["b"]}
    assert part["spec"] == {"x": 10}


def test_nothing_is_done_twice_and_more_can_be_added(tmp_path: Path) -> None:
    count = tmp_path / "count"
    a = unit("total", "a", x=1, how={"count": str(count)})
    run([a], tmp_path / "s")
    run([a], tmp_path / "s")
    found, events = run([a, unit("total", "b", ("a",), x=1)], tmp_path / "s")
    assert count.read_text() == "x\n"
    assert told(events, "start") == ["b"]
    assert found.done == ("a", "b")


def test_a_failure_is_kept_with_its_log_skips_its_users_and_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    units = [
        unit("fails_unless", "bad", how={"file": str(file)}),
        unit("total", "user", (), x=1),
        Unit("planted_units:reads", "after bad", {"seed": 1}, ("bad",)),
        Unit("planted_units:reads", "after that", {"seed": 1}, ("after bad",)),
    ]
    store = Store(tmp_path / "s")
    found, events = run(units, tmp_path / "s")
    assert found.failed == {"bad": "the file is not there"}
    assert found.skipped == {"after bad": "bad", "after that": "bad"}
    assert found.done == ("user",)
    assert told(events, "skipped") == ["after bad", "after that"]
    failure = store.noted("failed", found.keys["bad"])
    assert failure is not None
    assert "raise InputError" in failure["traceback"]
    log = Path(failure["log"]).read_text()
    assert "looked for the file" in log
    assert "InputError: the file is not there" in log
    file.touch()
    again, _ = run(units[:2], tmp_path / "s")
    assert again.complete
    assert store.keys("failed") == set()


@pytest.mark.parametrize(("what", "why"), [("nan", "Out of range"), ("object", "not JSON")])
def test_a_result_that_is_not_json_fails_its_unit(tmp_path: Path, what: str, why: str) -> None:
    found, _ = run([unit("gives", "g", what=what)], tmp_path)
    assert why in found.failed["g"]
    assert not Store(tmp_path).keys("parts")


def test_time_that_is_up_leaves_the_rest_for_the_next_run(tmp_path: Path) -> None:
    units = [unit("total", f"u{i}", x=i) for i in range(3)]
    slow = [Unit(u.kind, u.name, u.spec, u.needs, seconds=0.2) for u in units]
    # Longer than the whole time: it starts all the same, or it would never be done.
    long = Unit("planted_units:total", "long", {"x": 1}, seconds=1000.0)
    found, _ = run([*slow, long], tmp_path, max_seconds=0.15)
    assert "long" in found.done
    found, _ = run([unit("total", "other", x=7)], tmp_path, max_seconds=1e-9)
    assert found.left == ("other",)
    assert not found.complete


def test_a_unit_that_would_end_too_late_is_not_begun(tmp_path: Path) -> None:
    first = Unit("planted_units:pauses", "first", {"for": 0.3})
    late = Unit("planted_units:total", "late", {"x": 2}, ("first",), seconds=0.9)
    quick = Unit("planted_units:total", "quick", {"x": 2}, ("first",), seconds=0.1)
    found, events = run([first, late, quick], tmp_path, max_seconds=1.0)
    assert found.left == ("late",)
    assert told(events, "start") == ["first", "quick"]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    found, _ = run(small_graph(), tmp_path, only=["read 2"])
    assert found.done == ("make 2", "read 2")
    with pytest.raises(UsageError, match="no unit of work fits"):
        run(small_graph(), tmp_path, only=["nothing"])


def test_what_another_run_does_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    a = unit("total", "a", x=1)
    keys = unit_keys([a])
    held, go = threading.Event(), threading.Event()

    def other() -> None:
        with claimed(store, keys["a"], "other run"):
            held.set()
            assert go.wait(30)
            store.write_part(keys["a"], {"result": 41.0})

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(30)
    heard: list[str] = []

    def listen(event: Event) -> None:
        heard.append(event.what)
        if event.what == "elsewhere":
            go.set()

    units = [a, unit("total", "b", ("a",), x=1)]
    found = run_graph(units, store, make_executor("inprocess"), listen)
    thread.join()
    assert found.complete
    assert store.results(found.keys) == {"a": 41, "b": 42}
    assert "elsewhere" in heard


def test_the_view_says_failures_and_now_and_then_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_QUIET", "1")
    said: list[tuple[str, str]] = []
    units = [unit("fails_unless", "bad", how={"file": "/nowhere"}), unit("total", "a", x=1)]
    with live_view(lambda *words: said.append(words), 1, every=0.0) as listen:
        run_graph(units, Store(tmp_path), make_executor("inprocess"), listen)
    assert any(label == "failed" and "bad: the file is not there (log: " in t for label, t in said)
    assert said[-1] == ("study", "1 done · 0 running · 1 failed, 0 skipped for it · 0 left")


def test_a_folder_tells_how_far_its_study_is(tmp_path: Path) -> None:
    units = [
        unit("fails_unless", "bad", how={"file": "/nowhere"}),
        unit("total", "a", x=1),
        unit("total", "b", ("bad",), x=1),
    ]
    folder = StudyFolder.open(tmp_path / "s", config={"name": "s"}, key="k", units=units)
    assert folder.status().left == 3
    run_graph(units, folder.store, make_executor("inprocess"))
    folder.note("units failed")
    status = StudyFolder.load(tmp_path / "s").status()
    assert [(r["done"], r["failed"], r["skipped"]) for r in status.kinds] == [(0, 1, 0), (1, 0, 1)]
    assert status.failed[0]["error"] == "the file is not there"
    assert Path(status.failed[0]["log"]).exists()
    again = StudyFolder.open(tmp_path / "s", config={"name": "t"}, key="k2", units=units)
    assert again.added
    assert [entry["key"] for entry in again.manifest["earlier"]] == ["k"]


def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="holds no study"):
        StudyFolder.open(tmp_path, config={}, key="k", units=[])
    with pytest.raises(InputError, match="not the folder of a study"):
        StudyFolder.load(tmp_path)
    StudyFolder.open(tmp_path / "s", config={}, key="k", units=[], store="memory://a")
    with pytest.raises(UsageError, match="are in 'memory://a'"):
        StudyFolder.open(tmp_path / "s", config={}, key="k", units=[], store="memory://b")


def test_the_engine_runs_where_little_is_installed(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('pyarrow', 'pydantic', 'ray', 'submitit', 'torch', 'click', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from repsim.studies.engine import *\n"
        "import planted_units\n"
        f"store = Store({str(tmp_path)!r})\n"
        "found = run_graph([planted_units.unit('total', 'a', x=1)], store, "
        "make_executor('processes', workers=1))\n"
        "assert found.complete, found\n"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PATH": "", "PYTHONPATH": here, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_more_workers_than_one_process_has_are_refused() -> None:
    with pytest.raises(UsageError, match="does not have 4 workers"):
        make_executor("inprocess", workers=4)
    with pytest.raises(UsageError, match="did you mean 'processes'"):
        make_executor("proceses")


def test_a_damaged_part_is_made_anew_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    units = [unit("total", "a", x=1), unit("total", "b", ("a",), x=2)]
    found, _ = run(units, tmp_path)
    part = tmp_path / "parts" / f"{found.keys['a']}.json"
    before = part.read_bytes()
    part.write_bytes(before.replace(b'"result": 1', b'"result": 7'))
    again, events = run(units, tmp_path)
    assert again.complete
    assert told(events, "start") == ["a"]
    assert part.read_bytes() == before
    assert "was damaged and is made anew" in caplog.text
