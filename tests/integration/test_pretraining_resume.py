"""A run that is killed at any moment goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.planted.configurations import one_run

#: Steps of the run, and how far it is allowed to come before each kill: between two states, while
#: a state is being written, and shortly before the end.
STEPS = 120
KILL_AFTER = (9, 53, 110)
#: Training in which the state of step 49 is never renamed into place.
STUCK = """
import sys, time
from repsim.pretraining import checkpoint
true = checkpoint.force_to_disk
def stuck(path):
    true(path)
    time.sleep(3600 if "step-000049" in str(path) else 0)
checkpoint.force_to_disk = stuck
from repsim.pretraining.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def write_config(folder: Path) -> Path:
    """A 64 x 2 model over a few lines of text; a state every seven steps."""
    document = one_run(
        folder,
        architecture={"hidden": 64, "layers": 2, "heads": 2, "context": 32},
        training={"steps": STEPS, "batch": 4, "learning_rate": 3e-3},
        saving={"state_every": 7, "log_every": 1, "validate_every": 25},
    )
    path = folder / "config.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def start(config: Path, out: Path, program: str = "") -> subprocess.Popen[bytes]:
    what = ["-c", program] if program else ["-m", "repsim.pretraining"]
    command = [sys.executable, *what, str(config), "-o", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


def kill_after(process: subprocess.Popen[bytes], metrics: Path, steps: int) -> None:
    """Send SIGKILL once so many steps stand in the metrics."""
    deadline = time.monotonic() + 600
    while lines_in(metrics) < steps:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_three_times_the_curve_is_the_same_to_the_byte(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(config, whole)
    for steps in KILL_AFTER:
        stuck = STUCK if steps == 53 else ""
        kill_after(start(config, killed, stuck), killed / "eng" / "metrics.jsonl", steps)
        assert lines_in(killed / "eng" / "metrics.jsonl") < STEPS
        if stuck:  # four steps were done while the state was being written; the one before is there
            states = {path.name for path in (killed / "eng" / "state").glob("step-*")}
            assert states == {"step-000035", "step-000042"}
    last = start(config, killed)
    for process in (undisturbed, last):
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()
    assert "goes on from step" in errors.decode()
    for name in ("metrics.jsonl", "model.safetensors", "checkpoints/step-000064/model.safetensors"):
        assert (whole / "eng" / name).read_bytes() == (killed / "eng" / name).read_bytes(), name
