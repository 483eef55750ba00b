"""Metrics files: exact, resumable, readable."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.core.errors import InputError, ResourceError
from repsim.pretraining.metrics import (
    Metrics,
    Speed,
    log_line,
    measured_gemm_rate,
    read_metrics,
)


def test_floats_are_kept_exactly(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, -1)
    metrics.write("train", 1, {"loss": 0.1, "tokens": 5})
    metrics.close()
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert row == {"kind": "train", "step": 1, "loss": 0.1, "loss_hex": (0.1).hex(), "tokens": 5}


def test_rows_after_the_state_are_dropped_on_resuming(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, -1)
    for step in range(5):
        metrics.write("train", step, {"loss": float(step)})
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "train", "st')
    with pytest.raises(InputError, match="line 6 of .* is damaged"):
        read_metrics(path)
    Metrics(tmp_path, 2).close()
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no .*metrics.jsonl"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_values_that_are_no_numbers_never_enter(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, -1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        metrics.write("train", 1, {"loss": float("nan")})
    metrics.close()


def test_tensorboard_events_are_written_when_asked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    metrics = Metrics(tmp_path, -1, tensorboard=True)
    metrics.write("train", 1, {"loss": 0.5})
    metrics.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_speed_counts_fresh_tokens_and_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from repsim.pretraining import metrics as module

    now = {"wall": 0.0, "busy": 0.0}
    monkeypatch.setattr(module, "device_rate", lambda device: ("of GEMM rate", 1e3))
    monkeypatch.setattr(module.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(module.time, "process_time", lambda: now["busy"])
    speed = Speed(10.0, 1, torch.device("cpu"))
    speed.skip(0)
    now.update(wall=2.0, busy=1.0)
    assert speed.look(100) == {
        "tokens_per_second": 50.0,
        "share": 1.0,
        "mean_tokens_per_second": 50.0,
    }
    now.update(wall=9.0, busy=3.0)
    speed.skip(150)
    now.update(wall=11.0, busy=4.0)
    assert speed.look(190)["tokens_per_second"] == 20.0


def test_the_line_tells_step_loss_rate_speed_and_time_left() -> None:
    speed = {"tokens_per_second": 5210.4, "share": 0.5, "mean_tokens_per_second": 5000.0}
    line = log_line("eng", (30, 10, 50), 2.5, 3e-3, speed, "MFU", 1000)
    assert line == (
        "eng  step 30/50   50 %  loss 2.5000  lr 3.00e-03  5,210 tok/s  50 % MFU  left 4 s"
    )


def test_a_gemm_rate_is_measured() -> None:
    assert measured_gemm_rate(torch.device("cpu"), size=64, repeats=2) > 1e6


def test_rows_are_json_lines(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, -1)
    metrics.write_timing(3, {"tokens_per_second": 1.5})
    metrics.close()
    text = (tmp_path / "timing.jsonl").read_text()
    assert json.loads(text) == {"step": 3, "tokens_per_second": 1.5}


def test_wandb_gets_numbers_by_step_and_the_same_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((values, step))

        def finish(self) -> None:
            logged.append(({}, -1))

    wandb = types.SimpleNamespace(init=lambda **about: (begun.append(about), Run())[1])
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (1, 2):
        metrics = Metrics(tmp_path, step - 1, wandb="mine")
        metrics.write("train", step, {"loss": 0.5, "tokens": 64})
        metrics.close()
    assert logged == [({"train/loss": 0.5}, 1), ({}, -1), ({"train/loss": 0.5}, 2), ({}, -1)]
    assert begun[0] == begun[1]
    assert (begun[0]["project"], begun[0]["name"]) == ("mine", tmp_path.name)


@pytest.mark.parametrize(
    ("module", "option"),
    [("tensorboard", {"tensorboard": True}), ("wandb", {"wandb": "mine"})],
)
def test_loggers_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, option: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ResourceError, match=r"saving\..*, which is not installed"):
        Metrics(tmp_path, -1, **option)
