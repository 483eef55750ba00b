"""CPU time, private memory and disk floor of merging checkpoints of half a gigabyte.

    OMP_NUM_THREADS=1 python tests/benchmarks/merging.py --write
    OMP_NUM_THREADS=1 python tests/benchmarks/merging.py --mergekit DIR --write

DIR is a folder with mergekit and what it needs beside torch and transformers (`pip install
--no-deps --target DIR mergekit==0.1.5 accelerate immutables peft`): it runs on the same torch.
Without it, only the plain implementation stands beside ours: load both models with transformers,
average their state dicts, save.

Each merge is a process of its own, imports included; "without imports" takes off a process that
only imports. Inputs are dropped from the page cache before each. Private memory is the largest
`RssAnon` seen, polled every 10 ms, to which mapped inputs do not count. The floor is what reading
the inputs and writing the output costs at the rates that a plain copy reaches in the same run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from similarity_grids import write

WIDTH, UNITS, LAYERS, TOKENS = 768, 2048, 12, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
    "intermediate_size": UNITS, "num_hidden_layers": LAYERS, "num_attention_heads": 12,
    "num_key_value_heads": 12, "vocab_size": TOKENS, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "float32", "max_position_embeddings": 2048,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}  # fmt: skip
NAIVE = """
import sys, torch
from transformers import AutoModelForCausalLM
a, b = (AutoModelForCausalLM.from_pretrained(name) for name in ("a", "b"))
with torch.no_grad():
    for p, q in zip(a.parameters(), b.parameters()):
        p.copy_((p + q) / 2)
a.save_pretrained(sys.argv[1])
"""


class Measured(NamedTuple):
    """One process: CPU seconds, wall seconds, largest private memory in MiB, floor in seconds."""

    cpu: float
    wall: float
    private: float
    floor: float


def write_models(folder: Path) -> None:
    """Three models: a base, and two that moved away from it a little."""
    shapes = {"model.embed_tokens.weight": (TOKENS, WIDTH), "lm_head.weight": (TOKENS, WIDTH)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (WIDTH, WIDTH) for p in "qkvo"}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (UNITS, WIDTH) for p in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (WIDTH, UNITS)
        shapes |= {
            f"{at}.{n}.weight": (WIDTH,) for n in ("input_layernorm", "post_attention_layernorm")
        }
    shapes["model.norm.weight"] = (WIDTH,)
    generator = torch.Generator().manual_seed(0)
    base = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, step in (("base", 0.0), ("a", 0.01), ("b", 0.01)):
        moved = {
            key: tensor + step * torch.randn(tensor.shape, generator=generator)
            for key, tensor in base.items()
        }
        (folder / name).mkdir()
        save_file(moved, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(CONFIG))


def recipes(folder: Path) -> None:
    """The three merges, as mergekit and repsim both read them."""
    own = {"weight": 1.0}
    both = [{"model": name, "parameters": own} for name in ("a", "b")]
    thin = [{"model": name, "parameters": {**own, "density": 0.5}} for name in ("a", "b")]
    documents: dict[str, dict[str, Any]] = {
        "linear": {"merge_method": "linear", "models": both},
        "slerp": {
            "merge_method": "slerp", "base_model": "a", "parameters": {"t": 0.5},
            "models": [{"model": "a"}, {"model": "b"}],
        },
        "ties": {"merge_method": "ties", "base_model": "base", "models": thin},
    }  # fmt: skip
    for name, document in documents.items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(document))


def drop_from_cache(folder: Path) -> None:
    """Make the next read come from the disk."""
    os.sync()
    for path in folder.glob("*/model.safetensors"):
        with path.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(
    command: list[str], folder: Path, environment: dict[str, str], inputs: int
) -> Measured:  # fmt: skip
    """Run one process and watch its private memory; the disk is timed just before."""
    read, write_ = disk_seconds(folder)
    floor = inputs * read + write_ if inputs else 0.0
    drop_from_cache(folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, largest = time.perf_counter(), 0
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            lines = [line for line in status.read_text().splitlines() if line[:7] == "RssAnon"]
        except (FileNotFoundError, ProcessLookupError):
            break
        largest = max([largest, *(int(line.split()[1]) for line in lines)])
        time.sleep(0.01)
    _, errors = process.communicate()
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(cpu, wall, largest / 1024, floor)


def disk_seconds(folder: Path) -> tuple[float, float]:
    """Seconds for reading a checkpoint that is not in memory, and for writing and syncing one."""
    source, target = folder / "a" / "model.safetensors", folder / "copy"
    drop_from_cache(folder)
    start = time.perf_counter()
    data = source.read_bytes()
    read = time.perf_counter() - start
    start = time.perf_counter()
    with target.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    written = time.perf_counter() - start
    target.unlink()
    return read, written


def commands(mergekit: Path | None) -> dict[tuple[str, str], list[str]]:
    """(merge, who) -> command line without the target, which comes last."""
    python = sys.executable
    ours = "import sys; from repsim.cli.main import main; main(['merge', sys.argv[1], sys.argv[2]])"
    found: dict[tuple[str, str], list[str]] = {}
    for name in ("linear", "slerp", "ties"):
        found[name, "repsim"] = [python, "-c", ours, f"{name}.yml"]
        if mergekit:
            module = [python, "-m", "mergekit.scripts.run_yaml", "--no-copy-tokenizer"]
            module.append("--no-write-model-card")  # it asks the hub for models of short names
            found[name, "mergekit"] = [*module, f"{name}.yml"]
    found["linear", "transformers"] = [python, "-c", NAIVE]
    imports = "import numpy, yaml, repsim.cli.main, repsim.cli.merge, repsim.merging.to_disk"
    found["imports", "repsim"] = [python, "-c", imports + ", repsim.merging.methods"]
    if mergekit:
        found["imports", "mergekit"] = [python, "-c", "import mergekit.scripts.run_yaml"]
    return found


INPUTS = {"linear": 2, "slerp": 2, "ties": 3}


def measure(folder: Path, rounds: int, mergekit: Path | None) -> dict[Any, list[Measured]]:
    """All rows, each round in turn."""
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "REPSIM_QUIET": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(mergekit.resolve()) if mergekit else "",
    }  # fmt: skip
    rows: dict[tuple[str, str], list[Measured]] = {}
    for number in range(rounds):
        for key, command in commands(mergekit).items():
            out = folder / f"out-{number}-{'-'.join(key)}"
            environment["REPSIM_CACHE"] = str(out.with_suffix(".cache"))
            given = command if key[0] == "imports" else [*command, out.name]
            rows.setdefault(key, []).append(
                run(given, folder, environment, INPUTS.get(key[0], 0))
            )  # fmt: skip
            subprocess.run(["rm", "-rf", str(out), environment["REPSIM_CACHE"]], check=True)
            sys.stderr.write(f"{number} {key} {rows[key][-1]}\n")
    return rows


def table(rows: dict[Any, list[Measured]], size: float, about: str) -> str:
    """The table in markdown."""
    rounds = len(next(iter(rows.values())))
    lines = [
        f"{size / 1e6:.0f} MB per checkpoint, float32; {about} Median of {rounds} round(s).\n",
        "| merge | who | CPU s | without imports | wall s | floor s | wall without imports / floor "
        "| private MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, who), found in rows.items():
        cpu, wall, private, floor = (statistics.median(m[i] for m in found) for i in range(4))
        alone = rows.get(("imports", who))
        rest, ratio = "–", "–"
        if name in INPUTS and alone:
            rest = f"{cpu - statistics.median(m.cpu for m in alone):.1f}"
            waited = statistics.median(m.wall for m in alone)
            ratio = f"{statistics.median((m.wall - waited) / m.floor for m in found):.1f}"
        lasted = f"{wall:.1f} | {floor:.1f}" if floor else f"{wall:.1f} | –"
        lines.append(
            f"| {name} | {who} | {cpu:.1f} | {rest} | {lasted} | {ratio} | {private:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mergekit", type=Path, help="folder that mergekit is installed in")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written (2.5 GB)")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write_models(folder)
        recipes(folder)
        os.sync()
        rows = measure(folder, given.rounds, given.mergekit)
        size = (folder / "a" / "model.safetensors").stat().st_size
    load = os.getloadavg()[1]
    about = (
        f"{os.cpu_count()}-core {platform.machine()} CPU at load {load:.0f}, "
        f"{dt.datetime.now(dt.UTC).date()}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}."
    )
    section = table(rows, size, about)
    sys.stdout.write(section)
    if given.write:
        write(section, "merging")


if __name__ == "__main__":
    main()
