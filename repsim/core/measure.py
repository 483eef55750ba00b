"""What a similarity measure declares about itself; all else is derived from the declaration."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from repsim.core.errors import UsageError
from repsim.core.formatting import ShownAsTable


class Rung(enum.Enum):
    """Rung of the invariance ladder: what a measure is blind to."""

    L0 = "identity"
    L1 = "permutation"
    L2 = "orthogonal"
    L3 = "linear"
    L4 = "local"

    @property
    def blind_to(self) -> str:
        """What measures of this rung do not see."""
        return {
            "L0": "nothing",
            "L1": "the order of units",
            "L2": "rotation",
            "L3": "any invertible linear map",
            "L4": "monotone changes of distance",
        }[self.name]


class Invariance(enum.Enum):
    """A transformation of one side that leaves a measure unchanged."""

    TRANSLATION = "translation"
    ISOTROPIC_SCALING = "isotropic scaling"
    PERMUTATION = "permutation of units"
    ORTHOGONAL = "orthogonal"
    INVERTIBLE_LINEAR = "invertible linear"


Direction = Literal["similarity", "distance"]
Cost = Literal["cheap", "expensive"]
Reads = Literal["activations", "logits"]


@dataclasses.dataclass(frozen=True)
class Measure(ShownAsTable):
    """Declaration of one measure, callable on two `[n, d]` arrays.

    Attributes:
        name: Name in the API, the tables and the command line.
        label: Name in figures.
        rung: Rung of the invariance ladder; None for a measure that stands beside it.
        direction: Whether larger means more similar.
        range: Smallest and largest possible value; None where unbounded.
        identity_value: Value on identical input; NaN if it depends on the data.
        symmetric: Whether `m(X, Y) == m(Y, X)`.
        invariances: Transformations of either side that leave it unchanged; any that is not listed
            changes it.
        min_samples: Least number of rows for which it is defined.
        definition: One or two sentences, with a formula in plain text.
        reference: Source of the definition.
        estimator: What is known about bias and intervals, in words.
        function: `f(x, y, **params) -> float` on prepared features.
        prepare: Makes prepared features of an array (idempotent).
        params: Parameter -> default value.
        grid: Optional fast path `f(xs, ys, **params) -> [len(xs), len(ys)]`, equal to the function
            on each pair.
        max_width_ratio: Largest d/n at which the value says anything; None if it always does. Mean
            CCA is identically 1 as soon as n <= d. Or a function of the parameters.
        rows_for: `f(**params)`, fewest rows at which the value says anything; None if that does not
            depend on parameters. (Under `min_samples` there is no value.)
        holds_pairs: `[n, n]` arrays that its value holds at once; 0 if only rows and tiles.
        needs_equal_width: Whether both sides must have the same number of units.
        undefined_on_constant: Whether constant input has no value (NaN).
        null_value: Expected value on independent data where that is a constant (0 for debiased
            CKA); None where it depends on n and d and must come from shuffles.
        cost: "cheap" if a pair of layers needs a product or a count once each side is factorised:
            it is tested on all layer pairs and computed on parallel text. "expensive" if every pair
            needs more (a decomposition, an assignment): few shuffles, at matched depth. Or a
            function of the parameters that says which.
        pair_matrix: `f(x, **params) -> [n, n]` symmetric, where the (cheap) measure is the cosine
            of one such matrix per side; shuffling the rows then only re-indexes it.
        shuffled: Fast path `f(xs, ys, orders, mask, **params) -> [orders, len(xs), len(ys)]` with
            the rows of Y shuffled; where there is neither, shuffled features are evaluated.
        left_out: Closed form `f(xs, ys, mask, **params) -> [units, len(xs), len(ys)]` without each
            row, or each document where the features know them; where there is none, the measure is
            evaluated without each of some groups.
        by_row: `f(xs, ys, **params) -> [n, len(xs), len(ys)]` where the measure is the mean over
            rows of their scores among all rows (neighbours): leaving rows out thins out the
            neighbours of the others too, so the jackknife leaves out scores.
        held: `f(xs, ys, mask, **params)` as `left_out`, but to first order: what was optimised
            (a rotation, a matching, directions) is held; None where that is not good enough.
        by_document: For measures that are sums over documents or pairs of them,
            `f(xs, ys, weights, mask, **params)`: values under the null, `[draws, len(xs),
            len(ys)]`, where `weights` `[draws, documents]` multiply what each contributes, and the
            value without each document. Where there is none, documents are shuffled.
        moments: `f(xs, ys, **params)`: mean, standard deviation and skewness, `[len(xs), len(ys)]`
            each, of the value over all shuffles of independent rows; nothing is shuffled then.
        documents_apart: Whether pairs of rows of one document are left out where documents are
            known, or a function of the parameters.
        no_interval: Why the measure has no valid interval; empty where it has one.
        approximate: `f(documents) -> str`: what of p and interval is only approximate with so many
            documents (0 where rows are the unit), as measured on planted data; empty if nothing.
        reads: What its arrays are: "activations", or the "logits" that a model puts out.
        aliases: Other names, each with the parameters that it stands for.
    """

    name: str
    label: str
    rung: Rung | None
    direction: Direction
    range: tuple[float | None, float | None]
    identity_value: float
    invariances: frozenset[Invariance]
    min_samples: int
    definition: str
    reference: str
    estimator: str
    function: Callable[..., float] = dataclasses.field(repr=False)
    prepare: Callable[[Any], Any] = dataclasses.field(repr=False)
    symmetric: bool = True
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    grid: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    max_width_ratio: float | Callable[..., float | None] | None = None
    rows_for: Callable[..., int] | None = dataclasses.field(default=None, repr=False)
    holds_pairs: int = 0
    needs_equal_width: bool = False
    undefined_on_constant: bool = True
    null_value: float | None = None
    cost: Cost | Callable[..., Cost] = "cheap"
    pair_matrix: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    shuffled: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    left_out: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    by_row: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    held: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    by_document: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    moments: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    documents_apart: bool | Callable[..., bool] = False
    no_interval: str = ""
    approximate: Callable[[int], str] | None = dataclasses.field(default=None, repr=False)
    reads: Reads = "activations"
    aliases: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def is_expensive(self) -> bool:
        """Whether every pair of layers needs a decomposition or an assignment of its own."""
        cost = self.cost(**self.params) if callable(self.cost) else self.cost
        return cost == "expensive"

    @property
    def matrix(self) -> Callable[[Any], Any] | None:
        """The pair-matrix form at the measure's own parameters, if it has one."""
        if self.pair_matrix is None or self.is_expensive:
            return None
        return functools.partial(self.pair_matrix, **self.params)

    @property
    def width_limit(self) -> float | None:
        """Largest d/n at which the value says anything, at the measure's own parameters."""
        limit = self.max_width_ratio
        return limit(**self.params) if callable(limit) else limit

    @property
    def leaves_out_documents(self) -> bool:
        """`documents_apart` at the measure's own parameters."""
        apart = self.documents_apart
        return apart(**self.params) if callable(apart) else apart

    @property
    def least_rows(self) -> int | None:
        """Fewest rows at which the value says anything, at the measure's own parameters."""
        return self.rows_for(**self.params) if self.rows_for else None

    @property
    def arrow(self) -> str:
        """Direction as shown in headers: up for similarities, down for distances."""
        return "↑" if self.direction == "similarity" else "↓"

    def resolve(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults overridden by `params`, which the measure must have."""
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            known = ", ".join(self.params) or "none"
            raise UsageError(
                f"measure '{self.name}' has no parameter '{unknown[0]}'", hint=f"it has: {known}"
            )
        return {**self.params, **params}

    def with_params(self, **params: Any) -> Measure:
        """The same measure with other defaults."""
        return dataclasses.replace(self, params=self.resolve(params))

    def __call__(self, x: Any, y: Any, **params: Any) -> float:
        """Value on `x` `[n, d1]` and `y` `[n, d2]` (numpy or torch), rows matched."""
        return float(self.function(self.prepare(x), self.prepare(y), **self.resolve(params)))

    def describe(self) -> dict[str, Any]:
        """The declaration as a JSON-able dictionary, for tables and reports."""
        return {
            "name": self.name,
            "label": self.label,
            "rung": self.rung.name if self.rung else None,
            "blind_to": self.rung.blind_to if self.rung else None,
            "direction": self.direction,
            "range": list(self.range),
            "identity_value": None if math.isnan(self.identity_value) else self.identity_value,
            "null_value": self.null_value,
            "symmetric": self.symmetric,
            "invariances": sorted(i.value for i in self.invariances),
            "min_samples": self.min_samples,
            "max_width_ratio": self.width_limit,
            "least_rows": self.least_rows,
            "cost": "expensive" if self.is_expensive else "cheap",
            "no_interval": self.no_interval,
            "reads": self.reads,
            "params": json.loads(json.dumps(dict(self.params))),
            "definition": self.definition,
            "estimator": self.estimator,
            "reference": self.reference,
        }


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only parameters of a measure's function, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
