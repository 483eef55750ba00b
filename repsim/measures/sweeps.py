"""All layers x all layers x languages x model pairs, each layer factorised once.

Small decompositions gain nothing from threads: worker processes take units, one thread each.
"""

from __future__ import annotations

import copyreg
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
from repsim.measures.limits import HELD_BYTES
from repsim.measures.plan import Layers, SweepUnit, plan_sweep
from repsim.measures.statistics import Statistics

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
    units: Sequence[SweepUnit], *, device: str | None = None, workers: int = 1,
    memory: int = HELD_BYTES,
) -> Iterator[tuple[SweepUnit, SimilarityTable]]:  # fmt: skip
    """Compute units; yield each with its table as soon as it is done.

    Args:
        units: From `plan_sweep`.
        device: Where to compute; on an accelerator everything stays in this process.
        workers: Processes; 0 for as many as there are cores. Measures that another process cannot
            import (of the script that runs, or not registered) are computed in this one.
        memory: Bytes of layers that are held, by all processes; beyond, layers are read again.

    Raises:
        InputError: As `run_unit`; what was yielded before is done.
        ResourceError: A unit takes more memory than there is.
    """
    count = min(workers or available_cores(), len(units))
    measures = {id(m): m for unit in units for m in unit.measures}.values()
    alone = count <= 1 or len(units) < FEWEST_UNITS or not all(map(_importable, measures))
    if alone or (device or "cpu") != "cpu":
        cache = FeatureCache(device=device, max_bytes=memory)
        yield from ((unit, run_unit(unit, cache)) for unit in units)
        return
    with Pool(count) as pool:
        each = min(WORKER_BYTES, memory // count)
        run = functools.partial(_run_in_worker, max_bytes=each)
        for unit, rows in pool.completed(run, units):
            yield unit, SimilarityTable(rows, sweep_info([unit]))


def _importable(measure: Measure) -> bool:
    """Whether another process finds the same measure under its name."""
    if measure.function.__module__ == "__main__" or measure.name not in MEASURES:
        return False
    return get_measure(measure.name).function is measure.function


def _run_in_worker(unit: SweepUnit, max_bytes: int) -> list[dict[str, Any]]:
    # Rows, not a table: Arrow imports pandas.
    return unit_rows(unit, _worker_cache(max_bytes))


_worker_cache = functools.cache(lambda max_bytes: FeatureCache(max_bytes=max_bytes))


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
    memory: int = HELD_BYTES,
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
        memory: See `run_units`.

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
        for unit, table in run_units(units, device=device, workers=workers, memory=memory):
            done[unit] = table
            bar.update(unit.comparisons)
    return with_q_values(SimilarityTable.concat([done[unit] for unit in units]))
