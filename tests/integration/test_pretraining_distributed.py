"""Two processes together give the curve of one, whole or sharded."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repsim.pretraining.config import from_mapping
from repsim.pretraining.family import pretrain
from repsim.pretraining.metrics import read_metrics
from tests.planted.configurations import one_run

STEPS = 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(config: Path, out: Path, parallel: str) -> list[subprocess.Popen[bytes]]:
    """What torchrun does for two processes of one machine."""
    command = [
        sys.executable, "-m", "repsim.pretraining", str(config), "-o", str(out),
        "--device", "cpu", "--parallel", parallel,
    ]  # fmt: skip
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "OMP_NUM_THREADS": "1"}  # fmt: skip
    return [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]


def values(folder: Path) -> list[float]:
    rows = read_metrics(folder / "eng" / "metrics.jsonl")
    return [row["loss" if row["kind"] == "train" else "eng_Latn"] for row in rows]


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    plain = one_run(
        tmp_path,
        architecture={"hidden": 32, "layers": 2, "heads": 2, "context": 16},
        training={"steps": STEPS, "batch": 8, "accumulation": 2, "learning_rate": 1e-2},
        saving={"state_every": 4, "checkpoints": "none", "validate_every": 5, "keep_state": True},
    )
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(plain), encoding="utf-8")
    low = tmp_path / "low.yaml"
    low.write_text(json.dumps(plain | {"training": plain["training"] | {"precision": "bf16"}}))
    processes = {
        "ddp": start(config, tmp_path / "ddp", "ddp"),
        "fsdp": start(config, tmp_path / "fsdp", "fsdp"),
        "bf16": start(low, tmp_path / "bf16", "fsdp"),  # gathered in bfloat16, stored in float32
    }
    pretrain(from_mapping(plain), tmp_path / "one", device="cpu")
    for together in processes.values():
        for process in together:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors.decode()
    alone = values(tmp_path / "one")
    assert len(alone) == STEPS + 4  # two validations on the way, two at the end
    weights = load_file(tmp_path / "one" / "eng" / "model.safetensors")
    assert values(tmp_path / "bf16") == pytest.approx(alone, rel=2e-2)
    assert values(tmp_path / "bf16") != pytest.approx(alone, rel=1e-5)
    for parallel in ("ddp", "fsdp"):
        assert values(tmp_path / parallel) == pytest.approx(alone, rel=1e-5)
        found = load_file(tmp_path / parallel / "eng" / "model.safetensors")
        for name, tensor in weights.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    goes_on_alone(plain, tmp_path / "fsdp", alone)


def goes_on_alone(plain: dict[str, Any], out: Path, expected: list[float]) -> None:
    """One process takes over what two sharded ones left behind after the state of step 8."""
    run = out / "eng"
    (run / "repsim_provenance.json").unlink()
    shutil.rmtree(run / "state" / "step-000010")
    pretrain(from_mapping(plain), out, device="cpu")
    assert values(out) == pytest.approx(expected, rel=1e-5)
