"""What null, interval and partial value cost beside the value, for one unit of a sweep.

    OMP_NUM_THREADS=1 python tests/benchmarks/sweep_cost.py --write

A unit is one pair of models on the same text, all layers x all layers, with the default statistics.
Each number is the CPU time of one thread for the unit with one part of the statistics switched on,
minus that of the unit without any.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

import numpy as np
import torch
from similarity_grids import activations, machine, write

from repsim.core import Activations, ArraysInMemory, ModelRef
from repsim.measures import Statistics, plan_sweep, run_unit

MEASURES = ("unit_correlation", "permutation", "cka", "procrustes", "svcca", "mutual_knn", "rsa")
OFF, DEFAULT = Statistics.off(), Statistics()
PARTS = {
    "null": dataclasses.replace(
        OFF,
        permutations=DEFAULT.permutations,
        permutations_expensive=DEFAULT.permutations_expensive,
    ),
    "interval": dataclasses.replace(OFF, groups=DEFAULT.groups),
    "partial": dataclasses.replace(OFF, covariates=DEFAULT.covariates),
}


def side(name: str, seed: int, n: int, d: int, layers: int) -> Activations:
    """Activations of one model with a covariate."""
    arrays = {("resid", i): a for i, a in enumerate(activations(n, d, layers, seed))}
    length = np.random.default_rng(seed).normal(size=n)
    return Activations(
        ModelRef(name, name), "eng_Latn", tuple(map(str, range(n))),
        {"resid": tuple(range(layers))}, "mean", "text", ArraysInMemory(arrays),
        {"log_length": length},
    )  # fmt: skip


def seconds(sides: list[Activations], measure: str, statistics: Statistics) -> float:
    """CPU time of the unit."""
    (unit,) = plan_sweep(sides, [measure], pairings=["same text"], statistics=statistics)
    start = time.process_time()
    run_unit(unit)
    return time.process_time() - start


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=700)
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sides = [side(m, i, given.n, given.d, given.layers) for i, m in enumerate("ab", 1)]
    lines = [
        f"n = {given.n}, d = {given.d}, {given.layers} x {given.layers} layers, default "
        f"statistics; CPU seconds of one unit (one pair of models, one language). {machine()}.\n",
        "| measure | values | null | interval | partial |\n|---|---|---|---|---|",
    ]
    for measure in MEASURES:
        alone = seconds(sides, measure, OFF)
        more = [seconds(sides, measure, part) - alone for part in PARTS.values()]
        lines.append("| " + " | ".join([measure, *(f"{s:.1f}" for s in (alone, *more))]) + " |")
    section = "\n".join(lines) + "\n"
    sys.stdout.write(section)
    if given.write:
        write(section, "sweep_cost")


if __name__ == "__main__":
    sys.exit(main())
