"""Training speed: tokens per second, share of the device's rate, against a plain loop and Trainer.

    python tests/benchmarks/pretraining_speed.py [--device cpu|cuda] [--sizes 1m,10m] [--steps 30]

On a CPU time is processor time, which a machine shared with others does not falsify; on CUDA it is
wall time after synchronising. FLOPs per token: 6 x parameters in matrix products + 6 x layers x
width x context (causal attention). The plain loop is what one writes by hand: the model's own loss,
autocast and compilation on CUDA, fused AdamW, clipping; Trainer is that of transformers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from repsim.core.provenance import versions
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model, hf_config, parameter_count, shape_from_scratch
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import World, full_state
from repsim.pretraining.engine import build_engine, deterministic_kernels, quiet_collector
from repsim.pretraining.metrics import device_rate, measured_gemm_rate
from repsim.pretraining.step import Engine

#: Size -> vocabulary, and windows per step on a CPU and on CUDA.
RECIPES = {
    "1m": (4096, 16, 512),
    "5m": (8192, 8, 256),
    "10m": (16384, 4, 128),
    "30m": (16384, 2, 96),
    "125m": (16384, 1, 32),
}
#: For tests of this file.
TINY = ArchitectureConfig(hidden=16, layers=2, heads=2, context=16).resolved()  # fmt: skip


def main() -> None:
    """Measure and print one JSON row per size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", default="1m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "muon"])
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--no-trainer", action="store_true")
    options = parser.parse_args()
    world = World(0, 1, torch.device(options.device))
    name, rate = device_rate(world.device)
    about = {"device": options.device, "rate": rate, "rate_is": name,
             "gemm": measured_gemm_rate(world.device), "versions": versions()}  # fmt: skip
    sys.stdout.write(json.dumps(about) + "\n")
    for size in options.sizes.split(","):
        row = measure(size, world, rate, options)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def measure(size: str, world: World, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one size."""
    vocabulary, cpu_rows, cuda_rows = RECIPES.get(size, (384, 4, 4))
    rows = cuda_rows if world.device.type == "cuda" else cpu_rows
    shape = ArchitectureConfig(size=size).resolved() if size in RECIPES else TINY
    training = TrainingConfig(
        steps=options.steps, batch=rows, optimizer=options.optimizer,
        deterministic=options.deterministic,
    )  # fmt: skip
    config = hf_config(shape, vocabulary)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, vocabulary, (rows, shape.context + 1), generator=generator)
    batch = batch.to(world.device)
    parameters = parameter_count(build_model(config, 0))
    tokens = rows * shape.context
    with quiet_collector(), deterministic_kernels(training, world.device):
        engine, built = timed(lambda: ready_engine(config, training, world, batch), world)
        step, best = step_times(lambda: engine.step(batch, 1e-3), options.steps, world)
        _, exchanged = timed(
            lambda: engine.begin(full_state(build_model(config, 1)), training), world
        )
    flops = shape_from_scratch(shape, vocabulary).flops_per_token
    row = {
        "size": size, "parameters": parameters, "batch": f"{rows}x{shape.context}",
        "optimizer": options.optimizer, "tokens_per_second": round(tokens / step),
        "share": round(tokens / step * flops / rate, 3), "ms_per_step": round(1e3 * step, 2),
        "best_tokens_per_second": round(tokens / best),
        "best_share": round(tokens / best * flops / rate, 3),
        "seconds_to_build_and_warm_up": round(built, 2),
        "seconds_to_exchange_weights": round(exchanged, 3),
    }  # fmt: skip
    row["plain_loop_tokens_per_second"] = plain_loop_speed(config, batch, options.steps, world)
    if not options.no_trainer:
        row["trainer_tokens_per_second"] = trainer_speed(config, batch, options.steps, world)
    return row


def ready_engine(
    config: Any, training: TrainingConfig, world: World, batch: torch.Tensor
) -> Engine:
    """An engine after two steps: built, compiled where it compiles, optimizer state allocated."""
    engine = build_engine(config, training, world)
    engine.begin(full_state(build_model(config, 0)), training)
    for _ in range(2):
        engine.step(batch, 1e-3)
    return engine


def clock(world: World) -> float:
    """Processor time on a CPU; wall time, with all work done, on CUDA."""
    if world.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], world: World) -> tuple[Any, float]:
    """What the work gave, and how long it took."""
    start = clock(world)
    result = work()
    return result, clock(world) - start


def step_times(work: Callable[[], Any], repeats: int, world: World) -> tuple[float, float]:
    """Median and best seconds; on CUDA the mean of one stretch, as nothing waits between steps."""
    if world.device.type == "cuda":
        _, total = timed(lambda: [work() for _ in range(repeats)], world)
        return total / repeats, total / repeats
    seconds = [timed(work, world)[1] for _ in range(repeats)]
    return statistics.median(seconds), min(seconds)


def plain_loop_speed(config: Any, batch: torch.Tensor, steps: int, world: World) -> float:
    """Tokens per second of a training loop in ten lines."""
    on_cuda = world.device.type == "cuda"
    model: Any = build_model(config, 0).to(world.device)
    run = torch.compile(model) if on_cuda else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = batch[:, :-1]

    def step() -> None:
        with torch.autocast(world.device.type, torch.bfloat16, enabled=on_cuda):
            loss = run(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        step()
    return round(ids.numel() / step_times(step, steps, world)[0])


def trainer_speed(config: Any, batch: torch.Tensor, steps: int, world: World) -> float | str:
    """Tokens per second of `transformers.Trainer` on the same model and batch."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        return "accelerate is not installed"
    from transformers import Trainer, TrainingArguments

    on_cuda = world.device.type == "cuda"
    rows = [{"input_ids": row, "labels": row} for row in batch.cpu()[:, :-1]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=len(batch), max_steps=steps + 5,
            learning_rate=1e-3, bf16=on_cuda, use_cpu=not on_cuda, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, optim="adamw_torch_fused",
            torch_compile=on_cuda, dataloader_num_workers=0,
        )  # fmt: skip
        marks: list[float] = []
        trainer = Trainer(
            model=build_model(config, 0), args=arguments, train_dataset=rows * (steps + 5),
            callbacks=[_marker(marks, world)],
        )  # fmt: skip
        trainer.train()
    if on_cuda:
        step = (marks[-1] - marks[4]) / (len(marks) - 5)
    else:
        step = statistics.median(b - a for a, b in itertools.pairwise(marks[4:]))
    return round(batch[:, :-1].numel() / step)


def _marker(marks: list[float], world: World) -> Any:
    """A callback that notes the time after each step."""
    from transformers import TrainerCallback

    class Marker(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(clock(world) if world.device.type != "cuda" else time.perf_counter())

    return Marker()


if __name__ == "__main__":
    main()
