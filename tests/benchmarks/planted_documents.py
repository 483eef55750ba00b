"""False positives, coverage and bias on planted data, rows against documents as the unit.

Two models of 10 units see latent meanings of 4 dimensions through fixed views, with noise. Rows of
a document share a part of meaning and noise, the intraclass correlation. Null: the models see
independent meanings; share of repeats with p <= 0.05. Alternative: half of the variance is common;
share of 95 % intervals that hold the truth: the population's value of CKA over pairs of documents,
in closed form, and the mean over repeats (the value at this n) for the other measures; bias against
the same, of RSA and RBF CKA against the mean over independent rows. "serial": an autoregression of
0.8, by rows and in the blocks that the note offers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from similarity_grids import machine, write

from repsim.core import Measure
from repsim.corpora import load_corpus
from repsim.measures import Features, Statistics, blocks, compute_grid, get_measure
from repsim.measures.beside import beside

MEASURES = (
    "cka", "unit_correlation", "mutual_knn", "procrustes", "permutation", "svcca", "rsa", "cka_rbf",
)  # fmt: skip
ICC, NOISE, SHARED, UNITS, LATENT = 0.5, 0.3, 0.5, 10, 4
VIEWS = np.random.default_rng(5).normal(size=(2, LATENT, UNITS))
#: Unit-wise correlation needs units that mean the same on both sides.
SAME_VIEW = ("unit_correlation",)
#: Shuffles for which p <= 0.05 has probability 0.05 exactly.
STATISTICS = Statistics(permutations=39, ceiling=False)

Draw = Callable[[np.random.Generator, int], np.ndarray]


def of_documents(sizes: np.ndarray, icc: float) -> tuple[np.ndarray, Draw]:
    """Labels of rows, and a source of unit-variance columns with an intraclass correlation."""
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng: np.random.Generator, columns: int) -> np.ndarray:
        between = rng.normal(size=(len(sizes), columns))[labels]
        return np.sqrt(icc) * between + np.sqrt(1 - icc) * rng.normal(size=(len(labels), columns))

    return labels, draw


def serial(n: int, r: float) -> tuple[np.ndarray, Draw]:
    """Blocks of rows, and a source of unit-variance autoregressions."""

    def draw(rng: np.random.Generator, columns: int) -> np.ndarray:
        steps = np.sqrt(1 - r * r) * rng.normal(size=(n, columns))
        steps[0] = rng.normal(size=columns)
        for row in range(1, n):
            steps[row] += r * steps[row - 1]
        return steps

    return np.array(blocks(n, int(np.ceil(4 * (1 + r) / (1 - r))))), draw


def cases() -> dict[str, tuple[np.ndarray, Draw]]:
    """Name -> labels and source."""
    kolibri = np.array(sorted(Counter(load_corpus("kolibri").documents).values(), reverse=True))
    return {
        "100 rows, independent": of_documents(np.ones(100, dtype=int), 0.0),
        "17 documents of 6": of_documents(np.full(17, 6), ICC),
        "40 documents of 6": of_documents(np.full(40, 6), ICC),
        "sizes of kolibri, every 2nd": of_documents(kolibri[::2], ICC),
        "serial, 600 rows": serial(600, 0.8),
    }


def sides(
    draw: Draw, shared: float, rng: np.random.Generator, same_view: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Both models, `[n, UNITS]`."""
    x, own = draw(rng, LATENT), draw(rng, LATENT)
    y = np.sqrt(shared) * x + np.sqrt(1 - shared) * own
    second = VIEWS[0 if same_view else 1]
    return (x @ VIEWS[0] + NOISE * draw(rng, UNITS), y @ second + NOISE * draw(rng, UNITS))


def population_cka() -> float:
    """Linear CKA of the planted models over independent documents."""
    own = [view.T @ view + NOISE**2 * np.eye(UNITS) for view in VIEWS]
    cross = np.sqrt(SHARED) * VIEWS[0].T @ VIEWS[1]
    norms = np.prod([np.linalg.norm(c) for c in own])
    return float(np.linalg.norm(cross) ** 2 / norms)


def by_independent_rows(measure: Measure, repeats: int = 60, n: int = 300) -> float:
    """Mean value where every row is a document."""
    _, draw = of_documents(np.ones(n, dtype=int), 0.0)
    pairs = (sides(draw, SHARED, np.random.default_rng([9, i]), False) for i in range(repeats))
    return float(np.mean([measure(x, y) for x, y in pairs]))


def tried(measure: Measure, draw: Draw, labels: np.ndarray | None, repeats: int) -> list[float]:
    """False positives, coverage and bias."""
    rejected, ends, everywhere = [], [], np.ones((1, 1), dtype=bool)
    same_view = measure.name in SAME_VIEW
    for seed in range(repeats):
        for shared in (0.0, SHARED):
            rng = np.random.default_rng([seed, int(2 * shared)])
            x, y = ([Features(a, documents=labels)] for a in sides(draw, shared, rng, same_view))
            values = compute_grid(measure, x, y)
            # Signs and shuffles of its own for each repeat: a fixed set has a level of its own.
            wanted = dataclasses.replace(STATISTICS, seed=seed)
            found, _ = beside(measure, x, y, values, wanted, tested=everywhere)
            if shared:
                ends.append([values[0, 0], found["ci_low"][0, 0], found["ci_high"][0, 0]])
            else:
                rejected.append(found["p_value"][0, 0] <= 0.05)
    value, low, high = np.array(ends).T
    truth = population_cka() if measure.name == "cka" else value.mean()
    covered = ((low <= truth) & (truth <= high)).mean()
    known = by_independent_rows(measure) if measure.name in ("rsa", "cka_rbf") else truth
    bias = value.mean() - known if measure.leaves_out_documents else np.nan
    return [100 * np.mean(rejected), 100 * covered, bias]


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--measure", action="append", choices=MEASURES)
    parser.add_argument("--case", action="append", help="part of a name; all if left out")
    parser.add_argument("--rows", action="store_true", help="rows as the unit beside documents")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{given.repeats} repeats, {STATISTICS.permutations} shuffles, "
        f"{STATISTICS.permutations_expensive} of permutation, Procrustes and SVCCA; percent, and "
        f"bias of the value of CKA. {machine()}.\n",
        "| planted | measure | unit | false positives at 5 % | coverage of 95 % | bias |\n"
        "|---|---|---|---|---|---|",
    ]
    for name, (labels, draw) in cases().items():
        if given.case and not any(part in name for part in given.case):
            continue
        for measure in given.measure or MEASURES:
            units = {"row": None} if labels.max() + 1 == len(labels) else {"document": labels}
            if given.rows:
                units = {"row": None} | units
            for unit, known in units.items():
                false, covered, bias = tried(get_measure(measure), draw, known, given.repeats)
                shown = "–" if np.isnan(bias) else f"{bias:+.3f}"
                lines.append(
                    f"| {name} | {measure} | {unit} | {false:.1f} | {covered:.1f} | {shown} |"
                )
                sys.stderr.write(lines[-1] + "\n")
    section = "\n".join(lines) + "\n"
    sys.stdout.write(section)
    if given.write:
        write(section, "planted_documents")


if __name__ == "__main__":
    sys.exit(main())
