"""One unit of a sweep: values, null, interval and partial value of every wanted pair of layers.

Precision: up to `FLOAT64_ROWS` sentences everything is float64. Above, means, norms and sums over
many products are, and so is whatever float32 could not decide: neighbours that lie nearly equally
far, arrays of which a few rows are most, matchings. All values agree with float64 to 1e-6.

`partial` takes each value without the covariates of both sides (Cui et al. 2022, arXiv 2202.00095):
a shared scalar of 10 % of the variance (sentence length) gives unrelated sides a debiased CKA of
0.7.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from repsim.core import Activations, InputError, Measure, Rung, UsageError
from repsim.core.files import hash_bytes
from repsim.core.pool import available_cores
from repsim.measures.base import compute_grid, get_measure
from repsim.measures.beside import beside
from repsim.measures.cautions import caution, document_cautions, row_cautions, statistics_cautions
from repsim.measures.features import Features, as_features
from repsim.measures.intervals import Interval
from repsim.measures.limits import HELD_BYTES, holding
from repsim.measures.memory import FLOAT64_ROWS, is_paged, require_memory
from repsim.measures.plan import SweepUnit, identity
from repsim.measures.serial import serial_note

#: Rungs on which unrelated data score the higher the wider they are, unless a measure is debiased.
WIDTH_LIFTS = (Rung.L1, Rung.L2, Rung.L3)

#: Bytes for each number of a layer that was used long ago, from which on its factors are dropped.
LEAST_HELD = 10

#: Sentences under which every cell is marked: intervals are wide, neighbours are few.
FEW_SENTENCES = 50


class FeatureCache:
    """`Features` of layers, kept from unit to unit until their factors exceed a number of bytes.

    What is larger than an SVD (Gram matrix and distances of many sentences) is dropped after each
    measure; the rest stays, so that a layer is factorised once in a sweep.

    Args:
        device: Where to compute; the CPU if left out.
        max_bytes: Layers that were used longest ago are dropped above this; where the layers of
            two sides alone exceed it, they are read again instead of held.
    """

    def __init__(
        self, *, device: torch.device | str | None = None, max_bytes: int = HELD_BYTES
    ) -> None:
        self.device = device
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[Any, ...], Features] = OrderedDict()
        self._bytes: dict[tuple[Any, ...], int] = {}
        self._touched: set[tuple[Any, ...]] = set()

    def layers(
        self,
        acts: Activations,
        point: str,
        numbers: Sequence[int],
        covariates: np.ndarray,
        documents: np.ndarray | None = None,
    ) -> list[Features]:
        """Features of some layers of one side, without the covariates `[n, c]` (none if c is 0).

        Raises:
            InputError: NaN or infinite activations, named by model, language, point and layer.
        """
        side = hash_bytes(json.dumps(identity(acts), sort_keys=True, default=str).encode())
        removed = hash_bytes(covariates.tobytes()) if covariates.shape[1] else ""
        side += "" if documents is None else " by document"

        def layer(number: int, removed: str) -> Features:
            key = (side, point, number, removed)
            if key not in self._kept:
                self._kept[key] = (
                    layer(number, "").residualised(covariates)
                    if removed
                    else self._read(acts, point, number, documents)
                )
            self._kept.move_to_end(key)
            self._touched.add(key)
            return self._kept[key]

        return [layer(number, removed) for number in numbers]

    def trim(self) -> None:
        """Drop n x n factors; then, until the rest fits, what layers used longest ago hold."""
        for key in self._touched:
            features = self._kept[key]
            svd = 8 * min(features.n, features.d) * (features.n + features.d + 1) + 8 * features.n
            features.forget(larger_than=svd)
            self._bytes[key] = features.held_bytes
        self._touched.clear()
        total = sum(self._bytes.values())
        for key, features in self._kept.items():
            if total > self.max_bytes and self._bytes[key] > LEAST_HELD * features.n * features.d:
                # Neighbours and numbers take the longest to compute and are small.
                features.forget(larger_than=features.n * features.d)
                total += features.held_bytes - self._bytes[key]
                self._bytes[key] = features.held_bytes
        while total > self.max_bytes and len(self._kept) > 1:
            total -= self._drop(next(iter(self._kept)))

    def drop(self, covariates: np.ndarray) -> None:
        """Forget the layers without these covariates, where no other unit needs them."""
        removed = hash_bytes(covariates.tobytes())
        for key in [key for key in self._kept if key[-1] == removed]:
            self._drop(key)

    def _drop(self, key: tuple[Any, ...]) -> int:
        self._touched.discard(key)
        del self._kept[key]
        return self._bytes.pop(key, 0)

    def _read(
        self, acts: Activations, point: str, layer: int, documents: np.ndarray | None
    ) -> Features:
        array = _checked(acts, point, layer)
        dtype = torch.float64 if len(acts) <= FLOAT64_ROWS else torch.float32
        features = Features(array, dtype=dtype, device=self.device, documents=documents)
        widths = [array.shape[1]] * (2 * len(acts.layers[point]))
        if not is_paged(len(acts), widths):
            return features
        again = acts.array(point, layer)
        fresh = again.flags.writeable and not np.may_share_memory(array, again)
        return features.paged(lambda: acts.array(point, layer), fresh=fresh)


def _checked(acts: Activations, point: str, layer: int) -> np.ndarray:
    """The array of one layer, of the stated number of rows and finite."""
    array = acts.array(point, layer)
    on = f" on {acts.language}" if acts.language else ""
    which = f"activations of {acts.model.name}{on}, {point} layer {layer},".replace(",  ", ", ")
    if array.shape[0] != len(acts):
        raise InputError(f"{which} have {array.shape[0]} rows for {len(acts)} sentences")
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise InputError(
            f"{which} are NaN or infinite in {len(rows)} of {len(array)} sentences, the first is "
            f"'{acts.ids[rows[0]]}'",
            hint="extract in float32 or bfloat16: float16 overflows on massive activations",
        )
    return array


@contextlib.contextmanager
def _threads_of_this_process() -> Iterator[int]:
    """No more threads than cores, with which small decompositions get tens of times slower."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    count = max(1, min(before, available_cores()))
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield count
    finally:
        torch.set_num_threads(before)


def unit_rows(unit: SweepUnit, cache: FeatureCache | None = None) -> list[dict[str, Any]]:
    """Compute one unit, as plain rows: for those that need no table, and machines without Arrow.

    Args:
        unit: From `plan_sweep`.
        cache: Shared by the units of a sweep.

    Returns:
        One dictionary per wanted layer pair and measure; what was not computed is NaN or missing.

    Raises:
        InputError: NaN activations, or too few documents for intervals over documents.
        UsageError: A covariate that the activations do not carry.
        ResourceError: It takes more memory than there is.
    """
    cache = cache if cache is not None else FeatureCache()
    rows: list[dict[str, Any]] = []
    with _threads_of_this_process(), holding(cache.max_bytes):
        none = np.empty((len(unit.a), 0))
        covariates = _shared_covariates(unit.a, unit.b, unit.statistics.covariates)
        labels, _ = unit.grouping
        widths = [
            features.d
            for side, numbers in ((unit.a, unit.layers_a), (unit.b, unit.layers_b))
            for features in cache.layers(side, unit.point, numbers, none, labels)
        ]
        require_memory(
            len(unit.a), widths, unit.measures, unit.statistics, documents=labels is not None
        )
        for measure in unit.measures:
            rows += _rows_of(unit, measure, cache, none, covariates)
            cache.trim()
        if covariates.shape[1] and unit.a.language != unit.b.language:
            # What two languages leave together belongs to this pair alone.
            cache.drop(covariates)
    return rows


def _rows_of(
    unit: SweepUnit, measure: Measure, cache: FeatureCache, none: np.ndarray, covariates: np.ndarray
) -> list[dict[str, Any]]:
    labels, reason = unit.grouping
    xs = cache.layers(unit.a, unit.point, unit.layers_a, none, labels)
    ys = cache.layers(unit.b, unit.point, unit.layers_b, none, labels)
    wanted = unit.mask()
    if measure.needs_equal_width and xs[0].d != ys[0].d:
        note = f"needs equal widths: {xs[0].d} and {ys[0].d}"
        return [_row(unit, measure, i, j, {"note": note}) for i, j in np.argwhere(wanted)]
    values = compute_grid(measure, xs, ys, wanted)
    tested = wanted & unit.matched() if measure.is_expensive else wanted
    free = None
    if covariates.shape[1]:
        free = (
            cache.layers(unit.a, unit.point, unit.layers_a, covariates, labels),
            cache.layers(unit.b, unit.point, unit.layers_b, covariates, labels),
        )
    columns, found = beside(measure, xs, ys, values, unit.statistics, tested=tested, free=free)
    cells = {"value": values, **columns}
    if labels is None and unit.statistics.permutations:
        reason = "; ".join(filter(None, (reason, serial_note(xs[-1], ys[-1]))))
    if labels is not None and unit.statistics.permutations:
        reason = "; ".join(document_cautions(measure, labels))
    rows = []
    for i, j in np.argwhere(wanted):
        numbers: dict[str, Any] = {name: array.item(i, j) for name, array in cells.items()}
        notes = [_note(measure, xs[i], ys[j], found, (i, j)), reason]
        if unit.statistics.groups and tested[i, j] and np.isfinite(values[i, j]):
            ends = None if found is None else np.array([found.low[i, j], found.high[i, j]])
            notes += statistics_cautions(measure, xs[i], ends)
        note = "; ".join(filter(None, notes))
        rows.append(_row(unit, measure, i, j, {**numbers, "note": note}))
    return rows


def _row(unit: SweepUnit, measure: Measure, i: int, j: int, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_a": unit.a.model.name,
        "language_a": unit.a.language or None,
        "layer_a": unit.layers_a[i],
        "model_b": unit.b.model.name,
        "language_b": unit.b.language or None,
        "layer_b": unit.layers_b[j],
        "point": unit.point or None,
        "pairing": unit.pairing,
        "measure": measure.name,
        "params": json.dumps(measure.describe()["params"], sort_keys=True),
        "n": len(unit.a),
        "seed": unit.statistics.seed,
        **more,
    }


def _note(
    measure: Measure, x: Features, y: Features, found: Interval | None, cell: tuple[int, int]
) -> str:
    """Everything that a reader of this cell must be warned of, worded alike for all cells."""
    notes = row_cautions(measure, x, y)
    warning = caution(measure, x.n, x.d, y.d)
    if warning:
        notes.insert(0, warning)
    elif measure.rung in WIDTH_LIFTS and measure.null_value is None and x.n < 5 * max(x.d, y.d):
        notes.append(
            f"n = {x.n} is under 5 x width {max(x.d, y.d)}: unrelated data score high too, read it "
            "against its null"
        )
    if x.n < FEW_SENTENCES:
        notes.append(f"only {x.n} sentences: intervals are wide, or missing")
    biased = found is not None and abs(found.bias[cell]) > found.standard_error[cell] > 0
    if biased or (found is not None and measure.held and measure.null_value is None):
        notes.append("depends on n: the interval is for the value at this n")
    return "; ".join(notes)


# -- covariates -----------------------------------------------------------------------------------


def _shared_covariates(a: Activations, b: Activations, names: Sequence[str]) -> np.ndarray:
    """Covariates of both sides, one column each, those that are equal on both sides once."""
    columns: list[np.ndarray] = []
    for name in names:
        for side in (a, b):
            if name not in side.covariates:
                raise UsageError(
                    f"the activations of {side.model.name} on {side.language} carry no covariate "
                    f"'{name}'",
                    hint=f"they carry: {', '.join(side.covariates) or 'none'}; to remove none: "
                    "Statistics(covariates=())",
                )
            column = np.asarray(side.covariates[name], dtype=np.float64)
            if not any(np.array_equal(column, known) for known in columns):
                columns.append(column)
    return np.stack(columns, axis=1) if columns else np.empty((len(a), 0))


def partial(name: str | Measure, x: Any, y: Any, covariates: Any, **params: Any) -> float:
    """A measure after the covariates were regressed out of every unit of both sides.

    Args:
        name: Name of a measure, or the measure.
        x: `[n, d1]`.
        y: `[n, d2]`, same rows.
        covariates: `[n]` or `[n, c]`.
        **params: Parameters of the measure.

    Raises:
        InputError: Covariates of another length, not finite, or as many as rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> length = rng.normal(size=(300, 1))
        >>> x, y = (rng.normal(size=(300, 8)) + length * rng.normal(size=(1, 8)) for _ in range(2))
        >>> raw = get_measure("cka")(x, y)
        >>> bool(raw > 0.5), bool(abs(partial("cka", x, y, length)) < 0.05)
        (True, True)
    """
    left, right = (as_features(side).residualised(covariates) for side in (x, y))
    return get_measure(name)(left, right, **params)
