"""Methods that weigh by how far the models agree: model stock and SCE."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from repsim.merging.arrays import Along, Array, Part, Stream, combined, gram, namespace, squares_of
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.methods.cuts import Kept, cuts_of
from repsim.merging.methods.election import elected
from repsim.merging.parameters import parameter

#: Denominators of model stock below this are singular, as in mergekit.
_SINGULAR = 1e-6
#: Mean square of a delta from which on the squares of its entries are no numbers near 0 in float32.
_SMALL = 1e-30


@merge_method(
    name="model_stock",
    label="model stock",
    definition="t mean_i w_i + (1 - t) w_0, t = N c / (1 + (N - 1) c), c the mean pairwise "
    "cosine of the deltas; t clamped to [0, 1] unless `clamp: false`",
    reference="Jang et al. 2024, arXiv:2403.19522",
    needs_base=True,
    idempotent=True,
)
def model_stock(
    stream: Stream, *, context: TensorContext, clamp: bool = True, filter_wise: bool = False
) -> Iterator[Array]:
    """Step from the base towards the average by how well the deltas agree, or each row's."""
    along: Along = "row" if filter_wise and stream.shape else "tensor"
    cosine = _mean_cosine(_products(stream, along), context)
    n = stream.models
    denominator = 1 + (n - 1) * cosine
    singular = np.abs(denominator) < _SINGULAR
    if singular.any():
        context.note("the deltas cancel out: the base is kept")
    t = np.where(singular, 0.0, n * cosine / np.where(singular, 1.0, denominator))
    context.values.update(t=float(t.mean()), cosine=float(cosine.mean()))
    if bool(((t < 0) | (t > 1)).any()):
        what = f"the deltas point apart (mean cosine {float(cosine.mean()):.2f})"
        if clamp:  # else, at a cosine of -0.9, two models lead 18 deltas beyond the base
            context.note(f"{what}: t clamped to [0, 1], least {float(t.min()):.3g}")
            t = t.clip(0, 1)
        else:
            context.note(f"{what}: t = {float(t.min()):.3g} leads away from them")
    share: Any = t / n if along == "row" else float(t[0]) / n
    yield from combined(stream, [share] * n, "deltas", along)


def _products(stream: Stream, along: Along) -> Any:
    """Inner products of the deltas; squares that float32 cannot hold are taken in float64."""
    with np.errstate(all="ignore"):
        found = gram(stream, "deltas", along, exact=False)
    squares = found[range(len(found)), range(len(found))]
    plain = np.isfinite(found).all() and bool((squares > _SMALL * stream.entries).all())
    return found if plain else gram(stream, "deltas", along)


def _mean_cosine(products: Any, context: TensorContext) -> Any:
    """Mean over pairs of models of their cosines; 0 for zero deltas."""
    count = len(products)
    norms = np.sqrt(products[range(count), range(count)])
    if bool((norms == 0).any()):
        context.note("a delta is zero: its cosine is taken as 0")
    units = np.where(norms == 0, 1.0, norms)
    pairs = list(itertools.combinations(range(count), 2))
    cosines = [products[i, j] / (units[i] * units[j]) for i, j in pairs]
    return np.clip(np.mean(cosines, axis=0), -1, 1)


@merge_method(
    name="sce",
    label="SCE",
    definition="keep the `select_topk` share of positions of largest variance over models; weight "
    "each model by its mean squared delta there; drop entries m_i against the sign of sum_i d_i; "
    "w_0 + sum_i(a_i d_i m_i) / sum_i(a_i m_i)",
    reference="Wan et al. 2024 (FuseChat), arXiv:2408.07990; mergekit",
    needs_base=True,
    idempotent=True,
)
def sce(
    stream: Stream, *, context: TensorContext, select_topk: float = parameter(1.0, above=0, most=1)
) -> Iterator[Array]:
    """Select, calculate, erase; the weights are found in float64, small deltas keep theirs."""
    cut = None
    if select_topk < 1:
        varying = sum(_varying(part) for part in stream.parts())
        if varying == 0:
            context.note("the models are identical here: their common delta is taken whole")
        else:
            kept = int(select_topk * varying)
            if kept == 0:
                context.note("select_topk keeps no entry of so small a tensor: the base is kept")
            ((cut,),) = cuts_of(stream, lambda part: [_variance(part)], [[kept]])
    squares = np.zeros(stream.models)
    kept_here = None if cut is None else Kept(cut)
    for part in stream.parts():
        squares += [squares_of(delta) for delta in _selected(part, kept_here)]
    shares = [float(share) for share in squares / (squares.sum() or 1.0)]
    kept_here = None if cut is None else Kept(cut)
    for part in stream.parts():
        merged = elected(_selected(part, kept_here), shares, shares, context, zero=0.0)
        merged += part.base
        yield merged


def _varying(part: Part) -> int:
    """In how many places the models differ; a variance of equal numbers can round away from 0."""
    first, *others = part.tensors
    differs = first != first
    for other in others:
        differs |= other != first
    return int(namespace(first).count_nonzero(differs))


def _variance(part: Part) -> Array:
    """Variance over models of the deltas, entry by entry."""
    divisor = "ddof" if isinstance(part.base, np.ndarray) else "correction"
    return namespace(part.base).stack(part.deltas).var(0, **{divisor: 0})


def _selected(part: Part, kept: Kept | None) -> list[Array]:
    deltas = part.deltas
    if kept is not None:
        chosen = kept(_variance(part))
        for delta in deltas:
            delta *= chosen
    return deltas
