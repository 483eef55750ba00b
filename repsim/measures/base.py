"""Declaring a measure, finding it by name, and applying it with its checks."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.measure import Invariance, Measure, defaults_of
from repsim.core.registry import Registry
from repsim.measures.algebra import half
from repsim.measures.cautions import caution, row_cautions
from repsim.measures.features import Features, Mask, Side, as_features, require_same_rows
from repsim.measures.layer_blocks import in_blocks
from repsim.measures.pair_matrices import cosine_grid

MEASURES: Registry[Measure] = Registry(
    "measure", entry_point_group="repsim.measures", see="repsim measures"
)

TRANSLATION = Invariance.TRANSLATION
SCALING = Invariance.ISOTROPIC_SCALING
PERMUTATION = Invariance.PERMUTATION
ORTHOGONAL = Invariance.ORTHOGONAL
INVERTIBLE = Invariance.INVERTIBLE_LINEAR
ROTATION_BLIND = (TRANSLATION, SCALING, PERMUTATION, ORTHOGONAL)

PairFunction = Callable[..., float]


class MeasureWarning(UserWarning):
    """A value that is computed as defined but says little, and why."""


def similarity_measure(
    *, register: bool = True, **declared: Any
) -> Callable[[PairFunction], Measure]:
    """Declare `f(x: Features, y: Features, *, param=default) -> float` as a measure.

    The checks that follow from the declaration (equal numbers of rows, least n, equal width,
    constant input) are made before `f` is called. Null, interval and partial value of a sweep need
    nothing more; `repsim.testing.check_measure` tests what is declared.

    Args:
        register: Whether `measure`, `sweep` and the command line find it by name.
        **declared: Attributes of `core.Measure`, where each is explained. Left out: `function`,
            `prepare` and `params`, which come from the function; a measure is a symmetric
            similarity unless it says otherwise; `identity_value` is 1 for a similarity and 0 for a
            distance; `grid` is made from `pair_matrix`.

    Raises:
        DuplicateNameError: The name or an alias is taken.
        TypeError: An attribute that measures do not have, or one that is missing.

    Example:
        >>> @similarity_measure(
        ...     name="mean_gap", label="Gap", rung=None, direction="distance", range=(0, None),
        ...     invariances=[PERMUTATION], min_samples=1, definition="|mean x - mean y|",
        ...     reference="-", estimator="-", undefined_on_constant=False, register=False)
        ... def mean_gap(x, y):
        ...     return float((x.mean.mean() - y.mean.mean()).abs())
        >>> mean_gap([[1.0], [3.0]], [[0.0], [1.0]])
        1.5
    """
    given: dict[str, Any] = {"direction": "similarity", **declared}
    given.setdefault("identity_value", 0.0 if given["direction"] == "distance" else 1.0)
    given["invariances"] = frozenset(declared.get("invariances", ()))

    def decorate(function: PairFunction) -> Measure:
        whole = Measure(
            function=function, prepare=as_features, params=defaults_of(function), **given
        )
        for params in whole.aliases.values():
            whole.resolve(params)
        checked = _with_checks(whole)
        if register:
            MEASURES.add(whole.name, checked, aliases=tuple(whole.aliases))
        return checked

    return decorate


def get_measure(name: str | Measure) -> Measure:
    """A measure by its name or an alias; a measure is returned as it is.

    An alias that binds parameters keeps its name, so that two settings of one measure can stand in
    one table.

    Raises:
        UsageError: No such name; the nearest ones are given.

    Example:
        >>> get_measure("svcca_099").params["threshold"]
        0.99
        >>> get_measure("cka_linear_debiased").name
        'cka'
    """
    if isinstance(name, Measure):
        return name
    known = MEASURES[name]
    params = known.aliases.get(name)
    return dataclasses.replace(known.with_params(**params), name=name) if params else known


def list_measures() -> list[Measure]:
    """All measures under their canonical names, in the order of registration."""
    return [MEASURES[name] for name in MEASURES.names()]


def measure(
    x: Any, y: Any, name: str | Measure = "cka", *, strict: bool = False, **params: Any
) -> float:
    """Value of one measure on two representations of the same rows.

    Args:
        x: `[n, d1]`, numpy or torch or `Features`.
        y: `[n, d2]`, row i from the same sentence as row i of `x`.
        name: Name or alias of a measure, or the measure.
        strict: Refuse, instead of warning, where n is too small for the value to say anything, or
            a few rows decide it.
        **params: Parameters of the measure, as `get_measure(name).params` lists them.

    Returns:
        The value; NaN where the measure is undefined.

    Raises:
        UsageError: Unknown measure or parameter.
        InputError: Malformed arrays, different n, n under the measure's least, or (strict) a value
            that says nothing.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> round(measure(x, 2 * x + 1, "cka"), 6)
        1.0
    """
    chosen = get_measure(name).with_params(**params)
    left, right = as_features(x), as_features(y)
    value = chosen(left, right)
    notes = [caution(chosen, left.n, left.d, right.d), *row_cautions(chosen, left, right)]
    for note in filter(None, notes):
        if strict:
            raise InputError(note, hint="use more sentences, or cka")
        warnings.warn(note, MeasureWarning, stacklevel=2)
    return value


def compute_grid(
    chosen: Measure, xs: Side, ys: Side, mask: Mask = None, **params: Any
) -> np.ndarray:
    """All pairs of two lists, by the measure's fast path where it has one.

    Args:
        chosen: The measure.
        xs: One side, each `[n, d_i]`.
        ys: The other, same rows.
        mask: Boolean `[len(xs), len(ys)]`, pairs to compute; None for all.
        **params: Parameters of the measure.

    Returns:
        `[len(xs), len(ys)]` float64, NaN outside the mask.

    Raises:
        InputError: As for a single pair.
    """
    values = chosen.resolve(params)
    return in_blocks(chosen, lambda a, b, wanted: _grid(chosen, a, b, wanted, values), xs, ys, mask)


def _grid(chosen: Measure, xs: Side, ys: Side, mask: Mask, values: Mapping[str, Any]) -> np.ndarray:
    """The grid of some layers, all of which fit into memory."""
    if mask is not None and not mask.all():
        layers = len({id(f) for f in (*xs, *ys)})
        if chosen.matrix is not None and 2 * mask.sum() > layers:
            # A pass over all layers costs less than one for every two.
            return np.where(mask, _grid(chosen, xs, ys, None, values), np.nan)
        cells = np.full((len(xs), len(ys)), np.nan)
        for i, j in np.argwhere(mask):
            # A grid of one cell takes the measure's fast path, where it has one.
            cells[i, j] = compute_grid(chosen, [xs[i]], [ys[j]], **values)[0, 0]
        return cells
    if chosen.grid is not None:
        return np.asarray(chosen.grid(xs, ys, **values), dtype=np.float64)
    grid = np.empty((len(xs), len(ys)))
    mirrored = chosen.symmetric and len(xs) == len(ys) and all(map(_is, xs, ys))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            if mirrored and j < i:
                grid[i, j] = grid[j, i]
            else:
                grid[i, j] = chosen.function(x, y, **values)
    return grid


def _is(a: object, b: object) -> bool:
    return a is b


def _require_possible(declared: Measure, x: Features, y: Features) -> None:
    """Check two sides against a declaration."""
    require_same_rows(x, y)
    if x.n < declared.min_samples:
        raise InputError(
            f"'{declared.name}' needs at least {declared.min_samples} rows, got {x.n}",
            hint="give it more sentences; a few hundred make most measures readable",
        )
    if declared.needs_equal_width and x.d != y.d:
        raise InputError(
            f"'{declared.name}' compares unit i with unit i and needs equal widths, "
            f"got {x.d} and {y.d}",
            hint="use a measure that is blind to the units' order or basis: permutation, cka",
        )


def _with_checks(declared: Measure) -> Measure:
    """The same declaration with functions that check their input first."""
    function = declared.function

    @functools.wraps(function)
    def checked(x: Features, y: Features, **params: Any) -> float:
        _require_possible(declared, x, y)
        if declared.undefined_on_constant and (x.is_constant or y.is_constant):
            return math.nan
        return float(function(x, y, **params))

    fast = declared.grid or (_matrix_grid(declared) if declared.pair_matrix else None)
    if fast is None:
        return dataclasses.replace(declared, function=checked)

    def checked_grid(xs: Side, ys: Side, **params: Any) -> np.ndarray:
        for x in xs:
            for y in ys:
                _require_possible(declared, x, y)
        values = np.array(fast(xs, ys, **params), dtype=np.float64)
        if declared.undefined_on_constant:
            values[[x.is_constant for x in xs], :] = math.nan
            values[:, [y.is_constant for y in ys]] = math.nan
        return values

    return dataclasses.replace(declared, function=checked, grid=checked_grid)


def _matrix_grid(declared: Measure) -> Callable[..., np.ndarray]:
    """All pairs as cosines of the pair matrices; one by one at parameters without that form."""

    def grid(xs: Side, ys: Side, **params: Any) -> np.ndarray:
        matrix = declared.with_params(**params).matrix
        if matrix is None:
            return np.array([[declared.function(x, y, **params) for y in ys] for x in xs])
        return cosine_grid(xs, ys, lambda x: half(matrix(x)))

    return grid
