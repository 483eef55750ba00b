"""Time and memory of the features of weights on checkpoints of several gigabytes.

    OMP_NUM_THREADS=1 python tests/benchmarks/weight_features.py --write

Two checkpoints with blocks of the size of a 7B Llama (4096 wide, 11,008 units, bfloat16) are
written to a temporary folder and deleted at the end: 7 blocks (3.4 GB each), then 12 (5.4 GB). From
these two depths the time for 32 blocks is extrapolated on a straight line; the matrices whose
spectra are taken are as many at any of these depths. The plain read is that of the same two files
in blocks of 16 MB. Before a cold run, files are dropped from the page cache; a warm one follows it.
Private memory is the largest `RssAnon` seen, polled every 10 ms, to which mapped files do not
count. Every run is a process of its own; imports are measured apart.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from similarity_grids import write

WIDTH, UNITS, TOKENS, HEADS = 4096, 11008, 32000, 32
DEPTHS, WHOLE = (7, 12), 32
IMPORTS = "import torch, transformers; import repsim.mergeability.features.weights"
RUN = """
import json, sys, time
from repsim.mergeability.features.weights import weight_features
start = time.perf_counter()
found = weight_features(sys.argv[1:])
print(json.dumps({"wall": time.perf_counter() - start, "cpu": found.seconds,
                  "cosine": found.as_dict()["weight_cosine"], "notes": found.notes}))
"""
BLOCK = 1 << 24


class Measured(NamedTuple):
    """One process.

    Attributes:
        wall: Seconds of the function.
        cpu: Its processor seconds.
        private: Largest private memory of the process, MiB.
    """

    wall: float
    cpu: float
    private: float


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a model."""
    yield "model.embed_tokens.weight", (TOKENS, WIDTH)
    for i in range(layers):
        at = f"model.layers.{i}"
        for part in "qkvo":
            yield f"{at}.self_attn.{part}_proj.weight", (WIDTH, WIDTH)
        for part in ("gate", "up"):
            yield f"{at}.mlp.{part}_proj.weight", (UNITS, WIDTH)
        yield f"{at}.mlp.down_proj.weight", (WIDTH, UNITS)
        yield f"{at}.input_layernorm.weight", (WIDTH,)
        yield f"{at}.post_attention_layernorm.weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (TOKENS, WIDTH)


def write_models(folder: Path, layers: int) -> list[Path]:
    """Two models, the second a little away from the first; values are drawn once per shape.

    Written by hand, tensor by tensor: the models never lie in memory.
    """
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": UNITS, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": TOKENS, "tie_word_embeddings": False,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    drawn: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
    for _, shape in shapes(layers):
        if shape not in drawn:
            one = 0.02 * torch.randn(shape, generator=generator)
            moved = one + 0.01 * torch.randn(shape, generator=generator)
            drawn[shape] = (one.bfloat16(), moved.bfloat16())
    for number, name in enumerate("ab"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        header, end = {}, 0
        for tensor, shape in shapes(layers):
            size = 2 * drawn[shape][number].numel()
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": (end, end + size)}
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name / "model.safetensors").open("wb") as handle:
            handle.write(struct.pack("<Q", len(text)) + text)
            for _, shape in shapes(layers):
                handle.write(drawn[shape][number].view(torch.uint8).numpy().data)
            handle.flush()
            os.fsync(handle.fileno())
    return [folder / name for name in "ab"]


def drop_from_cache(folders: list[Path]) -> None:
    """Make the next read come from the disk."""
    for folder in folders:
        with (folder / "model.safetensors").open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(folders: list[Path]) -> tuple[float, float]:
    """Seconds, and processor seconds, for reading the files and doing nothing with them."""
    start, spent, buffer = time.perf_counter(), time.process_time(), bytearray(BLOCK)
    for folder in folders:
        with (folder / "model.safetensors").open("rb", buffering=0) as handle:
            while handle.readinto(buffer):
                pass
    return time.perf_counter() - start, time.process_time() - spent


def run(code: str, arguments: list[str]) -> tuple[Measured, str]:
    """One process and what it printed; its private memory is watched."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, largest = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line[:7] == "RssAnon"]
        largest = max([largest, *(int(line.split()[1]) for line in lines)])
        time.sleep(0.01)
    printed, _ = process.communicate()
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the measured process failed with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall, cpu, largest / 1024), printed


class Row(NamedTuple):
    """One state of the cache.

    Attributes:
        read: Seconds of the plain read.
        read_cpu: Its processor seconds.
        wall: Seconds of the features.
        cpu: Their processor seconds.
        private: Largest private memory, MiB.
    """

    read: float
    read_cpu: float
    wall: float
    cpu: float
    private: float


def measure(folder: Path, layers: int, rounds: int) -> tuple[float, dict[str, Row]]:
    """Gigabytes of both files, and the medians with a cold and a warm page cache."""
    models = write_models(folder, layers)
    size = sum((model / "model.safetensors").stat().st_size for model in models) / 1e9
    rows: dict[str, list[Row]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        for state, found in rows.items():
            if state == "cold":
                drop_from_cache(models)
            floor = plain_read(models)
            if state == "cold":
                drop_from_cache(models)
            process, printed = run(RUN, [str(model) for model in models])
            inside = json.loads(printed)
            if not 0.88 < inside["cosine"] < 0.91:  # 1 / sqrt(1.25) = 0.894
                raise SystemExit(f"the features are wrong: weight cosine {inside['cosine']}")
            found.append(Row(*floor, inside["wall"], inside["cpu"], process.private))
            sys.stderr.write(f"{layers} blocks, {state}: {found[-1]}\n")
    medians = {
        state: Row(*(statistics.median(column) for column in zip(*found, strict=True)))
        for state, found in rows.items()
    }
    return size, medians


def table(rows: dict[int, tuple[float, dict[str, Row]]], imports: Measured, about: str) -> str:
    """The table in markdown, with the line drawn through both depths."""
    lines = [
        f"{about}\n",
        "| blocks | both files, GB | cache | plain read: s | CPU s | features: s | CPU s "
        "| GB per CPU s | private MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def line(name: str, size: float, state: str, row: Row, private: str) -> str:
        return (
            f"| {name} | {size:.1f} | {state} | {row.read:.1f} | {row.read_cpu:.1f} | "
            f"{row.wall:.1f} | {row.cpu:.1f} | {size / row.cpu:.2f} | {private} |"
        )

    for layers, (size, states) in rows.items():
        lines += [
            line(str(layers), size, s, row, f"{row.private:.0f}") for s, row in states.items()
        ]
    few, many = DEPTHS

    def at_whole(a: float, b: float) -> float:
        return b + (b - a) / (many - few) * (WHOLE - many)

    whole = at_whole(rows[few][0], rows[many][0])
    for state in ("cold", "warm"):
        ends = [rows[layers][1][state] for layers in DEPTHS]
        row = Row(*(at_whole(a, b) for a, b in zip(*ends, strict=True)))
        lines.append(line(f"**{WHOLE}, extrapolated**", whole, state, row, "–"))
    lines.append(
        f"\nImports alone, in every process: {imports.cpu:.1f} CPU s, {imports.private:.0f} MiB."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where checkpoints are written (11 GB)")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    imports, _ = run(IMPORTS, [])
    rows = {}
    for layers in DEPTHS:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            rows[layers] = measure(Path(name), layers, given.rounds)
    load, today = os.getloadavg()[1], dt.datetime.now(dt.UTC).date()
    about = (
        f"bfloat16, two models, median of {given.rounds} round(s); {os.cpu_count()}-core "
        f"{platform.machine()} CPU at load {load:.0f}, {today}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}."
    )
    section = table(rows, imports, about)
    sys.stdout.write(section)
    if given.write:
        write(section, "weight-features")


if __name__ == "__main__":
    main()
