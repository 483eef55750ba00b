"""Pretraining on an accelerator: kernels, equality with the CPU, resuming, memory, waiting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model, hf_config
from repsim.pretraining.config import from_mapping
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import World, full_state
from repsim.pretraining.engine import build_engine, deterministic_kernels
from repsim.pretraining.family import pretrain
from repsim.pretraining.folder import read_provenance
from repsim.pretraining.metrics import read_metrics
from repsim.pretraining.step import Engine
from tests.planted.configurations import one_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

SHAPE = ArchitectureConfig(hidden=128, layers=2, heads=2, context=256).resolved()
CONFIG = hf_config(SHAPE, 4096)
STEPS = 60


def ready(seed: int = 1, device: str = "cuda", **settings: Any) -> Engine:
    training = TrainingConfig(steps=8, batch=16, **settings)
    engine = build_engine(CONFIG, training, World(0, 1, torch.device(device)), SHAPE.context)
    engine.begin(full_state(build_model(CONFIG, seed)), training)
    return engine


def batch(step: int, device: str = "cuda") -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 4096, (16, SHAPE.context + 1), generator=generator).to(device)


def losses(engine: Engine, steps: int = 4) -> list[float]:
    device = engine.world.device.type
    return [engine.step(batch(step, device), 1e-3)[0].item() for step in range(steps)]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_compiled_step_takes_the_flash_kernel(deterministic: bool) -> None:
    engine = ready()
    training = engine.training.model_copy(update={"deterministic": deterministic})
    with deterministic_kernels(training, engine.world.device):
        losses(engine, 2)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            losses(engine, 1)
    names = [event.key.lower() for event in profile.key_averages()]
    fast = ("flash",) if deterministic else ("flash", "cudnn", "sdpa")
    assert any(word in name for name in names for word in fast), names


def test_float32_on_the_card_is_the_curve_of_the_cpu() -> None:
    here = losses(ready(device="cpu", precision="fp32"))
    there = losses(ready(precision="fp32", compile=False))
    assert there == pytest.approx(here, rel=1e-4)
    assert losses(ready()) == pytest.approx(here, rel=2e-2), "bfloat16, compiled"


def test_nothing_in_a_step_waits_for_the_card() -> None:
    engine = ready()
    losses(engine, 2)
    ready_batch = batch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.step(ready_batch, 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_exchanging_weights_compiles_nothing_again() -> None:
    engine = ready()
    losses(engine, 2)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    engine.begin(full_state(build_model(CONFIG, 2)), engine.training)
    losses(engine, 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_logits_in_pieces_take_less_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks, curves = [], []
    for share in (1.0, 1e-6):
        monkeypatch.setattr("repsim.pretraining.memory.LOGITS_ON_CARD", share)
        engine = ready(compile=False, precision="fp32")
        torch.cuda.reset_peak_memory_stats()
        curves.append(losses(engine))
        peaks.append(torch.cuda.max_memory_allocated())
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert peaks[1] < 0.7 * peaks[0]


def document(folder: Path, **training: Any) -> dict[str, Any]:
    return one_run(
        folder,
        texts=400,
        architecture={"hidden": 64, "layers": 2, "heads": 2, "context": 64},
        training={"steps": STEPS, "batch": 8, "learning_rate": 3e-3, **training},
        saving={"state_every": 7, "log_every": 1, "checkpoints": "none"},
    )


def test_killed_and_resumed_the_compiled_curve_is_the_same_to_the_bit(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(document(tmp_path)), encoding="utf-8")
    curves = []
    for name, kill in (("whole", 0), ("cut", 20)):
        out = tmp_path / name
        command = [sys.executable, "-m", "repsim.pretraining", str(config), "-o", str(out)]
        rows = out / "eng" / "metrics.jsonl"
        if kill:
            process = subprocess.Popen(command, env=os.environ)
            while not rows.exists() or rows.read_bytes().count(b'"train"') < kill:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True)
        curves.append(rows.read_bytes())
    assert curves[0] == curves[1]


def test_memory_that_runs_out_halves_the_parts(tmp_path: Path) -> None:
    shape = {"hidden": 256, "layers": 4, "heads": 4, "context": 512}
    plain = document(tmp_path, batch=64, steps=4, precision="fp32", compile=False)
    plain |= {"architecture": shape, "saving": {"checkpoints": "none"}}
    pretrain(from_mapping(plain), tmp_path / "roomy", device="cuda")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**30) / total)
    try:
        pretrain(from_mapping(plain), tmp_path / "tight", device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    known = read_provenance(tmp_path / "tight" / "eng")
    assert known is not None
    assert known["out_of_memory"]
    curves = [
        [row["loss"] for row in read_metrics(tmp_path / name / "eng" / "metrics.jsonl")
         if row["kind"] == "train"] for name in ("roomy", "tight")
    ]  # fmt: skip
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
