"""Arithmetic on differences to a base, which may be thinned: task arithmetic, TIES, DARE, DELLA."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from repsim.core.errors import UsageError
from repsim.merging.arrays import (
    Array,
    Stream,
    cast,
    kind_of_array,
    like,
    namespace,
    to_numpy,
    weighted_sum,
)
from repsim.merging.base import MergeMethod, TensorContext, WholeModels, merge_method
from repsim.merging.methods.cuts import Cut, Kept, cuts_of, kth_largest
from repsim.merging.methods.election import ZERO_WEIGHT, elected
from repsim.merging.parameters import parameter, per_model

_CANCELLED = "the weights add up to zero: deltas added up, not averaged"
_FEWER_DROPPED = "fewer large entries dropped than gamma asks for: density would not be kept"
_NONE_KEPT = "density keeps no entry of so small a tensor: that model adds nothing here"
_LOST = "every entry of a delta was dropped at random: that model adds nothing here"
#: How mergekit scales a thinned tensor back, as against leaving it as it is.
_NORMS = ("none", "l1")
#: How what was dropped at random is made up for. `unbiased` (the papers): each entry over its
#: probability of being kept, so that its expectation is the original. `l1` (mergekit): the whole
#: tensor back to its L1 norm, biased towards small entries and unstable on small tensors.
_RESCALES = ("unbiased", "l1", "none")
#: Bounds of a share that is kept.
DENSITY: dict[str, Any] = {
    "above": 0, "most": 1, "hint": "a model of density 0 adds nothing: leave it out",
}  # fmt: skip

#: What is left of a part of a delta; parts are given in order.
Thin = Callable[[Array], Array]


def _keep(delta: Array) -> Array:
    return delta


def _merged(
    stream: Stream,
    context: TensorContext,
    thinners: Callable[[], Sequence[Thin]],
    weight: Sequence[float],
    lambda_: float,
    *,
    normalize: bool,
    elect: bool,
    rescale: str = "none",
    after: bool = False,
    width: int = 1,
) -> Iterator[Array]:
    """Thin deltas (`thinners`: anew each pass), weigh, elect signs if asked, add the base."""
    divisor = sum(weight) if normalize and not elect else 1.0
    if abs(divisor) < ZERO_WEIGHT:
        context.note(_CANCELLED)
        divisor = 1.0
    thin, factors = thinners(), [1.0] * len(weight)
    if rescale == "l1":
        factors = _l1_scales(stream, thin, width)
        if any(isinstance(each, _AtRandom) for each in thin):
            thin = [each.again() if isinstance(each, _AtRandom) else each for each in thin]
        else:
            thin = thinners()
    for part in stream.parts(width):
        votes = [each(delta) for each, delta in zip(thin, part.deltas, strict=True)]
        for vote, factor in zip(votes, factors, strict=True):
            if factor != 1:
                vote *= factor
        if elect:
            ones = [1.0] * len(votes)
            if not after:
                votes = [v if w == 1 else v * w for v, w in zip(votes, weight, strict=True)]
            scales, counts = (weight, ones) if after else (ones, weight)
            merged = elected(votes, scales, counts if normalize else None, context)
        else:
            merged = weighted_sum(votes, weight)
            merged /= divisor
        merged *= lambda_
        merged += part.base
        yield merged
    for each in thin:
        if isinstance(each, _AtRandom) and each.lost:
            context.note(_LOST)


def _l1_scales(stream: Stream, thin: Sequence[Thin], width: int) -> list[float]:
    """Per model, its L1 norm before over that after thinning; 1 where nothing is left."""
    sums = np.zeros((2, len(thin)))
    for part in stream.parts(width):
        for place, delta in enumerate(part.deltas):
            sums[0, place] += float(abs(delta).sum())
            sums[1, place] += float(abs(thin[place](delta)).sum())
    return [float(before / left) if left > 0 else 1.0 for before, left in sums.T]


@merge_method(
    name="task_arithmetic",
    label="task arithmetic",
    definition="w_0 + lambda * sum_i a_i d_i, the sum divided by sum_i a_i if `normalize`",
    reference="Ilharco et al. 2023, arXiv:2212.04089",
    min_models=1,
    needs_base=True,
    elementwise=True,
    endpoints=True,
)
def task_arithmetic(
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    lambda_: float = 1.0,
    normalize: bool = False,
) -> Iterator[Array]:
    """Weighted sum of the differences to the base."""
    whole = [_keep] * stream.models
    yield from _merged(
        stream, context, lambda: whole, weight, lambda_, normalize=normalize, elect=False
    )


# -- trimmed by magnitude ------------------------------------------------------------------------


def _largest(stream: Stream, kept: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """Per model, the cuts that keep some numbers of entries of largest magnitude of its delta."""
    return cuts_of(stream, lambda part: [abs(delta) for delta in part.deltas], kept)


def _trimmed(cut: Cut) -> Thin:
    if cut.value <= 0:
        return _keep
    kept = Kept(cut)

    def thin(delta: Array) -> Array:
        delta *= kept(abs(delta))
        return delta

    return thin


def _trim_of_models(models: WholeModels) -> list[float] | None:
    """Per model, the magnitude from which on entries of its whole delta are kept; 0 if all are."""
    if all(own["scope"] == "tensor" for own in models.parameters):
        return None
    models.common("scope")
    cuts = []
    for model in range(len(models.models)):
        kept = max(1, int(models.common("density", model) * models.entries))

        def sizes(at: int = model) -> Iterator[Array]:
            for stream in models.streams():
                for part in stream.parts():
                    yield part.tensors[at] - part.base

        cuts.append(0.0 if kept >= models.entries else kth_largest(sizes, kept))
    return cuts


@merge_method(
    name="ties",
    label="TIES",
    definition="trim each d_i to its `density` largest entries, elect the sign of sum_i a_i d_i "
    "per entry (+ at zero), w_0 + lambda * weighted mean of the entries that agree",
    reference="Yadav et al. 2023, arXiv:2306.01708; per-tensor trim as in mergekit",
    min_models=1,
    needs_base=True,
    survey=_trim_of_models,
)
def ties(
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5, **DENSITY),
    lambda_: float = 1.0,
    normalize: bool = True,
    scope: Literal["tensor", "model"] = parameter("tensor", choices=("tensor", "model")),
    weighting: Literal["before", "after"] = parameter("before", choices=("before", "after")),
    rescale: str = parameter("none", choices=_NORMS),
) -> Iterator[Array]:
    """Trim, elect sign, disjoint merge; scope and weighting as in the table of the package."""
    if scope == "model":
        if context.surveyed is None:
            raise UsageError(
                "ties with scope 'model' needs the thresholds of the whole models",
                hint="merge whole models, or use scope: tensor",
            )
        # The whole-model trim keeps all entries at the cut, as the paper does.
        cuts = [Cut(threshold) for threshold in context.surveyed]
    else:
        kept = [[max(1, int(share * stream.entries))] for share in density]
        cuts = [cut for (cut,) in _largest(stream, kept)]
    yield from _merged(
        stream, context, lambda: [_trimmed(cut) for cut in cuts], weight, lambda_,
        normalize=normalize, elect=True, rescale=rescale, after=weighting == "after",
    )  # fmt: skip


def _between(inner: Cut, outer: Cut) -> Thin:
    """Keep what the first cut keeps and the second does not."""
    kept, dropped = Kept(inner), Kept(outer)

    def thin(delta: Array) -> Array:
        size = abs(delta)
        delta *= kept(size) & ~dropped(size)
        return delta

    return thin


def _breadcrumbs(
    elect: bool,
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.9, **DENSITY),
    gamma: Sequence[float] = per_model(0.01, least=0, below=1),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: str = parameter("none", choices=_NORMS),
) -> Iterator[Array]:
    """Drop largest magnitudes, then smallest; like mergekit, keep int(density * n) always."""
    counts = []
    for share, outliers in zip(density, gamma, strict=True):
        kept, top = int(share * stream.entries), int(outliers * stream.entries)
        if kept + top > stream.entries:
            context.note(_FEWER_DROPPED)
            top = stream.entries - kept
        if kept == 0:
            context.note(_NONE_KEPT)
        counts.append((kept + top, top))
    cuts = _largest(stream, counts)
    yield from _merged(
        stream, context, lambda: [_between(*pair) for pair in cuts], weight, lambda_,
        normalize=normalize, elect=elect, rescale=rescale,
    )  # fmt: skip


# -- thinned at random ---------------------------------------------------------------------------


class _AtRandom:
    """Keeps entries with given probabilities, drawn from the stream of one model."""

    def __init__(
        self, probability: Callable[[Array], Any], rescale: str, context: TensorContext, model: int
    ) -> None:
        self._probability = probability
        self._rescale = rescale
        self._draw = context.uniform(model)
        self._moved = self._left = False
        self._bits: list[Any] = []
        self._drawn: Iterator[Any] | None = None

    def __call__(self, delta: Array) -> Array:
        """What is left of a part."""
        if self._drawn is not None:
            bits = np.unpackbits(next(self._drawn), count=len(delta))
            return delta * cast(like(bits, delta), kind_of_array(delta))
        probability = self._probability(delta)
        chosen = like(self._draw(len(delta)), delta) < probability
        kept = delta * cast(chosen, kind_of_array(delta))
        self._moved = self._moved or bool(delta.any())
        self._left = self._left or bool(kept.any())
        if self._rescale == "unbiased":
            kept /= probability
        elif self._rescale == "l1":
            self._bits.append(np.packbits(to_numpy(chosen)))
        return kept

    def again(self) -> _AtRandom:
        """The same choices for the parts from the first on: a bit of an entry is remembered."""
        self._drawn = iter(self._bits)
        return self

    @property
    def lost(self) -> bool:
        """Whether there was something and all of it was dropped."""
        return self._moved and not self._left


def _thinners(
    density: Sequence[float], chances: Sequence[Callable[[Array], Any]], rescale: str,
    context: TensorContext,
) -> list[Thin]:  # fmt: skip
    """Each model's, which keeps everything at a density of 1."""
    return [
        _keep if share == 1 else _AtRandom(chance, rescale, context, model)
        for model, (share, chance) in enumerate(zip(density, chances, strict=True))
    ]


def _always(density: float) -> Callable[[Array], Any]:
    return lambda delta: like(np.array(density, kind_of_array(delta)), delta)


def _dare(
    elect: bool,
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5, **DENSITY),
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: str = parameter("unbiased", choices=_RESCALES),
) -> Iterator[Array]:
    """Each entry is kept with probability `density`."""

    def thinners() -> list[Thin]:
        return _thinners(density, [_always(share) for share in density], rescale, context)

    yield from _merged(
        stream, context, thinners, weight, lambda_,
        normalize=normalize, elect=elect, rescale=rescale,
    )  # fmt: skip


def _ranks(sizes: Any) -> Any:
    """Rank of each entry in its row, the first of equal ones first; a fifth of a stable sort."""
    rows, width = sizes.shape
    if sizes.dtype != np.float32 or width >= 1 << 32:
        order = sizes.argsort(axis=-1, stable=True)
    else:
        keys = sizes.view(np.uint32).astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= np.arange(width, dtype=np.uint64)
        keys.sort(axis=-1)
        order = (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    order += np.arange(rows)[:, None] * width
    ranks = np.empty(sizes.size, sizes.dtype)
    ranks[order.reshape(-1)] = np.tile(np.arange(width, dtype=sizes.dtype), rows)
    return ranks.reshape(sizes.shape)


def _by_rank(density: float, epsilon: float, width: int) -> Callable[[Array], Any]:
    """Probabilities that rise with the rank of the magnitude in its row, equal ones by index."""

    def probability(delta: Array) -> Any:
        if width == 1:
            share = namespace(delta).full_like(delta, 0.5)
        else:
            share = like(_ranks(to_numpy(abs(delta)).reshape(-1, width)).reshape(-1), delta)
            share /= width - 1
        share *= 2 * epsilon
        share += density - epsilon
        return share

    return probability


def _della(
    elect: bool,
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(0.5, **DENSITY),
    epsilon: Sequence[float] = per_model(0.15),
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: str = parameter("unbiased", choices=_RESCALES),
) -> Iterator[Array]:
    """The probability runs linearly from `density - epsilon` (smallest) to `density + epsilon`."""
    width = stream.shape[-1] if stream.shape else 1
    for share, spread in zip(density, epsilon, strict=True):
        if share < 1 and (share - abs(spread) <= 0 or share + abs(spread) >= 1):
            raise UsageError(
                f"della needs 0 < density ± epsilon < 1, got {share:g} ± {spread:g}",
                hint="lower epsilon (its default is 0.15)",
            )
    if width == 1 and min(density) < 1:
        context.note("rows of one entry have no rank: kept with probability density")

    def thinners() -> list[Thin]:
        chances = [_by_rank(*pair, width) for pair in zip(density, epsilon, strict=True)]
        return _thinners(density, chances, rescale, context)

    yield from _merged(
        stream, context, thinners, weight, lambda_,
        normalize=normalize, elect=elect, rescale=rescale, width=width,
    )  # fmt: skip


# -- the thinned methods -------------------------------------------------------------------------


def _declare(
    name: str,
    label: str,
    thinning: str,
    reference: str,
    function: Callable[..., Iterator[Array]],
    *,
    elect: bool,
    random: bool = True,
    **defaults: Any,
) -> MergeMethod:
    """Register a way of thinning, followed by sign election or by plain addition."""
    ending = "merged by elected signs as in TIES" if elect else "added up"
    return merge_method(
        name=name,
        label=label,
        definition=f"{thinning}; w_0 + lambda times what is left, weighted by a_i and {ending}",
        reference=reference,
        min_models=1,
        needs_base=True,
        # Each model draws from a stream of its own, so that their order matters.
        symmetric=not random,
        random=random,
    )(functools.partial(function, elect, **defaults))


_DARE = (
    "drop entries of d_i at random with probability 1 - q, rescale by 1/q",
    "Yu et al. 2024, arXiv:2311.03099", _dare,
)  # fmt: skip
_DELLA = (
    "keep entries of d_i with a probability from q - eps (smallest of its row) to q + eps "
    "(largest), each over its probability",
    "Deep et al. 2024, arXiv:2406.11617", _della,
)  # fmt: skip
_CRUMBS = (
    "drop the gamma share of largest entries of d_i and the smallest down to density q",
    "Davari and Belilovsky 2023, arXiv:2312.06795; mergekit", _breadcrumbs,
)  # fmt: skip

dare_linear = _declare("dare_linear", "DARE (linear)", *_DARE, elect=False)
dare_ties = _declare("dare_ties", "DARE (TIES)", *_DARE, elect=True)
della = _declare("della", "DELLA", *_DELLA, elect=True)
della_linear = _declare("della_linear", "DELLA (linear)", *_DELLA, elect=False, normalize=False)
breadcrumbs = _declare("breadcrumbs", "breadcrumbs", *_CRUMBS, elect=False, random=False)
breadcrumbs_ties = _declare(
    "breadcrumbs_ties", "breadcrumbs (TIES)", *_CRUMBS, elect=True, random=False
)
