"""What is open until there is a GPU: runs the checks of pretraining on one, and prints a table.

    python -m tests.benchmarks.pretraining_gpu --out pretraining_gpu.md        (under ten minutes)

Checks are `tests/gpu/test_pretraining_gpu.py`, one row each. Measured are: share of the card's rate
(MFU) at 10M and 125M parameters beside a plain loop and `transformers.Trainer` in one process; what
deterministic kernels cost; many models in one engine against one long run; what saves cost. Goals:
45 % MFU at 125M, 1.5 times Trainer at 10M, many models within 10 % of one run, saves under 5 %.
"""

from __future__ import annotations

import argparse
import datetime as dt
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import torch

from repsim.core.provenance import versions
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model, hf_config
from repsim.pretraining.checkpoint import Saver, TrainingState, save_state
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import World, full_optimizer_state, full_state
from repsim.pretraining.metrics import device_rate
from tests.benchmarks.pretraining_speed import (
    RECIPES,
    TINY,
    clock,
    measure,
    ready_engine,
    step_times,
    timed,
)

CHECKS = Path(__file__).parents[1] / "gpu" / "test_pretraining_gpu.py"
Row = dict[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="10m,125m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("pretraining_gpu.md"))
    parser.add_argument("--no-checks", action="store_true")
    options = parser.parse_args(arguments)
    world = World(0, 1, torch.device(options.device))
    rows = [] if options.no_checks else checks()
    for size in options.sizes.split(","):
        rows += speed(size, world, options.steps)
    first = options.sizes.split(",")[0]
    rows += [many_models(first, world, options.steps), saves(first, world, options.steps)]
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else "CPU"
    text = page(rows, name, dt.date.today().isoformat())
    options.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def checks() -> list[Row]:
    """One row for each test on the card."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(CHECKS), f"--junitxml={report}"]
        subprocess.run(command, check=False, stdout=sys.stderr)
        return read_checks(report.read_text(encoding="utf-8"))


def read_checks(report: str) -> list[Row]:
    """Rows of a JUnit report."""
    rows = []
    for case in ET.fromstring(report).iter("testcase"):
        worst = next(
            (child for child in case if child.tag in ("failure", "error", "skipped")), None
        )
        told = "passed" if worst is None else f"{worst.tag}: {worst.get('message', '')[:80]}"
        what = case.get("name", "").removeprefix("test_").replace("_", " ")
        rows.append({"what": what, "found": told, "goal": "passed"})
    return rows


def speed(size: str, world: World, steps: int) -> list[Row]:
    """The engine, a plain loop and Trainer at one size, with and without deterministic kernels."""
    _, rate = device_rate(world.device)
    told: dict[bool, dict[str, Any]] = {}
    for deterministic in (True, False):
        asked = argparse.Namespace(
            steps=steps, optimizer="adamw", deterministic=deterministic, no_trainer=deterministic
        )
        told[deterministic] = measure(size, world, rate, asked)
    row, ours = told[False], told[False]["tokens_per_second"]
    cost = 1 - told[True]["tokens_per_second"] / ours
    trainer = row["trainer_tokens_per_second"]
    against = f"{ours / trainer:.2f} x" if isinstance(trainer, int) else trainer
    return [
        {"what": f"{size}: share of the device's rate", "found": f"{row['share']:.1%}",
         "goal": "45 %" if size == "125m" else ""},
        {"what": f"{size}: tokens per second", "found": f"{ours:,}", "goal": ""},
        {"what": f"{size}: against a plain loop",
         "found": f"{ours / row['plain_loop_tokens_per_second']:.2f} x", "goal": ""},
        {"what": f"{size}: against Trainer", "found": against,
         "goal": "1.5 x" if size == "10m" else ""},
        {"what": f"{size}: cost of deterministic kernels", "found": f"{cost:.1%}", "goal": ""},
    ]  # fmt: skip


def _ready(size: str, world: World) -> tuple[Any, Any, TrainingConfig, torch.Tensor]:
    """An engine of a size, its configuration and a batch."""
    vocabulary, cpu_rows, cuda_rows = RECIPES.get(size, (384, 4, 4))
    shape = ArchitectureConfig(size=size).resolved() if size in RECIPES else TINY
    rows = cuda_rows if world.device.type == "cuda" else cpu_rows
    config, training = hf_config(shape, vocabulary), TrainingConfig(steps=1, batch=rows)
    batch = torch.randint(0, vocabulary, (rows, shape.context + 1)).to(world.device)
    return ready_engine(config, training, world, batch), config, training, batch


def many_models(size: str, world: World, steps: int, models: int = 4) -> Row:
    """Time of several short runs in one engine over that of one run of as many steps."""
    engine, config, training, batch = _ready(size, world)
    weights = full_state(build_model(config, 1))

    def several() -> None:
        for _ in range(models):
            engine.begin(weights, training)
            for _ in range(steps * 5):
                engine.step(batch, 1e-3)

    _, one = timed(lambda: [engine.step(batch, 1e-3) for _ in range(models * steps * 5)], world)
    _, many = timed(several, world)
    return {"what": f"{models} {size} models in one engine, over one long run",
            "found": f"{many / one:.2f} x", "goal": "1.10 x"}  # fmt: skip


def saves(size: str, world: World, steps: int) -> Row:
    """Share of a run's time that a state every hundred steps takes, written behind the training."""
    engine, _, _, batch = _ready(size, world)
    step = step_times(lambda: engine.step(batch, 1e-3), steps, world)[0]
    saver = Saver()
    with tempfile.TemporaryDirectory() as folder:
        start = clock(world)
        state = TrainingState(
            1, full_state(engine.model), full_optimizer_state(engine.model, engine.optimizer), "key"
        )
        saver.submit(lambda: save_state(Path(folder), state))
        copied = clock(world) - start
        saver.close()
    return {"what": f"{size}: a state every 100 steps", "found": f"{copied / (100 * step):.1%}",
            "goal": "under 5 %"}  # fmt: skip


def page(rows: list[Row], device: str, date: str) -> str:
    """The table, with what it was measured on."""
    told = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [
        f"Pretraining on {device}, {date}; {told}.",
        "",
        "| what | found | goal |",
        "|---|---|---|",
    ]
    lines += [f"| {row['what']} | {row['found']} | {row['goal']} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
