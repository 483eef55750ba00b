"""Declaring a measure, finding it by name, and applying it with its checks."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.measure import Cost, Direction, Invariance, Measure, Reads, Rung, defaults_of
from repsim.core.registry import Registry
from repsim.measures.algebra import half
from repsim.measures.cautions import caution, row_cautions
from repsim.measures.features import Features, as_features, require_same_rows
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
    *,
    name: str,
    label: str,
    rung: Rung | None,
    direction: Direction,
    range: tuple[float | None, float | None],  # noqa: A002 - the field's name in the declaration
    invariances: Iterable[Invariance],
    min_samples: int,
    definition: str,
    reference: str,
    estimator: str,
    identity_value: float | None = None,
    symmetric: bool = True,
    aliases: Mapping[str, Mapping[str, Any]] | None = None,
    cost: Cost | Callable[..., Cost] = "cheap",
    grid: Callable[..., np.ndarray] | None = None,
    pair_matrix: Callable[..., Any] | None = None,
    shuffled: Callable[..., np.ndarray] | None = None,
    left_out: Callable[..., np.ndarray] | None = None,
    by_row: Callable[..., np.ndarray] | None = None,
    held: Callable[..., np.ndarray | None] | None = None,
    by_document: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None,
    moments: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    documents_apart: bool | Callable[..., bool] = False,
    no_interval: str = "",
    approximate: Callable[[int], str] | None = None,
    max_width_ratio: float | Callable[..., float | None] | None = None,
    rows_for: Callable[..., int] | None = None,
    holds_pairs: int = 0,
    needs_equal_width: bool = False,
    undefined_on_constant: bool = True,
    null_value: float | None = None,
    reads: Reads = "activations",
    register: bool = True,
) -> Callable[[PairFunction], Measure]:
    """Declare `f(x: Features, y: Features, *, param=default) -> float` as a measure.

    The checks that follow from the declaration (equal numbers of rows, least n, equal width,
    constant input) are made before `f` is called. Null, interval and partial value of a sweep need
    nothing more; `repsim.testing.check_measure` tests what is declared.

    Args:
        name: Name in the API, the tables and the command line.
        label: Name in figures.
        rung: Rung of the invariance ladder; None beside it.
        direction: "similarity" or "distance".
        range: Smallest and largest possible value; None where unbounded.
        invariances: Transformations of either side that leave it unchanged, completely.
        min_samples: Least number of rows for which it is defined.
        definition: One or two sentences, with a formula in plain text.
        reference: Source of the definition.
        estimator: What is known about bias and intervals.
        identity_value: Value on identical input; 1 for a similarity and 0 for a distance if left
            out, NaN if it depends on the data.
        symmetric: Whether the sides may be exchanged.
        aliases: Other names, each with the parameters that it stands for.
        cost: "cheap" or, where every pair of layers needs a decomposition or an assignment of its
            own, "expensive": few shuffles at matched depth, and left out on parallel text.
        grid: Fast path `f(xs, ys, **params)` over all pairs; made from `pair_matrix` if left out.
        pair_matrix: `f(x, **params) -> [n, n]` whose cosine the measure is; see `core.Measure`.
        shuffled: Fast path of the null; see `core.Measure`.
        left_out: Closed form of the jackknife; see `core.Measure`.
        by_row: Scores of rows that the measure is the mean of; see `core.Measure`.
        held: The jackknife with the optimum held; see `core.Measure`.
        by_document: Null and jackknife of documents at once; see `core.Measure`.
        moments: Moments of the null of independent rows; see `core.Measure`.
        documents_apart: Whether it leaves out pairs of rows of one document; see `core.Measure`.
        no_interval: Why it has no valid interval, if it has none.
        approximate: What of its p and interval is only approximate; see `core.Measure`.
        max_width_ratio: Largest d/n at which the value says anything, or a function of the
            parameters.
        rows_for: `f(**params)`: fewest rows at which the value says anything.
        holds_pairs: `[n, n]` arrays that its value holds at once.
        needs_equal_width: Whether both sides must have the same number of units.
        undefined_on_constant: Whether constant input has no value (NaN).
        null_value: Expected value on independent data where that is a constant.
        reads: What its arrays are: "activations" or "logits".
        register: Whether `measure`, `sweep` and the command line find it by name.

    Raises:
        DuplicateNameError: The name or an alias is taken.

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

    def decorate(function: PairFunction) -> Measure:
        declared = Measure(
            name=name,
            label=label,
            rung=rung,
            direction=direction,
            range=range,
            identity_value=_default_identity(identity_value, direction),
            symmetric=symmetric,
            invariances=frozenset(invariances),
            min_samples=min_samples,
            definition=definition,
            reference=reference,
            estimator=estimator,
            function=function,
            prepare=as_features,
            params=defaults_of(function),
            grid=grid,
            max_width_ratio=max_width_ratio,
            rows_for=rows_for,
            holds_pairs=holds_pairs,
            needs_equal_width=needs_equal_width,
            undefined_on_constant=undefined_on_constant,
            null_value=null_value,
            cost=cost,
            pair_matrix=pair_matrix,
            shuffled=shuffled,
            left_out=left_out,
            by_row=by_row,
            held=held,
            by_document=by_document,
            moments=moments,
            documents_apart=documents_apart,
            no_interval=no_interval,
            approximate=approximate,
            reads=reads,
            aliases=aliases or {},
        )
        for params in declared.aliases.values():
            declared.resolve(params)
        checked = _with_checks(declared)
        if register:
            MEASURES.add(name, checked, aliases=tuple(declared.aliases))
        return checked

    return decorate


def _default_identity(value: float | None, direction: Direction) -> float:
    if value is not None:
        return value
    return 1.0 if direction == "similarity" else 0.0


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
    chosen: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    mask: np.ndarray | None = None,
    **params: Any,
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


def _grid(
    chosen: Measure,
    xs: Sequence[Features],
    ys: Sequence[Features],
    mask: np.ndarray | None,
    values: Mapping[str, Any],
) -> np.ndarray:
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

    def checked_grid(xs: Sequence[Features], ys: Sequence[Features], **params: Any) -> np.ndarray:
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

    def grid(xs: Sequence[Features], ys: Sequence[Features], **params: Any) -> np.ndarray:
        matrix = declared.with_params(**params).matrix
        if matrix is None:
            return np.array([[declared.function(x, y, **params) for y in ys] for x in xs])
        return cosine_grid(xs, ys, lambda x: half(matrix(x)))

    return grid
