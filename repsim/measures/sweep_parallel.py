"""Units of a sweep on several cores: one process each, one thread in each.

Decompositions of a few hundred columns gain nothing from threads, but pairs of models and languages
do not depend on each other. A worker process makes the same plan from the same request and is then
told numbers of units only; what it reads, it reads from the activation files.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from repsim.core import Activations, SimilarityTable
from repsim.core.pool import Pool, available_cores
from repsim.measures.base import get_measure
from repsim.measures.sweep_plan import Statistics, SweepUnit, plan_sweep
from repsim.measures.sweep_run import FeatureCache, run_unit

#: Factors that each worker keeps; there are as many workers as cores.
WORKER_BYTES = 1 << 30
#: A worker costs a few seconds to start; below so many units it is not worth it.
FEWEST_UNITS = 4


@dataclasses.dataclass(frozen=True)
class SweepRequest:
    """What to sweep, in words that another process understands; see `plan_sweep`.

    Attributes:
        activations: One per model and language, stored in files.
        measures: Names or aliases.
        pairings: Which texts are paired.
        layers: Which layer pairs.
        point: Hook point.
        statistics: What is computed beside the values.
    """

    activations: tuple[Activations, ...]
    measures: tuple[str, ...]
    pairings: tuple[str, ...]
    layers: Any
    point: str
    statistics: Statistics

    def units(self) -> list[SweepUnit]:
        """The plan, the same in every process."""
        if not self.measures or not self.pairings:
            return []
        return plan_sweep(
            self.activations,
            self.measures,
            pairings=self.pairings,
            layers=self.layers,
            point=self.point,
            statistics=self.statistics,
        )


def units_of(requests: Sequence[SweepRequest]) -> list[SweepUnit]:
    """Units of several requests, in order: what the numbers of `run_units` mean."""
    return [unit for request in requests for unit in request.units()]


def run_units(
    requests: Sequence[SweepRequest],
    wanted: Sequence[int],
    *,
    device: str | None = None,
    workers: int | None = None,
) -> Iterator[tuple[int, SimilarityTable]]:
    """Compute some units; yield each with its number as soon as it is done.

    Args:
        requests: What to sweep.
        wanted: Numbers of the units to compute, as in `units_of(requests)`.
        device: Where to compute; on an accelerator everything stays in this process.
        workers: Processes; as many as there are cores if left out.

    Raises:
        InputError: As `run_unit`; what was yielded before is done.
    """
    count = min(workers or available_cores(), len(wanted))
    modules = _modules_of(requests)
    alone = count <= 1 or len(wanted) < FEWEST_UNITS or "__main__" in modules
    if alone or (device or "cpu") != "cpu":
        units, cache = units_of(requests), FeatureCache(device=device)
        for number in wanted:
            yield number, run_unit(units[number], cache)
        return
    with Pool(count, start=_start_worker, arguments=(tuple(requests), modules)) as pool:
        yield from pool.completed(_run_number, wanted)


def _modules_of(requests: Sequence[SweepRequest]) -> tuple[str, ...]:
    """Modules that define the measures: a worker imports them, and cannot import a script."""
    names = {name for request in requests for name in request.measures}
    return tuple(sorted({get_measure(name).function.__module__ for name in names}))


_WORKER: dict[str, Any] = {}


def _start_worker(requests: tuple[SweepRequest, ...], modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
    _WORKER["units"] = units_of(requests)
    _WORKER["cache"] = FeatureCache(max_bytes=WORKER_BYTES)


def _run_number(number: int) -> SimilarityTable:
    return run_unit(_WORKER["units"][number], _WORKER["cache"])
