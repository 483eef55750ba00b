"""Maximum match: which units of each side does the other side's matched part reproduce?"""

from __future__ import annotations

from torch import Tensor

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import truncated_svd
from repsim.measures.base import PERMUTATION, SCALING, TRANSLATION, similarity_measure
from repsim.measures.features import RANK_TOLERANCE, Features
from repsim.measures.linear import WIDEST


def _reproduced(units: Tensor, others: Tensor, epsilon: float) -> Tensor:
    """The columns of `units`, each of length 1, that lie within `epsilon` of the others' span."""
    if others.shape[1] == 0:
        return units[:, :0]
    basis = truncated_svd(others, RANK_TOLERANCE)[0]
    rest = 1 - (basis.mT @ units).square().sum(dim=0)
    return units[:, rest.clamp(min=0).sqrt() <= epsilon]


@similarity_measure(
    name="maximum_match",
    label="Maximum match",
    rung=Rung.L3,
    range=(0.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION),
    min_samples=3,
    cost="expensive",
    definition="Share of units in the largest two sets of which each unit lies within epsilon = "
    "0.5 of its length of the span of the other set; columns centered, constant units left out.",
    reference="Wang, Hu, Gu, Hu, Wu, He, Hopcroft 2018, arXiv:1810.11750",
    estimator="1 when n <= d; a share of units, often 0 or 1 at a fixed epsilon.",
    no_interval="a share of units, often the same whichever sentences are left out",
    max_width_ratio=WIDEST,
)
def maximum_match(x: Features, y: Features, *, epsilon: float = 0.5) -> float:
    """Share of units in the maximum match."""
    if not 0 < epsilon < 1:
        raise UsageError(f"epsilon={epsilon} is not possible", hint="between 0 and 1")
    left, right = (_living(side) for side in (x, y))
    everything = left.shape[1] + right.shape[1]
    kept = -1
    while kept != (kept := left.shape[1] + right.shape[1]):
        left = _reproduced(left, right, epsilon)
        right = _reproduced(right, left, epsilon)
    return kept / everything


def _living(x: Features) -> Tensor:
    """Centered units that vary, each of length 1, `[n, units]` float64."""
    columns = x.unit_columns.double()
    return columns[:, (columns != 0).any(dim=0)]
