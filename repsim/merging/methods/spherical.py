"""Interpolation along great circles, by shares of the tensors that follow from inner products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.merging.arrays import Along, Array, Stream, Vectors, combined, gram
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.parameters import parameter, per_model

#: Norms at or below this count as zero.
_TINY = 1e-8
#: Cosine from which on an angle hangs on digits that float32 lacks.
_CLOSE = 0.999
#: Cosine beyond which `slerp` takes the straight line, as in mergekit.
_NEARLY_PARALLEL = 0.9995
#: The same for `nuslerp`: an angle of 1e-7, where both lines agree to float64. (mergekit's bound,
#: 1 - cos^2 <= 1e-16, lies below the rounding of the cosine itself.)
_PARALLEL = 1 - 5e-15
_ZERO = "a zero tensor has no direction: straight line taken"
_SHORTENS = "a zero tensor has no direction: it only shortens the result"
_OPPOSITE = "a direction is opposite to the mean: it has no shortest way, left out"
_ANTIPODAL = (
    "antipodal tensors have no unique great circle: straight line taken, which passes near 0"
)


def _shares(
    stream: Stream, t: float, context: TensorContext, parallel: float,
    vectors: Vectors = "tensors", along: Along = "tensor",
) -> list[Any]:  # fmt: skip
    """Shares of two tensors (rows, columns): along the great circle, or straight."""
    with np.errstate(all="ignore"):
        products = gram(stream, vectors, along, exact=False)
        cosine, zero = _cosines(products)
        if not bool((np.abs(cosine) < _CLOSE).all() and np.isfinite(products).all()):
            products = gram(stream, vectors, along)
            cosine, _ = _cosines(products)
    if zero.any():
        context.note(_ZERO)
    if bool((cosine <= -parallel).any()):
        context.note(_ANTIPODAL)
    straight = ~(np.abs(cosine) < parallel) | zero
    angle = np.arccos(np.where(straight, 0.0, cosine))
    sine = np.where(straight, 1.0, np.sin(angle))
    pair = [np.where(straight, s, np.sin(s * angle) / sine) for s in (1 - t, t)]
    return [float(share[0]) for share in pair] if along == "tensor" else pair


def _cosines(products: Any) -> tuple[Any, Any]:
    """Cosines of two models, 0 where one of them is zero, and where that is."""
    aa, ab, bb = products[0, 0], products[0, 1], products[1, 1]
    zero = np.minimum(aa, bb) <= _TINY**2
    lengths = np.where(zero, 1.0, np.sqrt(aa) * np.sqrt(bb))
    return np.clip(np.where(zero, 0.0, ab / lengths), -1, 1), zero


@merge_method(
    name="slerp",
    label="SLERP",
    definition="[sin((1-t) th) w_1 + sin(t th) w_2] / sin th, th the angle of the flattened "
    "tensors; straight line if |cos th| > 0.9995",
    reference="Shoemake 1985; mergekit",
    max_models=2,
    symmetric=False,
    idempotent=True,
    endpoints=True,
)
def slerp(
    stream: Stream, *, context: TensorContext, t: float = parameter(0.5, least=0, most=1)
) -> Iterator[Array]:
    """Spherical interpolation from the first tensor (t = 0) to the second (t = 1)."""
    yield from combined(stream, _shares(stream, t, context, _NEARLY_PARALLEL))


@merge_method(
    name="nuslerp",
    label="NuSLERP",
    definition="slerp at t = a_2 / (a_1 + a_2), of the deltas if there is a base; straight line "
    "only within 1e-7 of parallel or antipodal",
    reference="mergekit",
    max_models=2,
    takes_base=True,
    idempotent=True,
    endpoints=True,
)
def nuslerp(
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    row_wise: bool = False,
    column_wise: bool = False,
) -> Iterator[Array]:
    """SLERP by weights, of the whole tensor, of each row (last axis), or of each column."""
    if row_wise and column_wise:
        raise UsageError("nuslerp can be row_wise or column_wise, not both")
    first, second = weight
    t = 0.5
    if abs(first + second) < 1e-6:
        context.note("the weights add up to zero: both models count the same")
    else:
        t = second / (first + second)
    if not 0 <= t <= 1:
        context.note(f"weights of both signs extrapolate beyond the models (t = {t:.3g})")
    along: Along = "row" if row_wise else "column" if column_wise else "tensor"
    vectors: Vectors = "deltas" if stream.has_base else "tensors"
    shares = _shares(stream, t, context, _PARALLEL, vectors, along)
    yield from combined(stream, shares, vectors, along)


def _directions(products: Any, context: TensorContext) -> tuple[Any, Any]:
    """Norms of the models, and the cosines of their directions (0 for those that have none)."""
    norms = np.sqrt(np.diagonal(products[..., 0]))
    if norms.min() <= _TINY:
        context.note(_SHORTENS)
    inverse = np.where(norms > _TINY, 1 / np.where(norms > _TINY, norms, 1.0), 0.0)
    return norms, products[..., 0] * np.outer(inverse, inverse)


def _norm(shares: Any, cosines: Any) -> float:
    """Norm of a sum of directions; what rounding leaves of one that vanishes counts as zero."""
    square = float(shares @ cosines @ shares)
    return math.sqrt(square) if square > 1e-14 * float(np.abs(shares).sum()) ** 2 else 0.0


@merge_method(
    name="multislerp",
    label="multi-SLERP",
    definition="the direction of the weighted mean of directions (where mergekit's step of the "
    "Karcher mean starts, and stays: its projected tangents add up to zero), times "
    "sum_i a_i |w_i|; of the deltas if there is a base",
    reference="mergekit (Goddard 2025)",
    takes_base=True,
    idempotent=True,
    endpoints=True,
)
def multislerp(
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    normalize_weights: bool = True,
) -> Iterator[Array]:
    """Barycentric SLERP of any number of tensors."""
    weights, total = np.array(weight), sum(weight)
    if normalize_weights:
        if abs(total) < _TINY:
            raise UsageError(
                f"the weights of tensor '{context.name}' add up to zero: no mean direction",
                hint="use other weights",
            )
        weights = weights / total
    vectors: Vectors = "deltas" if stream.has_base else "tensors"
    norms, cosines = _directions(gram(stream, vectors), context)
    length = _norm(weights, cosines)
    shares = weights
    if length == 0:
        context.note("directions cancel out: no mean direction, weighted sum taken")
    else:
        unit = np.where(norms > _TINY, norms, np.inf)
        shares = weights / unit / length * float(weights @ norms)
    yield from combined(stream, [float(share) for share in shares], vectors)


@merge_method(
    name="karcher",
    label="Karcher mean",
    definition="fixed point u of the mean of directions on the sphere (u <- exp_u(mean_i log_u "
    "u_i)), times the mean norm",
    reference="Karcher 1977; mergekit",
    idempotent=True,
)
def karcher(
    stream: Stream,
    *,
    context: TensorContext,
    max_iter: int = parameter(10, least=0),
    tol: float = 1e-5,
) -> Iterator[Array]:
    """Riemannian centre of mass of the directions, all with equal weight."""
    norms, cosines = _directions(gram(stream), context)
    there = np.flatnonzero(norms > _TINY)
    shares = np.zeros(len(norms))
    if len(there):
        centre = _centre(cosines[np.ix_(there, there)], max_iter, tol, context)
        shares[there] = centre / norms[there] * (norms.sum() / len(norms))
    yield from combined(stream, [float(share) for share in shares])


def _centre(cosines: Any, max_iter: int, tol: float, context: TensorContext) -> Any:
    """The centre as a sum of directions: its shares. It never leaves what they span."""
    count = len(cosines)
    centre = np.full(count, 1 / count)
    if _norm(centre, cosines) < tol:
        context.note("directions cancel out: no unique mean, started from the first model")
        centre = np.eye(count)[0]
    centre = centre / _norm(centre, cosines)
    for _ in range(max_iter):
        tangent = np.zeros(count)
        for place, cosine in enumerate(np.clip(cosines @ centre, -1, 1)):
            angle = math.acos(cosine)
            if math.sin(angle) > _TINY:
                tangent += angle / math.sin(angle) * (np.eye(count)[place] - cosine * centre)
            elif cosine < 0:
                context.note(_OPPOSITE)
        tangent /= count
        length = _norm(tangent, cosines)
        if length < tol:
            break
        centre = centre * math.cos(length) + tangent * (math.sin(length) / length)
        centre = centre / _norm(centre, cosines)
    return centre
