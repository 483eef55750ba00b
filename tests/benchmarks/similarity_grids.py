"""All layer x layer pairs of two models: our grids, the floor, and per-pair peers, in one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/similarity_grids.py --write

Floor: floating point operations of the cheapest exact algorithm for all L x L pairs, at the float32
matrix product rate of one thread, measured before and after each entry in the same process.

- CKA and mutual k-NN: 2 L symmetric Gram matrices, n^2 d each (CKA: + L (2 L + 1) n^2 for their
  inner products, or L^2 + 2 L covariances of 2 n d^2 if these are fewer; k-NN: selection is not
  counted).
- RSA, Gaussian CKA: 2 L symmetric Gram matrices (exponentials, ranks and medians not counted).
- SVCCA (k components as in the data), PWCCA: decompositions of each layer, and of each pair.
- Procrustes: L^2 (2 n d^2 + 8/3 d^3). Decompositions do not run at the rate of products, so this
  floor cannot be reached.

Peers marked "formula" are the published formula in a loop over pairs, as the packages have it:
centred feature-space CKA (Kornblith's notebook), `sklearn` neighbours per pair (as ReSi calls
them), singular values of the cross-covariance by `scipy`. They are written here. `pytorch-cka` is
the real package, run if it can be imported:

    pip install --no-deps --target PEERS pytorch-cka && PYTHONPATH=PEERS python ...

It does not centre the activations, so its error grows with their means, and it clips at 0.

Loops over pairs stop at a time budget and are extrapolated linearly. Times are CPU seconds
of one thread; whoever else is on the machine moves them by 5-15 %.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import datetime as dt
import gc
import importlib.util
import itertools
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import sklearn
import torch
from sklearn.neighbors import NearestNeighbors

from repsim.core.provenance import version_of
from repsim.measures import Features, compute_grid, get_measure

TABLE = Path(__file__).with_name("README.md")
BUDGET = 25.0


@dataclasses.dataclass
class Entry:
    """One line of the table: CPU seconds for all pairs, and how that was found."""

    measure: str
    who: str
    seconds: float
    floor: float
    pairs: int
    error: float
    peak: float = math.nan

    def row(self, n: int, layers: int) -> str:
        """As a line of a Markdown table."""
        note = "" if self.pairs == layers**2 else f" ({self.pairs} pairs, extrapolated)"
        error, peak = (
            "–" if math.isnan(value) else text
            for value, text in ((self.error, f"{self.error:.0e}"), (self.peak, f"{self.peak:.0f}"))
        )
        return (
            f"| {self.measure} | {self.who} | {n} | {layers} | {self.seconds:.2f}{note} | "
            f"{self.seconds / self.floor:.2f} | {error} | {peak} |"
        )


def activations(n: int, d: int, layers: int, seed: int) -> list[np.ndarray]:
    """Layers with a decaying spectrum and a shared part, means as large as the spread: float32."""
    shared = np.random.default_rng(0).normal(size=(n, d // 4))
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.5
    made = []
    for _ in range(layers):
        own = rng.normal(size=(n, d)) * scale
        made.append(own @ np.linalg.qr(rng.normal(size=(d, d)))[0])
        made[-1] += 0.2 * shared @ rng.normal(size=(d // 4, d)) / math.sqrt(d)
        made[-1] += made[-1].std() * rng.normal(size=d)
    return [x.astype(np.float32) for x in made]


def gemm_rate(size: int = 1536) -> float:
    """float32 operations per CPU second of one thread."""
    a = torch.randn(size, size)
    rates = []
    for _ in range(3):
        start = time.process_time()
        torch.mm(a, a)
        rates.append(2 * size**3 / (time.process_time() - start))
    return max(rates)


def floors(n: int, d: int, layers: int, k: int) -> dict[str, float]:
    """Floating point operations of the cheapest exact algorithm for all pairs."""
    grams = 2 * layers * n * n * d
    return {
        "cka": min(
            grams + layers * (2 * layers + 1) * n * n, (layers**2 + 2 * layers) * 2 * n * d * d
        ),
        "procrustes": layers**2 * (2 * n * d * d + 8 / 3 * d**3),
        "mutual_knn": grams,
        "rsa": grams,
        "cka_rbf": grams,
        "svcca": 2 * layers * (n * d * d + 9 * d**3 + 2 * n * d * k)
        + layers**2 * (2 * n * k * k + 8 / 3 * k**3),
        "pwcca": 2 * layers * (3 * n * d * d + 9 * d**3) + layers**2 * (2 * n * d * d + 12 * d**3),
    }


# -- peers ---------------------------------------------------------------------------------------


def kornblith_debiased(x: np.ndarray, y: np.ndarray) -> float:
    """Feature-space debiased linear CKA of one pair, all three terms computed for the pair."""
    x, y = x - x.mean(0), y - y.mean(0)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        n, row_a, row_b = len(a), np.sum(a**2, 1), np.sum(b**2, 1)
        product = np.linalg.norm(a.T @ b) ** 2
        return float(
            product - n / (n - 2) * row_a @ row_b + row_a.sum() * row_b.sum() / ((n - 1) * (n - 2))
        )

    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))


def sklearn_mutual_knn(x: np.ndarray, y: np.ndarray) -> float:
    """Overlap of the ten nearest neighbours by cosine, both sides searched for the pair."""
    sides = []
    for side in (x, y):
        search = NearestNeighbors(n_neighbors=11, metric="cosine").fit(side)
        found = search.kneighbors(return_distance=False)
        sides.append(found[:, :10])
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*sides, strict=True)]
    return float(np.mean(shared)) / 10


def scipy_procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Angular Procrustes distance from the singular values of the pair's cross-covariance."""
    x, y = x - x.mean(0), y - y.mean(0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return math.acos(min(1.0, float(scipy.linalg.svdvals(x.T @ y).sum())))


PEERS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "cka": ("formula per pair (Kornblith notebook)", kornblith_debiased),
    "procrustes": ("formula per pair (scipy)", scipy_procrustes),
    "mutual_knn": ("formula per pair (scikit-learn)", sklearn_mutual_knn),
}


def pytorch_cka(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> np.ndarray | None:
    """`cka_from_features` of the package, None if it is not there."""
    if importlib.util.find_spec("cka") is None:
        return None
    from cka import cka_from_features

    sides = ([torch.from_numpy(a) for a in side] for side in (xs, ys))
    return np.asarray(cka_from_features(*sides))


# -- the run -------------------------------------------------------------------------------------


def timed(work: Callable[[], np.ndarray | None]) -> tuple[float, np.ndarray | None]:
    """CPU seconds and the result."""
    gc.collect()
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def loop(
    of_pair: Callable[[np.ndarray, np.ndarray], float],
    xs: Sequence[np.ndarray],
    ys: Sequence[np.ndarray],
) -> tuple[float, int, np.ndarray]:
    """CPU seconds for all pairs, pairs run, and their values (NaN where not run)."""
    values = np.full((len(xs), len(ys)), np.nan)
    # Along diagonals, so that few pairs still touch all layers.
    cells = sorted(itertools.product(range(len(xs)), range(len(ys))), key=lambda c: c[1] - c[0])
    start = time.process_time()
    for i, j in cells:
        values[i, j] = of_pair(xs[i], ys[j])
        if time.process_time() - start > BUDGET:
            break
    spent, count = time.process_time() - start, int(np.isfinite(values).sum())
    return spent * values.size / count, count, values


def resident(line: str = "VmRSS") -> float:
    """Memory of this process in MiB, now or (VmHWM) at most since it was last forgotten."""
    told = Path("/proc/self/status").read_text(encoding="ascii").split(f"{line}:")[1]
    return int(told.split()[0]) / 1024


def forget_peak() -> float:
    """What is free goes back to the system, and the peak is what is held now: so many MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident()


def run(
    n: int, d: int, layers: int, repeats: int, names: Sequence[str], *, alone: bool
) -> list[Entry]:
    """Our grid from raw arrays, the first and the middle of some runs, and the peers.

    `alone`: without peers and without float64, whose agreement the tests hold.
    """
    xs, ys = activations(n, d, layers, 1), activations(n, d, layers, 2)
    entries = []
    spectrum = np.linalg.svd(xs[0] - xs[0].mean(0), compute_uv=False) ** 2
    components = int((np.cumsum(spectrum) < 0.99 * spectrum.sum()).sum()) + 1
    for name, operations in floors(n, d, layers, components).items():
        if names and name not in names:
            continue
        measure = get_measure(name)

        def grid(dtype: torch.dtype, name: str = name) -> np.ndarray:
            sides = [[Features(a, dtype=dtype) for a in side] for side in (xs, ys)]
            return compute_grid(get_measure(name), *sides)

        before = gemm_rate()
        held = forget_peak()
        runs = [timed(lambda grid=grid: grid(torch.float32)) for _ in range(repeats)]
        peak = resident("VmHWM") - held
        floor = operations / np.mean([before, gemm_rate()])
        exact = np.full((layers, layers), np.nan) if alone else grid(torch.float64)
        for who, (seconds, values) in (
            ("repsim, first call", runs[0]),
            ("repsim", sorted(runs, key=lambda r: r[0])[len(runs) // 2]),
        ):
            error = math.nan if alone else float(np.nanmax(np.abs(values - exact)))
            entries.append(Entry(name, who, seconds, floor, exact.size, error, peak))
        if name not in PEERS or alone:
            continue
        if name == "cka":
            seconds, values = timed(lambda: pytorch_cka(xs, ys))
            if values is not None:
                error = float(np.nanmax(np.abs(values - exact)))
                who = f"pytorch-cka {version_of('pytorch-cka')}"
                entries.append(Entry(name, who, seconds, floor, exact.size, error))
        who, of_pair = PEERS[name]
        before = gemm_rate()
        seconds, pairs, values = loop(of_pair, xs, ys)
        floor = operations / np.mean([before, gemm_rate()])
        error = float(np.nanmax(np.abs(values - exact)))
        entries.append(Entry(measure.name, who, seconds, floor, pairs, error))
    return entries


def machine() -> str:
    """Machine, date and versions."""
    return (
        f"One thread of a {os.cpu_count()}-core {platform.machine()} CPU, "
        f"{dt.date.today().isoformat()}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn "
        f"{sklearn.__version__}"
    )


def table(entries: Sequence[Entry], n: int, d: int, layers: int) -> str:
    """The Markdown section."""
    rate = gemm_rate() / 1e9
    head = (
        f"d = {d}, float32. {machine()}; "
        f"{rate:.0f} GFLOP/s in float32 products. Times from raw arrays, all factorisations "
        "included; memory beside the arrays.\n\n"
        "| measure | who | n | layers a side | CPU seconds, all pairs | x floor | largest error "
        "against float64 | peak MiB |\n|---|---|---|---|---|---|---|---|\n"
    )
    return head + "\n".join(entry.row(n, layers) for entry in entries) + "\n"


def write(section: str, name: str = "similarity_grids") -> None:
    """Replace the section of a benchmark in the table of benchmarks."""
    marks = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = TABLE.read_text(encoding="utf-8")
    pattern = re.compile(f"{marks[0]}.*{marks[1]}", re.DOTALL)
    TABLE.write_text(pattern.sub(f"{marks[0]}\n{section}{marks[1]}", text), encoding="utf-8")


def arguments(about: str | None, folder: str) -> argparse.ArgumentParser:
    """Options of a benchmark that writes into a folder: which, and whether the table is kept."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help=folder)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    return parser


def finish(about: str, lines: Sequence[str], name: str, *, keep: bool) -> None:
    """Print a table under what it was measured on, and keep it where that is asked for."""
    where = (
        f"{os.cpu_count()}-core {platform.machine()} CPU at load {os.getloadavg()[1]:.0f}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}."
    )
    section = f"{about}{where}\n\n" + "\n".join(lines) + "\n"
    sys.stdout.write(section)
    if keep:
        write(section, name)


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", action="append", default=[], help="may be repeated")
    parser.add_argument("--alone", action="store_true", help="no peers, no float64")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    entries = run(given.n, given.d, given.layers, given.repeats, given.measure, alone=given.alone)
    section = table(entries, given.n, given.d, given.layers)
    sys.stdout.write(section)
    if given.write:
        write(section)


if __name__ == "__main__":
    sys.exit(main())
