"""CKA with null and interval of more rows than fit into memory at once: processor time and memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/many_rows.py DIR --cells matched --write

Two models of 13 layers see 64 latent meanings of sentences in documents of 1 to 9 sentences through
views of their own, with noise that grows with depth. Another process writes them to DIR as bfloat16
(5.3 GB at 100,000 rows of width 1,024), one file per layer, in blocks of rows. The memory stated is
the most that this process held (imports included), `unit_bytes` is what the plan states beforehand.
The values of three cells are computed again in float64 with both layers in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from similarity_grids import gemm_rate, machine, write

from repsim.activations.store import StoredArrays, array_key
from repsim.core import Activations, ModelRef
from repsim.measures import Features, Statistics, get_measure, plan_sweep, run_unit
from repsim.measures.memory import unit_bytes

LATENT, BLOCK = 64, 10_000
DOCUMENTED = Statistics(covariates=(), ceiling=False)


@dataclasses.dataclass(frozen=True)
class LayerFiles:
    """One file per layer."""

    folder: Path

    def read(self, point: str, layer: int) -> np.ndarray:
        """The array of one layer."""
        return StoredArrays(self.folder / f"{layer}.safetensors").read(point, layer)


def labels_of(n: int) -> np.ndarray:
    """Documents of 1 to 9 rows."""
    sizes = np.random.default_rng(0).integers(1, 10, n)
    return np.repeat(np.arange(n), sizes)[:n]


def make(folder: Path, n: int, d: int, layers: int) -> None:
    """Write both models, block by block of rows."""
    from safetensors.torch import save_file

    labels = labels_of(n)
    rng = np.random.default_rng(1)
    documents = rng.normal(size=(int(labels.max()) + 1, LATENT))
    meaning = (documents[labels] + rng.normal(size=(n, LATENT))).astype(np.float32)
    for model in "ab":
        (folder / model).mkdir(parents=True, exist_ok=True)
        for layer in range(layers):
            rng = np.random.default_rng([ord(model), layer])
            view = rng.normal(size=(LATENT, d)).astype(np.float32)
            view *= np.arange(1, LATENT + 1, dtype=np.float32)[:, None] ** -0.5
            array = torch.empty(n, d, dtype=torch.bfloat16)
            for start in range(0, n, BLOCK):
                rows = meaning[start : start + BLOCK] @ view + 1
                rows += (1 + layer / 4) * rng.standard_normal(rows.shape, dtype=np.float32)
                array[start : start + BLOCK] = torch.from_numpy(rows)
            save_file({array_key("resid", layer): array}, folder / model / f"{layer}.safetensors")


def sides(folder: Path, n: int, layers: int, *, documents: bool) -> list[Activations]:
    """Both models as the store holds them."""
    names = tuple(map(str, labels_of(n))) if documents else ()
    return [
        Activations(
            ModelRef(model, model), "eng_Latn", tuple(map(str, range(n))),
            {"resid": tuple(range(layers))}, "mean", "text", LayerFiles(folder / model),
            documents=names,
        )
        for model in "ab"
    ]  # fmt: skip


def in_memory(pair: list[Activations], layer_a: int, layer_b: int, documents: np.ndarray) -> float:
    """The value of one cell in float64, both layers held."""
    x, y = (
        Features(side.array("resid", layer), documents=documents)
        for side, layer in zip(pair, (layer_a, layer_b), strict=True)
    )
    return get_measure("cka")(x, y)


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--cells", choices=("matched", "all"), default="matched")
    parser.add_argument("--rows", action="store_true", help="without documents")
    parser.add_argument("--make", action="store_true", help="write the data and stop")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.make:
        make(given.folder, given.n, given.d, given.layers)
        return
    if not given.folder.exists():
        subprocess.run([sys.executable, *sys.argv, "--make"], check=True)
    pair = sides(given.folder, given.n, given.layers, documents=not given.rows)
    (unit,) = plan_sweep(
        pair, ["cka"], pairings=["same text"], layers=given.cells, statistics=DOCUMENTED
    )
    planned = unit_bytes(given.n, [given.d] * 2 * given.layers, unit.measures, DOCUMENTED,
                         documents=not given.rows)[0]  # fmt: skip
    start = time.process_time()
    table = run_unit(unit)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = list(table.rows())
    checked = [rows[i] for i in (0, len(rows) // 2, len(rows) - 1)]
    labels = labels_of(given.n) if not given.rows else None
    gaps = [
        abs(row["value"] - in_memory(pair, row["layer_a"], row["layer_b"], labels))
        for row in checked
    ]
    lines = [
        f"{given.n:,} rows, width {given.d:,}, {given.layers} layers a side, bfloat16 on disk, "
        f"{unit.comparisons} pairs of layers; CKA with null "
        f"({rows[0]['null_method']}) and interval. {machine()}; {gemm_rate() / 1e9:.0f} GFLOP/s.\n",
        f"**{peak / 1e9:.2f} GB** at most ({planned / 1e9:.1f} GB planned), {seconds:.0f} CPU s; "
        f"largest difference to the value in float64 {max(gaps):.0e}.\n",
        "| layers | CKA | interval | 95 % of the null | p |\n|---|---|---|---|---|",
        *(
            f"| {row['layer_a']}, {row['layer_b']} | {row['value']:.4f} | {row['ci_low']:.4f} to "
            f"{row['ci_high']:.4f} | {row['null_q95']:.1e} | {row['p_value']:.2g} |"
            for row in checked
        ),
    ]
    section = "\n".join(lines) + "\n"
    sys.stdout.write(section)
    if given.write:
        write(section, "many_rows")


if __name__ == "__main__":
    sys.exit(main())
