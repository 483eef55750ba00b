"""All layers x all layers x languages x model pairs, each layer factorised once.

Decompositions of a few hundred columns gain nothing from threads, but units (a pair of models and
languages) do not depend on each other: worker processes take them, one thread each.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from repsim.core import Activations, Measure, SimilarityTable, UsageError
from repsim.core.pool import Pool, available_cores
from repsim.core.progress import progress
from repsim.measures.base import MEASURES, get_measure
from repsim.measures.cells import FeatureCache, unit_rows
from repsim.measures.discovery import with_q_values
from repsim.measures.plan import Layers, Statistics, SweepUnit, plan_sweep

#: Factors that each worker keeps; there are as many workers as cores.
WORKER_BYTES = 1 << 30
#: A worker costs a few seconds to start; below so many units it is not worth it.
FEWEST_UNITS = 4


def run_unit(unit: SweepUnit, cache: FeatureCache | None = None) -> SimilarityTable:
    """Compute one unit.

    Args:
        unit: From `plan_sweep`.
        cache: Shared by the units of a sweep.

    Returns:
        One row per wanted layer pair and measure, `info` as in `sweep_info`.

    Raises:
        InputError, UsageError: As `unit_rows`.
    """
    return SimilarityTable(unit_rows(unit, cache), sweep_info([unit]))


def run_units(
    units: Sequence[SweepUnit], *, device: str | None = None, workers: int = 1
) -> Iterator[tuple[SweepUnit, SimilarityTable]]:
    """Compute units; yield each with its table as soon as it is done.

    Args:
        units: From `plan_sweep`.
        device: Where to compute; on an accelerator everything stays in this process.
        workers: Processes; 0 for as many as there are cores. Measures that another process cannot
            import (of the script that runs, or not registered) are computed in this one.

    Raises:
        InputError: As `run_unit`; what was yielded before is done.
        ResourceError: A unit takes more memory than there is.
    """
    count = min(workers or available_cores(), len(units))
    measures = {id(m): m for unit in units for m in unit.measures}.values()
    alone = count <= 1 or len(units) < FEWEST_UNITS or not all(map(_importable, measures))
    if alone or (device or "cpu") != "cpu":
        cache = FeatureCache(device=device)
        yield from ((unit, run_unit(unit, cache)) for unit in units)
        return
    with Pool(count) as pool:
        yield from pool.completed(_run_in_worker, units)


def _importable(measure: Measure) -> bool:
    """Whether another process finds the same measure under its name."""
    if measure.function.__module__ == "__main__" or measure.name not in MEASURES:
        return False
    return get_measure(measure.name).function is measure.function


def _run_in_worker(unit: SweepUnit) -> SimilarityTable:
    return run_unit(unit, _worker_cache())


@functools.cache
def _worker_cache() -> FeatureCache:
    return FeatureCache(max_bytes=WORKER_BYTES)


def _restored(module: str, name: str, params: Mapping[str, Any]) -> Measure:
    importlib.import_module(module)
    return get_measure(name).with_params(**params)


def _reduced(measure: Measure) -> tuple[Any, ...]:
    """A measure travels between processes as its name: its functions cannot be pickled."""
    return _restored, (measure.function.__module__, measure.name, dict(measure.params))


copyreg.pickle(Measure, _reduced)


def sweep_info(units: Sequence[SweepUnit]) -> dict[str, Any]:
    """What the table of some units states of itself: models, measures, statistics (JSON-able)."""
    sides = [side for unit in units for side in (unit.a, unit.b)]
    measures = {m.name: m for unit in units for m in unit.measures}
    info: dict[str, Any] = {
        "models": {side.model.name: side.model.stated() for side in sides},
        "measures": {name: m.describe() for name, m in measures.items()},
    }
    if units:
        documents = any(unit.grouping[0] is not None for unit in units)
        stated = units[0].statistics.describe("document" if documents else "sentence")
        info["statistics"] = stated | {
            "expensive_measures": [name for name, m in measures.items() if m.is_expensive]
        }
    return info


def sweep(
    activations: Sequence[Activations],
    measures: Sequence[str | Measure] = ("cka",),
    *,
    pairings: Sequence[str] = ("same text", "parallel text"),
    layers: Layers = "auto",
    point: str = "resid",
    statistics: Statistics | None = None,
    self_pairs: bool = False,
    device: str | None = None,
    workers: int = 1,
) -> SimilarityTable:
    """Compare models x layers x languages, with null, interval and partial value for each number.

    Args:
        activations: One per model and language.
        measures: Names, aliases or measures.
        pairings: See `plan_sweep`.
        layers: See `plan_sweep`.
        point: Hook point.
        statistics: What is computed beside the values; `Statistics.off()` for none.
        self_pairs: Also each model with itself.
        device: Where to compute.
        workers: Processes; 0 for as many as there are cores.

    Raises:
        UsageError: Unknown names, or no pair to compare.
        InputError: Misaligned sentences, NaN activations, too few sentences.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 8))
        >>> sides = [Activations.from_arrays(name, [own, -own], language="eng_Latn")
        ...          for name, own in (("one", x), ("two", 2 * x))]
        >>> table = sweep(sides, ["cka"], point="", statistics=Statistics(covariates=()))
        >>> table.grid("one", "two", measure="cka").values.round(6).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    units = plan_sweep(
        activations,
        measures,
        pairings=pairings,
        layers=layers,
        point=point,
        statistics=statistics,
        self_pairs=self_pairs,
    )
    if not units:
        raise UsageError(
            "there is nothing to compare",
            hint="same text needs two models, parallel text needs two languages",
        )
    done: dict[SweepUnit, SimilarityTable] = {}
    with progress("comparing", total=sum(u.comparisons for u in units), unit="cell") as bar:
        for unit, table in run_units(units, device=device, workers=workers):
            done[unit] = table
            bar.update(unit.comparisons)
    return with_q_values(SimilarityTable.concat([done[unit] for unit in units]))


def compare_arrays(
    arrays: Mapping[str, Sequence[Any] | Activations],
    measures: Sequence[str | Measure] = ("cka",),
    *,
    names: Sequence[str] | None = None,
    documents: Sequence[str] = (),
    layers: Layers = "all",
    permutations: int = 100,
    level: float = 0.95,
    self_pairs: bool = False,
    seed: int = 0,
    device: str | None = None,
    workers: int = 1,
) -> SimilarityTable:
    """Compare activations from anywhere: arrays in, a table with the statistics of `compare` out.

    Nothing is invented: language, hook point and partial value are null, layers are numbered as
    they come. One model alone is compared with itself, layer x layer.

    Args:
        arrays: Model -> its layers, each `[n, d]` (numpy or torch), or `Activations` of one hook
            point; row i is the same sentence (or image, or stimulus) in all of them.
        measures: Names, aliases or measures.
        names: Name of each row, for messages; their numbers if left out.
        documents: Document of each row, `[n]`: they are then the unit of nulls and intervals.
        layers: "all" layer pairs, or those of "matched" depth.
        permutations: Shuffles of the null; 0 for no null and no intervals.
        level: Nominal coverage of the intervals.
        self_pairs: Also each model with itself, layer x layer.
        seed: Seed of shuffles and groups.
        device: Where to compute.
        workers: Processes; 0 for as many as there are cores.

    Raises:
        UsageError: Unknown measures, no model, or `Activations` of several hook points.
        InputError: Arrays that are malformed, not finite, or of different numbers of rows.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 8))
        >>> table = compare_arrays({"a": [x, x**2], "b": [2 * x]}, ["cka"], permutations=19)
        >>> table.grid("a", "b", measure="cka").values.round(3)[0].tolist()
        [1.0]
    """
    statistics = (
        Statistics(
            permutations=permutations,
            level=level,
            covariates=(),
            seed=seed,
        )
        if permutations
        else dataclasses.replace(Statistics.off(), seed=seed)
    )
    sides = [
        own
        if isinstance(own, Activations)
        else Activations.from_arrays(name, list(own), names=names, documents=documents)
        for name, own in arrays.items()
    ]
    points = {point for side in sides for point in side.points}
    if len(points) > 1:
        raise UsageError(f"activations of several hook points: {', '.join(sorted(points))}")
    return sweep(
        sides,
        measures,
        pairings=("same text", "parallel text", "parallel text across models"),
        layers=layers,
        point=min(points, default=""),
        statistics=statistics,
        self_pairs=self_pairs or len(sides) == 1,
        device=device,
        workers=workers,
    )
