"""Plans work out every step, sample and rate of a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from repsim.core.errors import UsageError
from repsim.core.files import hash_json
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.family import select
from repsim.pretraining.planning import RunPlan, plan

Make = Callable[..., FamilyConfig]
MIXED = {"name": "mixed", "languages": ["eng_Latn", "deu_Latn"], "init_seed": 7, "data_seed": 3}


def forked(name: str, parent: str = "mixed", **fork: Any) -> dict[str, Any]:
    return {"name": name, "languages": ["eng_Latn"], "fork": {"from": parent, **fork}}


def planned(config: FamilyConfig) -> dict[str, RunPlan]:
    return {run.name: run for run in plan(config)}


def test_a_fork_shares_the_rate_and_the_samples_of_its_trunk(family: Make) -> None:
    training = {"steps": 100, "batch": 4, "warmup": 0.1, "decay": 0.4}
    runs = planned(family(training=training, runs=[forked("late", at=0.8), MIXED]))
    trunk, late = runs["mixed"], runs["late"]
    assert list(runs) == ["mixed", "late"]
    assert (late.first_step, late.last_step, late.first_sample) == (80, 100, 320)
    assert [late.rate_at(s) for s in range(80, 100)] == [trunk.rate_at(s) for s in range(80, 100)]
    assert (late.init_seed, late.data_seed, late.fork_from) == (7, 3, "mixed")
    assert trunk.fork_steps == (80,)
    assert 80 in trunk.checkpoints


def test_a_dose_at_the_end_has_a_schedule_of_its_own(family: Make) -> None:
    dose = forked("dose", at=1.0) | {"tokens": 640, "data_seed": 9}
    training = {"steps": 50, "batch": 4, "warmup": 0.2}
    run = planned(family(training=training, runs=[MIXED, dose]))["dose"]
    assert (run.first_step, run.last_step, run.tokens) == (50, 60, 640)
    assert run.schedule_start == 50
    assert run.rate_at(50) < run.rate_at(51) == run.training.learning_rate
    assert run.data_seed == 9


def test_forks_of_forks_keep_the_whole_history(family: Make) -> None:
    second = forked("second", "first", step=6)
    runs = planned(family(runs=[MIXED, forked("first", at=0.5), second]))
    history = [(p.run, p.first_step, p.last_step) for p in runs["second"].history]
    assert history == [("mixed", 0, 4), ("first", 4, 6), ("second", 6, 8)]


def test_checkpoints_are_log_spaced_from_the_first_step(family: Make) -> None:
    run = planned(family(training={"steps": 20, "batch": 4}))["eng"]
    assert run.checkpoints == (0, 1, 2, 4, 8, 16, 20)
    chosen = family(saving={"checkpoints": [3, 5, 99]})
    assert planned(chosen)["eng"].checkpoints == (3, 5)
    assert planned(family(saving={"checkpoints": "none"}))["eng"].checkpoints == ()


def test_a_fork_outside_its_trunk_is_refused(family: Make) -> None:
    with pytest.raises(UsageError, match="at step 30, but that run has steps 0 to 8"):
        plan(family(runs=[MIXED, forked("far", step=30)]))
    with pytest.raises(UsageError, match="from the end of its trunk and needs 'tokens'"):
        plan(family(runs=[MIXED, forked("end", at=1.0)]))


def test_mixtures_are_shares(family: Make) -> None:
    run = {"name": "m", "mix": {"eng_Latn": 3, "deu_Latn": 1}, "init_seed": 1}
    made = planned(family(runs=[run]))["m"]
    assert made.mix == {"eng_Latn": 0.75, "deu_Latn": 0.25}
    assert made.role == "mixed"
    tempered = {"name": "t", "languages": ["eng_Latn", "deu_Latn"], "temperature": 0.5,
                "init_seed": 1}  # fmt: skip
    made = planned(family(runs=[tempered]))["t"]
    ratios = made.ratios({"eng_Latn": 100, "deu_Latn": 25})
    assert ratios == pytest.approx({"eng_Latn": 2 / 3, "deu_Latn": 1 / 3})


def test_selecting_a_fork_selects_its_trunks(family: Make) -> None:
    runs = plan(family(runs=[MIXED, forked("a", at=0.5), forked("b", "a", step=6)]))
    assert [run.name for run in select(runs, ["b"])] == ["mixed", "a", "b"]
    assert [run.name for run in select(runs, ["mixed"])] == ["mixed"]
    with pytest.raises(UsageError, match="unknown run 'c'"):
        select(runs, ["c"])


def test_keys_depend_on_what_the_weights_depend_on_and_on_nothing_else(family: Make) -> None:
    def key(**changes: Any) -> str:
        config = family(**changes)
        return hash_json(plan(config)[0].settings(config, "data", None))

    assert key() == key(name="other") == key(saving={"log_every": 1})
    assert key() != key(training={"steps": 8, "batch": 4, "learning_rate": 2e-2})
    assert key() != key(runs=[{"name": "eng", "languages": ["eng_Latn"], "init_seed": 2}])
