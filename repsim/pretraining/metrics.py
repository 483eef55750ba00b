"""What a run reports: one log line, JSON lines of metrics, TensorBoard if asked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from repsim.core.errors import InputError, optional
from repsim.core.files import write_text
from repsim.core.progress import duration

logger = logging.getLogger("repsim.pretraining")

#: Peak dense bf16 rates by device name, in FLOP/s (vendors' data sheets).
PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "A10": 125e12, "B200": 2250e12, "RTX 4090": 165e12, "V100": 125e12,
}  # fmt: skip


def log_to_stderr() -> None:
    """Show the module's log lines on stderr (idempotent)."""
    if not any(getattr(handler, "repsim", False) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.repsim = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO)


class Metrics:
    """The metrics files of one run."""

    def __init__(
        self,
        folder: Path,
        last_step: int,
        *,
        last_validation: int | None = None,
        tensorboard: bool = False,
        wandb: str | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._board = _tensorboard(folder, last_step) if tensorboard else None
        self._wandb = _wandb(folder, wandb) if wandb else None
        self._truncate(last_step, last_step if last_validation is None else last_validation)
        self._file = self.path.open("a", encoding="utf-8")
        self._written = hashlib.sha256(self.path.read_bytes())
        self._timing = (folder / "timing.jsonl").open("a", encoding="utf-8")

    def _truncate(self, last_step: int, last_validation: int) -> None:
        """Drop rows after the last steps, and a last line that was cut off."""
        if not self.path.exists():
            return
        ends = {"train": last_step, "validation": last_validation, "final": last_validation}
        rows = read_metrics(self.path, whole=False)
        kept = [row for row in rows if row["step"] <= ends[row["kind"]]]
        text = "".join(_line(row) for row in kept)
        if text.encode() != self.path.read_bytes():
            write_text(self.path, text)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add one row; each float `x` gets a companion `x_hex` with its exact value."""
        row: dict[str, Any] = {"kind": kind, "step": step}
        for key, value in values.items():
            row[key] = value
            if isinstance(value, float):
                row[f"{key}_hex"] = value.hex()
        self._file.write(_line(row))
        self._written.update(_line(row).encode())
        numbers = {f"{kind}/{key}": v for key, v in values.items() if isinstance(v, float)}
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    @property
    def mark(self) -> str:
        """SHA-256 of all rows so far."""
        return self._written.hexdigest()

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one row of speeds."""
        self._timing.write(_line({"step": step, **values}))

    def flush(self, *, to_disk: bool = False) -> None:
        """Hand rows to the system; `to_disk` waits until they are safe."""
        for file in (self._file, self._timing):
            file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._timing.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def read_metrics(path: str | Path, *, whole: bool = True) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`; a damaged line is refused, or if not `whole` ends them."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no '{path}'", hint="it is written by: repsim pretrain")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            rows.append(_row(line))
        except (ValueError, RecursionError) as error:
            if whole:
                raise InputError(f"line {number} of '{path}' is damaged: {error}") from None
            break
    return rows


def _row(line: bytes) -> dict[str, Any]:
    """One row; ValueError if it is none."""
    row = json.loads(line.decode("utf-8"))
    known = isinstance(row, dict) and row.get("kind") in ("train", "validation", "final")
    if not known or not isinstance(row.get("step"), int):
        raise ValueError("it has no kind and step")
    checked: dict[str, Any] = row
    return checked


def _tensorboard(folder: Path, last_step: int) -> Any:
    optional("tensorboard", "saving.tensorboard", "repsim-lm[tensorboard]")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)


def _wandb(folder: Path, project: str) -> Any:
    """A run there, the same one when training goes on; its name is that of the model's folder."""
    wandb = optional("wandb", "saving.wandb", "wandb")
    number = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return wandb.init(project=project, name=folder.name, id=number, resume="allow", dir=folder)


class Speed:
    """Tokens per second and share of the device's rate, since the last look."""

    def __init__(self, flops_per_token: float, devices: int, device: torch.device) -> None:
        self.flops_per_token = flops_per_token
        self.rate_name, rate = device_rate(device)
        self.rate = rate * devices
        # On a CPU shared with others, work is counted against the time that was really had.
        self._clock = time.perf_counter if device.type == "cuda" else time.process_time
        self._tokens, self._time, self._busy = 0, time.perf_counter(), self._clock()
        self._total_tokens, self._total_time = 0, 0.0

    def look(self, tokens: int) -> dict[str, float]:
        """Speed since the last look."""
        fresh = tokens - self._tokens
        seconds = max(time.perf_counter() - self._time, 1e-9)
        busy = max(self._clock() - self._busy, 1e-9)
        self.skip(tokens)
        self._total_tokens += fresh
        self._total_time += seconds
        return {
            "tokens_per_second": fresh / seconds,
            "share": fresh * self.flops_per_token / busy / self.rate,
            "mean_tokens_per_second": self._total_tokens / self._total_time,
        }

    def skip(self, tokens: int) -> None:
        """Begin to count here: what was done since the last look was not training alone."""
        self._tokens, self._time, self._busy = tokens, time.perf_counter(), self._clock()


def device_rate(device: torch.device) -> tuple[str, float]:
    """What a share refers to: the vendor's peak on known GPUs, measured products elsewhere."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, rate in PEAK_FLOPS.items():
            if known in name:
                return "MFU", rate
    return "of GEMM rate", measured_gemm_rate(device)


def measured_gemm_rate(device: torch.device, size: int | None = None, repeats: int = 4) -> float:
    """Best rate of a square matrix product in the training precision."""
    on_cuda = device.type == "cuda"
    clock = time.perf_counter if on_cuda else time.process_time
    size = size or (8192 if on_cuda else 1024)
    a = torch.ones(size, size, device=device, dtype=torch.bfloat16 if on_cuda else torch.float32)
    best = float("inf")
    for _ in range(repeats):
        if on_cuda:
            torch.cuda.synchronize(device)
        start = clock()
        a @ a
        if on_cuda:
            torch.cuda.synchronize(device)
        best = min(best, max(clock() - start, 1e-9))
    return 2.0 * size**3 / best


def log_line(
    run: str,
    steps: tuple[int, int, int],
    loss: float,
    rate: float,
    speed: Mapping[str, float],
    rate_name: str,
    tokens_per_step: int,
) -> str:
    """One line that tells how a run is doing."""
    step, first, last = steps
    left = (last - step) * tokens_per_step / speed["mean_tokens_per_second"]
    return (
        f"{run}  step {step}/{last}  {100 * (step - first) / max(1, last - first):3.0f} %  "
        f"loss {loss:.4f}  lr {rate:.2e}  {speed['tokens_per_second']:,.0f} tok/s  "
        f"{100 * speed['share']:.0f} % {rate_name}  left {duration(left)}"
    )


def bits_text(bits_per_byte: Mapping[str, float]) -> str:
    """Bits per byte of each language, for a log line."""
    return "bits/byte " + " ".join(f"{name} {value:.3f}" for name, value in bits_per_byte.items())
