"""What a run reads: unread text in forks, stages of a mixture, and the order before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.core.files import hash_json
from repsim.corpora.reading import Reading
from repsim.pretraining.config import FamilyConfig, load_config
from repsim.pretraining.data import TrainingData
from repsim.pretraining.planning import RunPlan, plan

Make = Callable[..., FamilyConfig]
LENGTHS = {"eng_Latn": 60, "deu_Latn": 44}
MIXED = {"name": "mixed", "languages": ["eng_Latn", "deu_Latn"], "init_seed": 7, "data_seed": 3}
FORK = {"name": "fork", "languages": ["eng_Latn"], "fork": {"from": "mixed", "at": 1.0}, "steps": 8}


def read(config: FamilyConfig, name: str) -> tuple[RunPlan, Reading, Any]:
    """The plan of a run, what it reads, and the data as far as an order needs it."""
    streams = {name: {name: 1.0} for name in LENGTHS}
    data = SimpleNamespace(
        windows=SimpleNamespace(lengths=LENGTHS), lengths=LENGTHS, streams=streams
    )
    data.reading = lambda run: TrainingData.reading(data, run)  # type: ignore[arg-type]
    run = next(run for run in plan(config) if run.name == name)
    return run, data.reading(run), data


def windows(config: FamilyConfig, name: str) -> list[tuple[str, int]]:
    run, reading, _ = read(config, name)
    names, found = reading.samples(np.arange(run.first_sample, run.sample_at(run.last_step)))
    return list(zip(names.tolist(), found.tolist(), strict=True))


@pytest.mark.parametrize("seed", [{}, {"data_seed": 5}])
def test_a_fork_goes_on_in_text_that_its_history_has_not_read(
    family: Make, seed: dict[str, int]
) -> None:
    """12 steps of 4 windows leave 36 of 60 English windows; the fork reads 32 of them."""
    runs, training = [MIXED, FORK | seed], {"steps": 12, "batch": 4}
    config = family(training=training, runs=runs)
    trunk, fork = set(windows(config, "mixed")), windows(config, "fork")
    assert len(set(fork)) == len(fork) == 32
    assert not trunk & set(fork)
    _, reading, data = read(config, "fork")
    assert reading.windows() == {"eng_Latn": (32, 0)}
    assert TrainingData.read_again(data, plan(config)[1]) == ""
    before = family(training=training, runs=runs, data_order=1)
    _, reading, data = read(before, "fork")
    old = windows(before, "fork")
    again = len(trunk & set(old)) + len(old) - len(set(old))
    assert reading.windows() == {"eng_Latn": (32, again)}
    assert again > 0
    assert TrainingData.read_again(data, plan(before)[1]).startswith(
        f"reads 32 windows, {again} of them for a second time"
    )


def test_stages_follow_each_other_in_unread_text(family: Make) -> None:
    stages = [
        {"until": 0.25, "mix": {"eng_Latn": 1}},
        {"until": 0.5, "mix": {"eng_Latn": 1, "deu_Latn": 3}},
        {"mix": {"deu_Latn": 1}},
    ]
    staged = {"name": "staged", "stages": stages, "init_seed": 1}
    config = family(training={"steps": 16, "batch": 4}, runs=[staged])
    run, reading, _ = read(config, "staged")
    names = [name for name, _ in windows(config, "staged")]
    shares = [names[i : i + 16].count("deu_Latn") / 16 for i in range(0, 64, 16)]
    assert shares == [0, 0.75, 1, 1]
    assert [(p.first_step, p.last_step) for p in run.history] == [(0, 4), (4, 8), (8, 16)]
    assert run.mix == pytest.approx({"eng_Latn": 0.3125, "deu_Latn": 0.6875})
    assert len(set(windows(config, "staged"))) == 64
    assert reading.windows() == {"deu_Latn": (44, 0), "eng_Latn": (20, 0)}
    for wrong, message in (
        ([stages[1], stages[0], stages[2]], "end at 0.5, 0.25, 1"),
        (stages[:2], "the last is 1"),
    ):
        with pytest.raises(UsageError, match=message):
            family(runs=[{"name": "staged", "stages": wrong, "init_seed": 1}])


def test_the_key_of_a_run_changes_only_where_its_samples_do(family: Make) -> None:
    def keys(**changes: Any) -> list[str]:
        config = family(**changes)
        return [hash_json(run.settings(config, "data", "trunk")) for run in plan(config)]

    runs = [MIXED, FORK, {"name": "three", "mix": {"eng_Latn": 1, "deu_Latn": 2}, "init_seed": 1}]
    old, new = keys(runs=runs, data_order=1), keys(runs=runs)
    assert [a == b for a, b in zip(old, new, strict=True)] == [True, False, False]


def test_the_shipped_models_keep_the_order_that_they_were_trained_in() -> None:
    """Pinned: another key or configuration hash would not know the zoo's own folders any more."""
    config = load_config("zoo")
    known: dict[str, str] = {}
    for run in plan(config):
        known[run.name] = hash_json(run.settings(config, "data", known.get(run.fork_from or "")))
    assert config.hash.startswith("f136cfa2effd")
    assert known["mixed"].startswith("a2cc52802aa2")
    assert known["eng-fork"].startswith("37828fef29e2")
