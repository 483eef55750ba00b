"""Election of signs: per entry, the votes that have the sign of their sum are merged."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from repsim.merging.arrays import Array, cast, kind_of_array, namespace, weighted_sum
from repsim.merging.base import TensorContext

#: Sums of weights of smaller magnitude count as zero: nothing is divided by them.
ZERO_WEIGHT = 1e-8
_CANCELLED_IN_PLACES = "the weights that agree add up to zero in places: added up there, no average"


def elected(
    votes: Sequence[Array],
    scales: Sequence[float],
    counts: Sequence[float] | None,
    context: TensorContext,
    *,
    zero: float = ZERO_WEIGHT,
) -> Array:
    """Per entry, the sum of scaled votes with the sign of their sum, over their `counts`."""
    kind = kind_of_array(votes[0])
    positive = weighted_sum(votes, [1.0] * len(votes)) >= 0
    agree = [(vote > 0) == positive for vote in votes]
    shares = [cast(agrees, kind) for agrees in agree]
    own = (
        vote * (share if scale == 1 else share * scale)
        for vote, share, scale in zip(votes, shares, scales, strict=True)
    )
    total = functools.reduce(operator.iadd, own)
    if counts is None:
        return total
    divisor = namespace(total).zeros_like(total)
    for vote, agrees, count in zip(votes, agree, counts, strict=True):
        agrees &= vote != 0
        divisor += cast(agrees, kind) if count == 1 else cast(agrees, kind) * count
    if min(counts) >= zero:
        divisor += divisor == 0
    else:
        empty = abs(divisor) < zero
        # Only weights of both signs can cancel; then the sum stands, as where nobody agrees.
        if min(counts) < 0 and bool((empty & (total != 0)).any()):
            context.note(_CANCELLED_IN_PLACES)
        divisor += empty
    total /= divisor
    return total
