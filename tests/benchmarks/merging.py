"""CPU time, wall time and private memory of merging half-gigabyte checkpoints, beside a copy.

    OMP_NUM_THREADS=1 python tests/benchmarks/merging.py --write
    OMP_NUM_THREADS=1 python tests/benchmarks/merging.py --mergekit DIR --rounds 3 --write

DIR is a virtual environment with mergekit (`python -m venv DIR; DIR/bin/pip install -c
constraints.txt mergekit==0.1.5`), so that it runs on the same torch. Without it, only the plain
implementation stands beside ours: load both models with transformers, average their state dicts,
save.

Each merge is a process of its own, imports included; "without imports" takes off a process that
only imports. Everybody's bytecode is there beforehand, as it is of installed packages. Inputs are
dropped from the page cache before each. "hashes known" is a merge of parents whose hashes an
earlier command left in the cache of this user. Private memory is the largest `RssAnon` seen, polled
every 10 ms, to which mapped inputs do not count.

The floor is a copy, timed just before each merge and in the same state of the cache: all inputs are
read, as many bytes as the result has are written, and forced to disk as often as the merge does it.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from similarity_grids import write

from repsim.merging.output import SYNC_BYTES

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
    """One process: CPU seconds, wall seconds, largest private memory in MiB, seconds of a copy."""

    cpu: float
    wall: float
    private: float
    floor: float


def write_models(folder: Path) -> None:
    """Three models: a base, and two that moved away from it a little."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.weight": (TOKENS, WIDTH) for name in ("model.embed_tokens", "lm_head")
    }
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


#: Method -> models besides the base, parameters of each of them, and of the merge.
MERGES: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "linear": (("a", "b"), {"weight": 1.0}, {}),
    "slerp": (("a", "b"), {}, {"t": 0.5}),
    "nuslerp": (("a", "b"), {"weight": 1.0}, {}),
    "multislerp": (("a", "b"), {"weight": 1.0}, {}),
    "karcher": (("a", "b"), {}, {}),
    "task_arithmetic": (("a", "b"), {"weight": 1.0}, {}),
    **{
        name: (("a", "b"), {"weight": 1.0, "density": 0.5}, {})
        for name in ("ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs",
                     "breadcrumbs_ties")
    },
    "model_stock": (("a", "b"), {}, {}),
    "sce": (("a", "b"), {}, {}),
    "ram": (("a", "b"), {}, {}),
    "ramplus_tl": (("a", "b"), {}, {}),
    "nearswap": (("a",), {}, {"t": 0.01}),
    "arcee_fusion": (("a",), {}, {}),
}  # fmt: skip
#: Methods whose base is one of the models, or that have none.
BASELESS = {"linear": None, "nuslerp": None, "multislerp": None, "karcher": None, "slerp": "a"}
INPUTS = {
    name: models if name in BASELESS else (*models, "base")
    for name, (models, _, _) in MERGES.items()
}


def recipes(folder: Path) -> None:
    """The merges, as mergekit and repsim both read them."""
    for name, (models, own, common) in MERGES.items():
        listed = [{"model": model, **({"parameters": own} if own else {})} for model in models]
        document: dict[str, Any] = {"merge_method": name, "models": listed}
        if base := BASELESS.get(name, "base"):
            document["base_model"] = base
        if common:
            document["parameters"] = common
        (folder / f"{name}.yml").write_text(yaml.safe_dump(document))


def drop_from_cache(folder: Path) -> None:
    """Make the next read come from the disk."""
    os.sync()
    for path in folder.glob("*/model.safetensors"):
        with path.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(command: list[str], folder: Path, environment: dict[str, str], floor: float) -> Measured:
    """Run one process and watch its private memory; without a floor, inputs stay in the cache."""
    if floor:
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


def copy_seconds(folder: Path, inputs: Sequence[str]) -> float:
    """Seconds for reading all inputs and writing as much as one of them, as a merge does it."""
    drop_from_cache(folder)
    buffer, waiting = memoryview(bytearray(1 << 20)), 0
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        sources = [
            stack.enter_context((folder / name / "model.safetensors").open("rb", buffering=0))
            for name in inputs
        ]
        target = stack.enter_context((folder / "copy").open("wb", buffering=0))
        while count := max(source.readinto(buffer) or 0 for source in sources):
            waiting += target.write(buffer[:count])
            if waiting >= SYNC_BYTES:
                os.fsync(target.fileno())
                waiting = 0
        os.fsync(target.fileno())
    taken = time.perf_counter() - start
    (folder / "copy").unlink()
    return taken


OURS = "import sys; from repsim.cli.main import main; main(['merge', sys.argv[1], sys.argv[2]])"
OUR_IMPORTS = (
    "import numpy, yaml, repsim.cli.main, repsim.cli.merge, repsim.merging.to_disk, "
    "repsim.merging.methods"
)
KNOWN = "repsim, hashes known"


def commands(mergekit: Path | None, merges: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """(merge, who) -> command line without the target, which comes last."""
    python = sys.executable
    theirs = str(mergekit.resolve() / "bin" / "python") if mergekit else ""
    found: dict[tuple[str, str], list[str]] = {}
    for name in merges:
        found[name, "repsim"] = found[name, KNOWN] = [python, "-c", OURS, f"{name}.yml"]
        if mergekit:
            module = [theirs, "-m", "mergekit.scripts.run_yaml", "--no-copy-tokenizer"]
            module.append("--no-write-model-card")  # it asks the hub for models of short names
            found[name, "mergekit"] = [*module, f"{name}.yml"]
    if "linear" in merges:
        found["linear", "transformers"] = [python, "-c", NAIVE]
    found["imports", "repsim"] = [python, "-c", OUR_IMPORTS]
    if mergekit:
        found["imports", "mergekit"] = [theirs, "-c", "import mergekit.scripts.run_yaml"]
    return found


def environment_of(who: str, folder: Path) -> dict[str, str]:
    """Offline, on the CPU; ours with its bytecode, which a checkout may not have kept."""
    own = {**os.environ, "HF_HUB_OFFLINE": "1", "REPSIM_QUIET": "1", "CUDA_VISIBLE_DEVICES": ""}
    if who.startswith("repsim"):
        own.pop("PYTHONDONTWRITEBYTECODE", None)
        own["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        own["REPSIM_CACHE"] = str(folder / ("known" if who == KNOWN else "fresh"))
    return own


def measure(
    folder: Path, rounds: int, mergekit: Path | None, merges: Sequence[str], *, warm: bool = False
) -> dict[Any, list[Measured]]:
    """All rows, each round in turn; a first round of imports and known hashes does not count."""
    every = commands(mergekit, merges)
    widest = max(merges, key=lambda name: len(INPUTS[name]))
    rows: dict[tuple[str, str], list[Measured]] = {}
    for number in range(-1, rounds):
        for (name, who), command in every.items():
            if number < 0 and name != "imports" and (name, who) != (widest, KNOWN):
                continue
            out = folder / "out"
            inputs = INPUTS.get(name, ())
            timed = inputs and number >= 0 and not warm
            floor = copy_seconds(folder, inputs) if timed else 0.0
            given = [*command, out.name] if inputs else command
            found = run(given, folder, environment_of(who, folder), floor)
            subprocess.run(["rm", "-rf", str(out), str(folder / "fresh")], check=True)
            if number >= 0:
                rows.setdefault((name, who), []).append(found)
                sys.stderr.write(f"{number} {name} {who} {found}\n")
    return rows


def table(rows: dict[Any, list[Measured]], size: float, about: str) -> str:
    """The tables in markdown: seconds, and how they compare."""
    rounds = len(next(iter(rows.values())))
    lines = [
        f"{size / 1e6:.0f} MB per checkpoint, float32; {about} Median of {rounds} round(s).\n",
        "| merge | who | CPU s | without imports | wall s | copy s | wall / copy "
        "| wall without imports / copy | private MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, who), found in rows.items():
        cpu, wall, private, floor = (statistics.median(m[i] for m in found) for i in range(4))
        alone = rows.get(("imports", who.partition(",")[0]))
        cells = ["–"] * 4
        if name in INPUTS and floor:
            cells[1] = f"{floor:.1f}"
            cells[2] = f"{statistics.median(m.wall / m.floor for m in found):.1f}"
        if name in INPUTS and alone:
            cells[0] = f"{cpu - statistics.median(m.cpu for m in alone):.1f}"
            waited = statistics.median(m.wall for m in alone)
            if floor:
                cells[3] = f"{statistics.median((m.wall - waited) / m.floor for m in found):.1f}"
        rest, copied, whole, bare = cells
        lines.append(
            f"| {name} | {who} | {cpu:.1f} | {rest} | {wall:.1f} | {copied} | {whole} | {bare} "
            f"| {private:.0f} |"
        )
    return "\n".join([*lines, "", *ratios(rows)]) + "\n"


def ratios(rows: dict[Any, list[Measured]]) -> list[str]:
    """How many times as long mergekit takes, imports included: medians of both."""
    if ("imports", "mergekit") not in rows:
        return []
    lines = ["| mergekit / repsim | CPU | wall | CPU, hashes known | wall, hashes known |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name in dict.fromkeys(name for name, _ in rows if name in INPUTS):
        theirs, ours, known = (rows[name, who] for who in ("mergekit", "repsim", KNOWN))
        cells = [
            statistics.median(m[i] for m in theirs) / statistics.median(m[i] for m in own)
            for own in (ours, known)
            for i in range(2)
        ]
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    return lines


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mergekit", type=Path, help="virtual environment that has mergekit")
    parser.add_argument("--merges", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument(
        "--warm", action="store_true", help="leave inputs in the page cache, time no copy: for "
        "machines that others use, where CPU time and memory are what can be told",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where checkpoints are written (2.5 GB)")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write_models(folder)
        recipes(folder)
        os.sync()
        rows = measure(folder, given.rounds, given.mergekit, given.merges, warm=given.warm)
        size = (folder / "a" / "model.safetensors").stat().st_size
    load = os.getloadavg()[1]
    about = (
        f"{os.cpu_count()}-core {platform.machine()} CPU at load {load:.0f}, "
        f"{dt.datetime.now(dt.UTC).date()}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}."
        + (" Inputs in the page cache." if given.warm else "")
    )
    section = table(rows, size, about)
    sys.stdout.write(section)
    if given.write:
        write(section, "merging")


if __name__ == "__main__":
    main()
