"""The contract kit of measures: turns what a measure declares about itself into tests.

What is declared must hold, and what is not declared must be seen to break: an invariance that was
forgotten is as wrong in a table of invariances as one that was made up.

Example:
    >>> from repsim.measures import get_measure
    >>> check_measure(get_measure("unit_correlation"))
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repsim.core import InputError, Invariance, Measure, RepsimError, Rung
from repsim.measures import Features, compute_grid
from repsim.measures.intervals import left_out_values
from repsim.measures.null import draw_permutations, null_values

Array = np.ndarray
Check = Callable[[Measure], None]

ROWS = 100
TOLERANCE = 1e-7
#: A change that counts as one: far over rounding, far under any effect on the data used here.
CHANGE = 1e-5

#: What each rung of the ladder must be blind to, and must not be.
RUNG_BLIND = {
    Rung.L0: (set(), {Invariance.PERMUTATION}),
    Rung.L1: ({Invariance.PERMUTATION}, {Invariance.ORTHOGONAL}),
    Rung.L2: ({Invariance.PERMUTATION, Invariance.ORTHOGONAL}, {Invariance.INVERTIBLE_LINEAR}),
}


def check_measure(measure: Measure) -> None:
    """Run all checks of a measure, registered or not; AssertionError lists all that do not hold."""
    require(measure_checks(measure), f"measure '{measure.name}'")


def require(checks: Sequence[tuple[str, Callable[[], None]]], whose: str) -> None:
    """Make all checks; AssertionError lists those that fail."""
    failures = []
    for name, check in checks:
        try:
            check()
        except (AssertionError, RepsimError) as failure:
            failures.append(f"{name}: {failure}")
    assert not failures, f"{whose} breaks its contract:\n" + "\n".join(failures)


def measure_checks(measure: Measure) -> list[tuple[str, Callable[[], None]]]:
    """The checks of a measure by name, for parametrised tests."""
    checks: list[tuple[str, Callable[[], None]]] = [
        (name, functools.partial(check, measure)) for name, check in CHECKS.items()
    ]
    for invariance in Invariance:
        declared = invariance in measure.invariances
        name = f"{'blind to' if declared else 'sees'} {invariance.value}"
        checks.append((name, functools.partial(_check_invariance, measure, invariance)))
    return checks


# -- data ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two related representations of the same rows."""

    x: Array
    y: Array

    def mapped(self, change: Callable[[Array], Array]) -> Iterator[_Pair]:
        """The pair with one side changed, for either side."""
        yield _Pair(change(self.x), self.y)
        yield _Pair(self.x, change(self.y))


def _pair(seed: int, *, widths: tuple[int, int], scale: float = 1.0, rows: int = ROWS) -> _Pair:
    """Noisy linear views of a shared latent, of unequal spread per unit, off the origin."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(rows, 4))
    sides = []
    for width in widths:
        signal = latent @ rng.normal(size=(4, width)) + 0.7 * rng.normal(size=(rows, width))
        spread = rng.uniform(0.5, 2.0, size=width)
        sides.append(scale * (signal * spread + rng.normal(size=width)))
    return _Pair(*sides)


def _pairs(measure: Measure) -> list[_Pair]:
    """At two scales: some measures saturate on large distances."""
    widths = (6, 6) if measure.needs_equal_width else (7, 5)
    return [_pair(1, widths=(6, 6)), _pair(2, widths=widths), _pair(3, widths=(6, 6), scale=0.1)]


def _map_of(invariance: Invariance, seed: int = 0) -> Callable[[Array], Array]:
    """A random transformation of the given kind, far from the identity."""
    rng = np.random.default_rng(seed)

    def change(x: Array) -> Array:
        width = x.shape[1]
        if invariance is Invariance.TRANSLATION:
            return x + 3 * x.std() * rng.normal(size=width)
        if invariance is Invariance.ISOTROPIC_SCALING:
            return 2.7 * x
        if invariance is Invariance.PERMUTATION:
            return x[:, np.roll(rng.permutation(width), 1)]
        rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
        if invariance is Invariance.ORTHOGONAL:
            return x @ rotation
        stretch = np.geomspace(0.3, 3.0, width)
        return x @ (rotation * stretch) @ np.linalg.qr(rng.normal(size=(width, width)))[0]

    return change


def _close(a: float, b: float, tolerance: float = TOLERANCE) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))


# -- checks --------------------------------------------------------------------------------------


def _check_invariance(measure: Measure, invariance: Invariance) -> None:
    worst, pairs = 0.0, _pairs(measure)
    for seed, pair in enumerate(pairs):
        before = measure(pair.x, pair.y)
        for changed in pair.mapped(_map_of(invariance, seed)):
            after = measure(changed.x, changed.y)
            worst = max(worst, abs(after - before) / max(1.0, abs(before)))
    if invariance in measure.invariances:
        assert worst <= TOLERANCE, f"declared, but changes the value by {worst:.2g}"
    else:
        assert worst > CHANGE, f"not declared, but changes the value by {worst:.2g} only"


def _check_rung(measure: Measure) -> None:
    blind, seeing = RUNG_BLIND.get(measure.rung, (set(), set())) if measure.rung else (set(), set())
    assert blind <= measure.invariances, f"rung {measure.rung} is blind to {blind}"
    assert not seeing & measure.invariances, f"rung {measure.rung} sees {seeing}"


def _check_identity(measure: Measure) -> None:
    for pair in _pairs(measure):
        value = measure(pair.x, pair.x.copy())
        expected = measure.identity_value
        assert math.isnan(expected) or _close(value, expected), f"{value}, declared {expected}"
    best = measure.range[1 if measure.direction == "similarity" else 0]
    if best is not None and not math.isnan(measure.identity_value):
        assert measure.identity_value == best, f"the best value of the range is {best}"


def _check_range(measure: Measure) -> None:
    low, high = measure.range
    for pair in _pairs(measure):
        noise = np.random.default_rng(9).normal(size=pair.y.shape)
        for y in (pair.y, -pair.y, noise, pair.y * 1e3):
            value = measure(pair.x, y)
            assert low is None or value >= low - TOLERANCE, f"{value} is under {low}"
            assert high is None or value <= high + TOLERANCE, f"{value} is over {high}"


def _check_symmetry(measure: Measure) -> None:
    gaps = [abs(measure(p.x, p.y) - measure(p.y, p.x)) for p in _pairs(measure)]
    if measure.symmetric:
        assert max(gaps) <= TOLERANCE, f"declared symmetric, but differs by {max(gaps):.2g}"
    else:
        assert max(gaps) > CHANGE, "declared asymmetric, but both orders agree"


def _check_least_rows(measure: Measure) -> None:
    least, pair = measure.min_samples, _pairs(measure)[0]
    measure(pair.x[:least], pair.y[:least])
    if least == 1:
        return
    message = _error(InputError, measure, pair.x[: least - 1], pair.y[: least - 1])
    assert str(least) in message, f"the error does not say how many rows: {message}"


def _error(kind: type[RepsimError], measure: Measure, x: Array, y: Array, **params: object) -> str:
    try:
        value = measure(x, y, **params)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}, but the value {value}")


def _check_malformed(measure: Measure) -> None:
    pair = _pairs(measure)[0]
    broken = pair.y.copy()
    broken[3, 1] = np.nan
    assert "row 3, column 1" in _error(InputError, measure, pair.x, broken)
    message = _error(InputError, measure, pair.x, pair.y[:-1])
    assert "[100, 6]" in message, f"the error does not name the shapes: {message}"
    assert "[99, 6]" in message, f"the error does not name the shapes: {message}"
    _error(RepsimError, measure, pair.x, pair.y, no_such_parameter=1)


def _check_widths(measure: Measure) -> None:
    pair = _pair(4, widths=(7, 5))
    if measure.needs_equal_width:
        assert "equal width" in _error(InputError, measure, pair.x, pair.y)
    else:
        assert math.isfinite(measure(pair.x, pair.y))
    wide = _pair(5, widths=(60, 60), rows=50)
    undefined = measure.max_width_ratio is not None and math.isnan(measure(wide.x, wide.y))
    assert undefined or math.isfinite(measure(wide.x, wide.y)), "n < d has no finite value"


def _check_degenerate(measure: Measure) -> None:
    pair = _pairs(measure)[0]
    partly = pair.x.copy()
    partly[:, 2] = 0.1
    assert math.isfinite(measure(partly, pair.y)), "one constant column leaves no finite value"
    value = measure(np.full_like(pair.x, 0.1), pair.y)
    if measure.undefined_on_constant:
        assert math.isnan(value), f"constant input gives {value}, declared undefined"


def _check_precision(measure: Measure) -> None:
    for pair in _pairs(measure):
        exact = measure(pair.x, pair.y)
        rough = measure(*(Features(a, dtype=torch.float32) for a in (pair.x, pair.y)))
        assert _close(exact, rough, 1e-3), f"float32 gives {rough}, float64 {exact}"


def _check_grid(measure: Measure) -> None:
    layers = [_pair(seed, widths=(6, 6)) for seed in range(3)]
    xs = [Features(pair.x) for pair in layers[:2]]
    ys = [Features(pair.y) for pair in layers] + xs[:1]
    grid = compute_grid(measure, xs, ys)
    assert grid.shape == (2, 4), f"the grid has shape {grid.shape}"
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            value = measure(x, y)
            assert _close(grid[i, j], value), f"the grid has {grid[i, j]}, the pair {value}"


def _check_shuffles(measure: Measure) -> None:
    pair = _pairs(measure)[0]
    order = np.random.default_rng(8).permutation(ROWS)
    x, y = Features(pair.x), Features(pair.y)
    measure(x, y)
    indexed, fresh = measure(x, y.permuted(order)), measure(pair.x, pair.y[order])
    assert _close(indexed, fresh), f"shuffled features give {indexed}, shuffled rows {fresh}"
    both = measure(x.permuted(order), y.permuted(order)), measure(pair.x[order], pair.y[order])
    assert _close(*both), f"shuffled features give {both[0]}, shuffled rows {both[1]}"


def _check_fast_paths(measure: Measure) -> None:
    """Pair matrix, null and jackknife give what the measure gives on shuffled or fewer rows."""
    widths = (6, 6)
    xs = [Features(_pair(seed, widths=widths, rows=24).x) for seed in range(2)]
    ys = [Features(_pair(seed, widths=widths, rows=24).y) for seed in range(2)]
    orders = draw_permutations(24, 2, seed=0)
    plain = [compute_grid(measure, xs, [y.permuted(order) for y in ys]) for order in orders]
    gap = np.abs(null_values(measure, xs, ys, orders) - plain)
    assert not (gap > CHANGE).any(), f"the fast null is off by {np.nanmax(gap):.2g}"
    if measure.left_out is not None:
        fast = measure.left_out(xs, ys, None, **measure.params)
        gap = np.abs(fast - left_out_values(measure, xs, ys, np.arange(24)))
        assert not (gap > CHANGE).any(), f"the closed jackknife is off by {np.nanmax(gap):.2g}"


class _Decompositions(TorchDispatchMode):
    """Notes which decompositions are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A square root is no QR decomposition, and `bitwise_invert` inverts no matrix.
        if re.search(r"svd|eig|(?<!s)qr|cholesky|solve|inv(?!ert)", func.__name__):
            self.seen.add(func.__name__)
        return func(*args, **(kwargs or {}))


def _check_cost(measure: Measure) -> None:
    """A cheap measure decomposes nothing for a pair whose sides are known."""
    if measure.is_expensive:
        return
    pair = _pairs(measure)[0]
    x, y = Features(pair.x), Features(pair.y)
    measure(x, y)
    made_up = contextlib.suppress(ValueError, TypeError)  # what the replaced assignment leads to
    assignment = mock.patch("scipy.optimize.linear_sum_assignment")
    with _Decompositions() as found, assignment as matched, made_up:
        measure(x, y)
    needed = [*found.seen, *["an assignment"] * matched.called]
    assert not needed, f"declared cheap, but every pair needs {', '.join(needed)}"


def _check_null(measure: Measure) -> None:
    if measure.null_value is None:
        return
    rng = np.random.default_rng(6)
    draws = [measure(rng.normal(size=(50, 10)), rng.normal(size=(50, 10))) for _ in range(30)]
    gap, error = abs(np.mean(draws) - measure.null_value), np.std(draws) / math.sqrt(len(draws))
    assert gap <= 4 * error, f"independent data give {np.mean(draws):.3f} +- {error:.3f} on average"


def _check_noise(measure: Measure) -> None:
    """More noise on one side must look less similar, on average over draws."""
    sign = 1 if measure.direction == "similarity" else -1
    levels = []
    for strength in (0.05, 0.5, 5.0):
        values = []
        for seed in range(4):
            x = _pair(seed, widths=(6, 6), scale=0.3).x
            noise = np.random.default_rng(seed + 50).normal(size=x.shape)
            values.append(sign * measure(x, x + strength * x.std() * noise))
        levels.append(float(np.mean(values)))
    falling = levels[0] >= levels[1] >= levels[2] and levels[0] > levels[2]
    if measure.rung is None:
        falling = levels[0] > max(levels[1:])
    assert falling, f"rising noise gives {[sign * v for v in levels]}"


def _check_description(measure: Measure) -> None:
    described = json.loads(json.dumps(measure.describe(), allow_nan=False))
    for field in ("name", "label", "definition", "reference", "estimator"):
        assert described[field], f"'{field}' is empty"
    pair = _pairs(measure)[0]
    default, explicit = measure(pair.x, pair.y), measure(pair.x, pair.y, **measure.params)
    assert _close(default, explicit), "the declared defaults are not the function's"


CHECKS: dict[str, Check] = {
    "description": _check_description,
    "rung": _check_rung,
    "identity": _check_identity,
    "range": _check_range,
    "symmetry": _check_symmetry,
    "least rows": _check_least_rows,
    "malformed input": _check_malformed,
    "widths": _check_widths,
    "degenerate input": _check_degenerate,
    "precision": _check_precision,
    "grid equals pairs": _check_grid,
    "shuffled features equal shuffled rows": _check_shuffles,
    "fast paths": _check_fast_paths,
    "cost": _check_cost,
    "null": _check_null,
    "noise": _check_noise,
}
