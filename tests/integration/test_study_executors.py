"""Executors: the same parts from each, and what is left after somebody was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repsim.studies.engine import Event, Outcome, Store, make_executor, run_graph
from repsim.studies.engine.executors.local import ProcessExecutor
from tests.planted.configurations import study
from tests.unit.studies.planted_units import small_graph, unit

PLANTED = Path(__file__).resolve().parents[1] / "unit" / "studies"

#: What a driver of its own process does: two workers, one unit that waits for a file.
DRIVER = """
import sys
from planted_units import unit
from repsim.studies.engine import *
folder, file = sys.argv[1:]
units = [unit("total", "a", x=1), unit("waits_for", "w", ("a",), how={"file": file}),
         unit("total", "b", ("a",), x=2)]
run_graph(units, Store(folder), make_executor("processes", workers=2))
"""


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers can import the units of these tests."""
    monkeypatch.setenv("PYTHONPATH", str(PLANTED))
    monkeypatch.syspath_prepend(str(PLANTED))


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[Any]:
    """A local Ray with two workers."""
    ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(PLANTED)
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        object_store_memory=80_000_000,
    )  # fmt: skip
    yield ray
    ray.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "parts").iterdir())}


def wait_until(true: Any, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def pid_in(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def run_by(name: str, folder: Path) -> Outcome:
    return run_graph(small_graph(), Store(folder), make_executor(name))


def test_every_executor_gives_the_same_bytes(tmp_path: Path, ray_of_two: Any) -> None:
    here = run_by("inprocess", tmp_path / "inprocess")
    workers = ProcessExecutor(workers=2)
    there = run_graph(small_graph(), Store(tmp_path / "processes"), workers)
    cluster = run_by("ray", tmp_path / "ray")
    assert here.complete
    assert there.complete, there.failed
    assert cluster.complete, cluster.failed
    expected = parts(tmp_path / "inprocess")
    assert len(expected) == 9
    assert parts(tmp_path / "processes") == expected
    assert parts(tmp_path / "ray") == expected


def test_processes_over_an_object_store_of_files(tmp_path: Path) -> None:
    """Store and working folders apart, as on several machines."""
    store = Store(tmp_path / "store")
    found = run_graph(small_graph(), store, ProcessExecutor(workers=2), workspace=tmp_path / "work")
    assert found.complete, found.failed
    assert (tmp_path / "store" / "models" / "0" / "weights.bin").exists()
    run_by("inprocess", tmp_path / "inprocess")
    assert parts(tmp_path / "store") == parts(tmp_path / "inprocess")


def test_a_killed_worker_is_replaced_and_its_unit_tried_again(tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    units = [
        unit("dies_once", "victim", how={"file": str(marker)}),
        unit("dies", "hopeless"),
        unit("total", "a", x=1),
        unit("total", "b", ("hopeless",), x=1),
    ]
    store = Store(tmp_path / "s")
    found = run_graph(units, store, ProcessExecutor(workers=2))
    assert marker.exists()
    assert found.done == ("victim", "a")
    assert store.results(found.keys)["victim"] == "survived"
    assert "was killed by signal 9 (was memory short?), 2 times" in found.failed["hopeless"]
    assert found.skipped == {"b": "hopeless"}
    failure = store.noted("failed", found.keys["hopeless"])
    assert failure is not None
    assert "start  hopeless" in Path(failure["log"]).read_text()
    assert store.keys("claims") <= {found.keys["hopeless"]}


def killing(file: Path) -> tuple[list[int], Callable[[Event], None]]:
    """A listener that kills the worker that waits for a file, once, and which it was."""
    killed: list[int] = []

    def listen(event: Event) -> None:
        begun = Path(f"{file}.begun")
        if not killed and begun.exists() and begun.read_text():
            killed.append(int(begun.read_text()))
            os.kill(killed[0], signal.SIGKILL)
            file.touch()

    return killed, listen


def test_a_worker_killed_from_outside_costs_only_its_unit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    units = [unit("waits_for", "w", how={"file": str(file)}), *small_graph()]
    killed, listen = killing(file)
    found = run_graph(units, Store(tmp_path / "s"), ProcessExecutor(workers=2), listen)
    assert killed
    assert found.complete, found.failed


def test_a_killed_driver_takes_its_workers_along_and_the_next_goes_on(tmp_path: Path) -> None:
    folder, file = tmp_path / "s", tmp_path / "file"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder), str(file)])
    worker = pid_in(Path(f"{file}.begun"))
    wait_until(lambda: len(Store(folder).keys("parts")) == 2)
    before = {path: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    driver.kill()
    driver.wait()
    wait_until(lambda: not runs(worker))
    assert len(Store(folder).keys("claims")) == 1  # nobody was left to give it back
    file.touch()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(file)], check=False, timeout=60
    )
    assert done.returncode == 0
    assert time.monotonic() - started < 30  # the claim of a dead process is no reason to wait
    assert len(parts(folder)) == 3
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert Store(folder).keys("claims") == set()


def test_two_drivers_share_the_work(tmp_path: Path) -> None:
    folder, count = tmp_path / "s", tmp_path / "count"
    script = (
        "import sys; from planted_units import unit; from repsim.studies.engine import *\n"
        "units = [unit('pauses', f'p{i}', **{'for': 0.3, 'i': i}) for i in range(6)]\n"
        f"units.append(unit('total', 't', how={{'count': {str(count)!r}}}, x=1))\n"
        f"out = run_graph(units, Store({str(folder)!r}), make_executor('inprocess'))\n"
        "print(out.complete)\n"
    )
    drivers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [driver.communicate(timeout=60)[0].strip() for driver in drivers] == ["True", "True"]
    assert len(parts(folder)) == 7
    assert count.read_text() == "x\n"
    logs = [path.read_text().count("start") for path in (folder / "logs").iterdir()]
    assert logs == [1] * 7


def test_ray_goes_on_when_one_of_its_workers_is_killed(tmp_path: Path, ray_of_two: Any) -> None:
    file, marker = tmp_path / "file", tmp_path / "marker"
    units = [
        unit("waits_for", "w", how={"file": str(file)}),
        unit("dies_once", "victim", how={"file": str(marker)}),
        *small_graph(),
    ]
    killed, listen = killing(file)
    store = Store(tmp_path / "s")
    found = run_graph(units, store, make_executor("ray"), listen)
    assert killed
    assert not runs(killed[0])
    assert found.complete, found.failed
    results = store.results(found.keys)
    assert (results["w"], results["victim"]) == ("there", "survived")


def test_ray_gives_up_what_always_dies_and_keeps_the_rest(tmp_path: Path, ray_of_two: Any) -> None:
    units = [unit("dies", "hopeless"), unit("total", "a", x=1)]
    found = run_graph(units, Store(tmp_path), make_executor("ray"))
    assert found.done == ("a",)
    assert "Ray gave it up" in found.failed["hopeless"]


def test_slurm_through_submitit(tmp_path: Path) -> None:
    """Without a Slurm: submitit starts the same jobs as processes of this machine."""
    pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
    from repsim.studies.engine.executors.slurm import SlurmExecutor

    run_by("inprocess", tmp_path / "inprocess")
    folder = tmp_path / "slurm"
    graph = small_graph()
    units = [graph[0], graph[4]]
    found = run_graph(units, Store(folder), SlurmExecutor(store=str(folder), cluster="local"))
    assert found.done == ("make 0", "read 0")
    assert len(parts(folder)) == 2
    assert parts(folder).items() <= parts(tmp_path / "inprocess").items()


def test_time_that_is_up_ends_a_worker_in_the_middle(tmp_path: Path) -> None:
    units = [unit("waits_for", "w", how={"file": str(tmp_path / "never")})]
    store = Store(tmp_path / "s")
    started = time.monotonic()
    found = run_graph(units, store, ProcessExecutor(workers=1), max_seconds=4.0)
    assert time.monotonic() - started < 15
    assert found.left == ("w",)
    assert store.keys("claims") == set()
    assert not runs(pid_in(tmp_path / "never.begun"))


def test_what_a_unit_prints_does_not_get_between_reports(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    units = [unit("fails_unless", "p", how={"file": str(file)}), unit("shouts", "s")]
    found = run_graph(units, Store(tmp_path / "s"), ProcessExecutor(workers=1))
    assert found.complete, found.failed
    assert json.loads(next(iter(parts(tmp_path / "s").values())))["schema"] == "repsim/part/1"


@pytest.mark.slow
def test_a_study_gives_the_same_tables_on_every_executor(tmp_path: Path, ray_of_two: Any) -> None:
    from repsim.core.atlas import Atlas
    from repsim.studies.collect import collect
    from repsim.studies.engine import StudyFolder
    from repsim.studies.plan import plan_study

    (tmp_path / "micro.yaml").write_text(
        study(
            arms={"A": [{"fractions": [0.5]}],
                  "G": [{"kinds": ["permuted"], "languages": ["eng_Latn"]}]},
            merging={"methods": ["linear", "ties"], "aligned_methods": ["linear"],
                     "alignments": ["permutation", "learned"],
                     "learn": {"tokens": 256, "context": 32}, "token_weights": True},
            features={"tiers": ["T0", "T1"], "sentences": 30},
            paths={"points": 3, "alignments": ["permutation"], "arms": ["A", "G"]},
        )
    )  # fmt: skip
    plan = plan_study(tmp_path / "micro.yaml")

    def atlas(name: str) -> Atlas:
        folder = StudyFolder.open(
            tmp_path / name, config=plan.config.to_dict(), key=plan.config.hash, units=plan.units
        )
        workers = None if name == "ray" else {"inprocess": 1}.get(name, 2)
        found = run_graph(plan.units, folder.store, make_executor(name, workers=workers))
        assert found.complete, found.failed
        return collect(plan, folder.store.results(found.keys))

    def rows(table: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in table.rows()]

    here = atlas("inprocess")
    assert len(here.merges) >= 6
    assert_paths_hold_the_merges(here)
    assert_rows_by_counts(here)
    for name in ("processes", "ray"):
        there = atlas(name)
        assert rows(there.models) == rows(here.models)
        assert rows(there.merges) == rows(here.merges)
        assert rows(there.paths) == rows(here.paths)
        assert rows(there.features) == rows(here.features)
        assert rows(there.costs) == rows(here.costs)  # which tiers were measured of whom


def assert_rows_by_counts(atlas: Any) -> None:
    """Two languages' token rows differ from their mean; those of one language's twins do not."""
    bits = {
        (row["parents"], row["alignment"], row["language"]): row["bits_per_byte"]
        for row in atlas.merges.where(method="linear").rows()
    }
    counted = {key: value for key, value in bits.items() if key[1].endswith("+counts")}
    assert {key[1] for key in counted} == {"none+counts", "permutation+counts", "learned+counts"}
    for (parents, alignment, language), value in counted.items():
        plain = bits[parents, alignment.removesuffix("+counts"), language]
        twins = "permuted" in parents
        assert (abs(value - plain) < 1e-6) == twins or "learned" in alignment, (parents, alignment)


def assert_paths_hold_the_merges(atlas: Any) -> None:
    """The middle of a path is the plain mean that the same parents were merged to."""
    means = {
        (row["parents"], row["alignment"], row["language"]): row["bits_per_byte"]
        for row in atlas.merges.where(method="linear").rows()
    }
    middle = list(atlas.paths.where(t=0.5).rows())
    assert {row["alignment"] for row in middle} == {"none", "permutation"}
    for row in middle:
        key = (row["parents"], row["alignment"], row["language"])
        assert row["bits_per_byte"] == pytest.approx(means[key], abs=1e-4)
    twins = atlas.paths.where(alignment="permutation")
    aligned = [row for row in twins.rows() if "permuted" in row["parents"]]
    assert aligned
    assert all(abs(row["above_chord"]) < 1e-3 for row in aligned)
