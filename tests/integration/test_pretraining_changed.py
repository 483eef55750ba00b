"""Settings that may change while a run is under way, and those that may not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsim.core.errors import ResourceError, UsageError
from repsim.pretraining.checkpoint import step_folder
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.family import pretrain
from repsim.pretraining.folder import read_provenance
from repsim.pretraining.loop import DivergedError
from repsim.pretraining.metrics import read_metrics
from repsim.pretraining.step import Engine, NextTokenLoss

Make = Callable[..., FamilyConfig]
PLAIN = {"steps": 8, "batch": 4, "learning_rate": 1e-2, "schedule": "constant", "warmup": 0}
RUNS: list[dict[str, Any]] = [{"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}]
FORK = {"name": "fork", "languages": ["deu_Latn"], "steps": 3,
        "fork": {"from": "eng", "at": 0.5}}  # fmt: skip


class Killed(BaseException):
    """What ends a run as a kill does: nothing is tidied up."""


def killed_at(config: FamilyConfig, out: Path, step: int) -> None:
    """Train until so many updates are done."""
    true, calls = Engine.step, []

    def counted(self: Engine, windows: torch.Tensor, rate: float) -> Any:
        calls.append(1)
        if len(calls) > step:
            raise Killed
        return true(self, windows, rate)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Engine, "step", counted)
        pretrain(config, out, device="cpu")


def losses(run: Path) -> np.ndarray:
    rows = read_metrics(run / "metrics.jsonl")
    return np.array([row["loss"] for row in rows if row["kind"] == "train"])


def test_parts_and_precision_may_change_and_it_is_said(
    family: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [*RUNS, FORK]
    pretrain(family(training=PLAIN, runs=runs), tmp_path / "whole", device="cpu")
    killed_at(family(training=PLAIN, runs=runs), tmp_path / "cut", 5)
    changed = PLAIN | {"accumulation": 4}
    with caplog.at_level(logging.WARNING, "repsim.pretraining"):
        pretrain(family(training=changed, runs=runs), tmp_path / "cut", device="cpu")
    assert "goes on with other settings: training.accumulation was 1, is 4" in caplog.text
    for name in ("eng", "fork"):
        ours, theirs = losses(tmp_path / "cut" / name), losses(tmp_path / "whole" / name)
        np.testing.assert_allclose(ours, theirs, rtol=2e-6)
    assert (losses(tmp_path / "cut" / "eng") != losses(tmp_path / "whole" / "eng")).any()
    caplog.clear()  # what is done is not done again, and neither is a fork of it
    before = [read_provenance(tmp_path / "cut" / name) for name in ("eng", "fork")]
    again = changed | {"precision": "fp32"}
    with caplog.at_level(logging.WARNING, "repsim.pretraining"):
        pretrain(family(training=again, runs=runs), tmp_path / "cut", device="cpu")
    assert "was trained with other settings: training.precision was auto, is fp32" in caplog.text
    assert [read_provenance(tmp_path / "cut" / name) for name in ("eng", "fork")] == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch": 2, "steps": 16}, "training.batch was 4, is 2"),
        ({"weight_decay": 0.0}, "training.weight_decay was 0.1, is 0.0"),
        ({"learning_rate": 2e-2}, "learning rate of step 1 would have been 0.02, not 0.01"),
        ({"schedule": "wsd", "decay": 0.75}, "learning rate of step 3 would have been"),
        ({"steps": 3}, "steps was"),
    ],
)
def test_what_may_not_change_is_named(
    family: Make, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    killed_at(family(training=PLAIN), tmp_path, 5)
    refused = f"holds a run of another configuration: .*{named}"
    with pytest.raises(UsageError, match=refused):
        pretrain(family(training=PLAIN | change), tmp_path, device="cpu")


def test_a_run_may_become_longer_where_its_rates_stay(family: Make, tmp_path: Path) -> None:
    kept = {"state_every": 2, "keep_state": True}
    longer = PLAIN | {"steps": 12}
    pretrain(family(training=longer), tmp_path / "whole", device="cpu")
    killed_at(family(training=PLAIN, saving=kept), tmp_path / "cut", 5)
    pretrain(family(training=longer, saving=kept), tmp_path / "cut", device="cpu")
    pretrain(family(training=PLAIN, saving=kept), tmp_path / "done", device="cpu")
    pretrain(family(training=longer, saving=kept), tmp_path / "done", device="cpu")
    hashes = set()
    for name in ("whole", "cut", "done"):
        known = read_provenance(tmp_path / name / "eng")
        assert known is not None
        assert known["step"] == known["last_step"] == 12
        hashes.add(known["weights_hash"])
    assert len(hashes) == 1
    assert not (tmp_path / "whole" / "eng" / "state").exists()
    with pytest.raises(UsageError, match="is finished and kept no training state to go on from"):
        pretrain(family(training=PLAIN | {"steps": 20}), tmp_path / "whole", device="cpu")


def test_weights_that_the_last_update_breaks_are_not_written(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Engine.step

    def broken(self: Engine, windows: torch.Tensor, rate: float) -> Any:
        told = true(self, windows, rate)
        if rate < 2e-3:  # the last one: its loss and gradient are fine
            with torch.no_grad():
                next(self.model.parameters()).view(-1)[0] = torch.nan
        return told

    monkeypatch.setattr(Engine, "step", broken)
    decaying = PLAIN | {"schedule": "wsd", "decay": 0.99}
    with pytest.raises(DivergedError, match=r"no numbers at step 8 .*last good state is step 6"):
        pretrain(family(training=decaying), tmp_path, device="cpu")
    assert not (tmp_path / "eng" / "model.safetensors").exists()


def test_a_run_that_ends_worse_than_it_began_is_an_error(family: Make, tmp_path: Path) -> None:
    wild = PLAIN | {"learning_rate": 1.0, "clip": 0}
    with pytest.raises(DivergedError, match="ends worse than it began and than counting tokens"):
        pretrain(family(training=wild), tmp_path, device="cpu")


def test_memory_that_runs_out_halves_the_parts_and_the_run_goes_on(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = family(training=PLAIN, saving={"state_every": 2, "validation_bytes": 500})
    pretrain(config, tmp_path / "whole", device="cpu")
    true, sizes = NextTokenLoss.forward, list[int]()

    def small(self: NextTokenLoss, windows: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(windows))
            if len(windows) > 1 and len(sizes) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return true(self, windows)

    monkeypatch.setattr(NextTokenLoss, "forward", small)
    with caplog.at_level(logging.WARNING, "repsim.pretraining"):
        killed_at(config, tmp_path / "cut", 7)
    assert sizes[:6] == [4, 4, 4, 4, 2, 1]  # four windows, twice two, four times one
    assert "memory ran out at step 4: goes on with training.accumulation 2, not 1" in caplog.text
    sizes.clear()
    pretrain(config, tmp_path / "cut", device="cpu")
    assert set(sizes) == {1}, "what was found out is not tried again"
    np.testing.assert_allclose(
        losses(tmp_path / "cut" / "eng"), losses(tmp_path / "whole" / "eng"), rtol=2e-6
    )
    known = read_provenance(tmp_path / "cut" / "eng")
    assert known is not None
    assert known["out_of_memory"] == [{"step": 4, "accumulation": n} for n in (2, 4)]

    def never(self: NextTokenLoss, windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(NextTokenLoss, "forward", never)
    with pytest.raises(ResourceError, match="does not fit into memory"):
        pretrain(config, tmp_path / "none", device="cpu")


def test_a_run_stops_early_and_keeps_the_best_weights(family: Make, tmp_path: Path) -> None:
    training = PLAIN | {"steps": 20, "learning_rate": 0.2, "patience": 2}
    saving = {"validate_every": 1, "state_every": 3, "checkpoints": 1, "validation_bytes": 500}
    config = family(training=training, saving=saving)
    whole = tmp_path / "whole" / "eng"
    pretrain(config, whole.parent, device="cpu")
    known = read_provenance(whole)
    assert known is not None
    told = known["early_stopping"]
    rows = [row for row in read_metrics(whole / "metrics.jsonl") if row["kind"] == "validation"]
    scores = {row["step"]: row["eng_Latn"] for row in rows[:-1]}
    best = min(scores, key=scores.__getitem__)
    assert told == {"stopped": best + 2, "best": best, "patience": 2,
                    "bits_per_byte": scores[best]}  # fmt: skip
    assert best + 2 < 20
    assert (known["name"], known["step"], known["last_step"]) == ("eng", best, 20)
    assert rows[-1]["eng_Latn"] == scores[best]
    kept = [
        place / "model.safetensors" for place in (whole, step_folder(whole / "checkpoints", best))
    ]
    assert kept[0].read_bytes() == kept[1].read_bytes()
    for steps in (1, best + 1):
        killed_at(config, tmp_path / f"cut{steps}", steps)
        pretrain(config, tmp_path / f"cut{steps}", device="cpu")
        for name in ("metrics.jsonl", "model.safetensors"):
            assert (tmp_path / f"cut{steps}" / "eng" / name).read_bytes() == (
                whole / name
            ).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Engine, "step")  # what is complete is not done again
        pretrain(config, whole.parent, device="cpu")


def test_patience_without_an_end_to_it_keeps_the_best_of_all(family: Make, tmp_path: Path) -> None:
    saving = {"validate_every": 4, "validation_bytes": 0}
    pretrain(family(training=PLAIN | {"patience": 9}, saving=saving), tmp_path, device="cpu")
    known = read_provenance(tmp_path / "eng")
    assert known is not None
    assert (known["early_stopping"]["stopped"], known["step"]) == (
        8,
        known["early_stopping"]["best"],
    )
    assert known["bits_per_byte"]["eng_Latn"] == known["early_stopping"]["bits_per_byte"]
    with pytest.raises(UsageError, match="the trunk of .* may stop early"):
        family(training=PLAIN | {"patience": 9}, runs=[*RUNS, FORK])
