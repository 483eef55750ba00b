"""Methods that choose which changes reach the merge: NearSwap, Arcee Fusion, RAM and RAM+."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.merging.arrays import (
    Array,
    Part,
    Stream,
    bounded,
    cast,
    kind_of_array,
    like,
    namespace,
    to_numpy,
)
from repsim.merging.base import TensorContext, WholeModels, merge_method
from repsim.merging.methods.cuts import cuts_of, sample_step
from repsim.merging.parameters import parameter

#: Differences below this are not divided by, as in mergekit.
_LEAST = 1e-6
#: Shares of the magnitudes below the quartiles.
_QUARTILES = (0.25, 0.5, 0.75)


@merge_method(
    name="nearswap",
    label="NearSwap",
    definition="w_0 + d_1 min(1, t / max(|d_1|, 1e-6)): entries that differ by at most t are the "
    "other model's, of others a step of t is taken",
    reference="alchemonaut 2024 (QuartetAnemoi-70B); mergekit",
    min_models=1,
    max_models=1,
    needs_base=True,
    elementwise=True,
)
def nearswap(
    stream: Stream, *, context: TensorContext, t: float = parameter(1e-4, least=0)
) -> Iterator[Array]:
    """The base, and of another model what is near to it (t = 1e-4 in the model of that name)."""
    for part in stream.parts():
        (delta,) = part.deltas
        delta *= bounded(t / bounded(abs(delta), low=_LEAST), high=1.0)
        delta += part.base
        yield delta


# -- Arcee Fusion --------------------------------------------------------------------------------


@merge_method(
    name="arcee_fusion",
    label="Arcee Fusion",
    definition="w_0 + m d_1, m the entries whose importance |d_1| KL(softmax(w_1) || softmax(w_0)) "
    "is at least the median + 1.5 interquartile ranges of the tensor's; softmax along the last "
    "axis, quartiles q at rank floor(q (n - 1))",
    reference="Arcee AI 2025 (mergekit 0.1)",
    min_models=1,
    max_models=1,
    needs_base=True,
)
def arcee_fusion(stream: Stream, *, context: TensorContext) -> Iterator[Array]:
    """The base, and of another model the changes that stand out; all if nothing changed."""
    width = stream.shape[-1] if stream.shape else 1
    divergence = np.concatenate([_divergences(part, width) for part in stream.parts(width)])

    def importance(part: Part) -> list[Array]:
        rows = abs(part.tensors[0] - part.base).reshape(-1, width)
        own = divergence[part.start // width : part.stop // width, None]
        return [(rows * cast(like(own, rows), kind_of_array(rows))).reshape(-1)]

    step = sample_step(stream.entries)
    some = stream.sample(step)
    own = divergence[np.arange(0, stream.entries, step) // width]
    some_sizes = abs(some.tensors[0] - some.base)
    sample = [some_sizes * cast(like(own, some_sizes), kind_of_array(some_sizes))]
    counts = [stream.entries - int(share * (stream.entries - 1)) for share in _QUARTILES]
    (cuts,) = cuts_of(stream, importance, [counts], sample=sample, width=width)
    lower, median, upper = (cut.value for cut in cuts)
    threshold = median + 1.5 * (upper - lower)
    if threshold == 0:
        context.note("no change stands out here: the other model's tensor is taken whole")
    for part in stream.parts(width):
        (delta,) = part.deltas
        delta *= importance(part)[0] >= threshold
        delta += part.base
        yield delta


def _divergences(part: Part, width: int) -> Any:
    """KL of softmax rows from the base's: E_p[d] + log E_p[exp(-d)] keeps small digits."""
    if width == 1:
        return np.zeros(len(part.tensors[0]))
    xp, row = namespace(part.tensors[0]), part.tensors[0].reshape(-1, width)
    change = (part.tensors[0] - part.base).reshape(-1, width)
    mass = xp.exp(row - xp.amax(row, -1)[:, None])
    total = _summed(mass)
    mean, excess = _summed(mass * change) / total, _summed(mass * xp.expm1(-change)) / total
    return np.maximum(mean + np.log1p(excess), 0)


def _summed(rows: Array) -> Any:
    return to_numpy(cast(rows, "float64").sum(-1))


# -- reinforced agents ---------------------------------------------------------------------------


def _changed(part: Part, epsilon: float) -> tuple[list[Array], list[Array], Array]:
    """Differences with small ones zeroed, where they are not, and how many models have one."""
    deltas = part.deltas
    masks = [abs(delta) > epsilon for delta in deltas]
    for delta, mask in zip(deltas, masks, strict=True):
        delta *= mask
    kind = kind_of_array(part.base)
    return deltas, masks, sum(cast(mask, kind) for mask in masks)


def _reinforced(stream: Stream, epsilon: float, scales: Sequence[float]) -> Iterator[Array]:
    """Means of what several models changed, and what one alone did times that model's scale."""
    for part in stream.parts():
        deltas, _, count = _changed(part, epsilon)
        alone = count == 1
        total: Any = 0.0
        for delta, scale in zip(deltas, scales, strict=True):
            if scale != 1:
                delta[alone] *= scale
            total = total + delta
        total /= bounded(count, low=1.0)
        total += part.base
        yield total


def _counts(stream: Stream, epsilon: float) -> Any:
    """Per model, how many entries it shares and how many it alone changed, `[models, 2]`."""
    found = np.zeros((stream.models, 2))
    for part in stream.parts():
        _, masks, count = _changed(part, epsilon)
        alone = count == 1
        for own, mask in zip(found, masks, strict=True):
            changed, unique = int(mask.sum()), int((mask & alone).sum())
            own += (changed - unique, unique)
    return found


def _scales(counts: Any, r: float, alpha: float) -> list[float]:
    """1 + r min(shared / unique, alpha) per model."""
    shared, unique = counts.T
    ratio = np.where(unique > 0, shared / np.maximum(unique, 1), np.where(shared > 0, np.inf, 0))
    return [float(scale) for scale in 1 + r * np.minimum(ratio, alpha)]


_EPSILON: dict[str, Any] = {"least": 0}
_REFERENCE = "Yuan et al. 2026, arXiv:2601.13572"


@merge_method(
    name="ram",
    label="RAM",
    definition="w_0 + sum_i d_i m_i / max(1, sum_i m_i), m_i = |d_i| > epsilon: the mean over "
    "those models that changed an entry",
    reference=_REFERENCE,
    min_models=1,
    needs_base=True,
    idempotent=True,
    elementwise=True,
)
def ram(
    stream: Stream, *, context: TensorContext, epsilon: float = parameter(1e-5, **_EPSILON)
) -> Iterator[Array]:
    """Reinforced agent merging: sparse changes that no other model touched are not diluted."""
    yield from _reinforced(stream, epsilon, [1.0] * stream.models)


_PLUS = (
    "as ram, and what model i alone changed times 1 + r min(rho_i, alpha), rho_i the entries it "
    "changed with others over those it changed alone, counted over the"
)


def _whole(models: WholeModels) -> list[float]:
    """The scale of each model's own changes, from its counts over all tensors."""
    r, alpha, epsilon = (models.common(name) for name in ("r", "alpha", "epsilon"))
    counts: Any = sum(_counts(stream, epsilon) for stream in models.streams())
    return _scales(counts, r, alpha)


def _ramplus(
    stream: Stream,
    *,
    context: TensorContext,
    r: float = parameter(0.1, least=0),
    alpha: float = parameter(0.2, least=0),
    epsilon: float = parameter(1e-5, **_EPSILON),
) -> Iterator[Array]:
    """RAM with rescaled unique changes; without a survey, every tensor is counted for itself."""
    scales = context.surveyed or _scales(_counts(stream, epsilon), r, alpha)
    yield from _reinforced(stream, epsilon, scales)


#: As published; a tensor merged alone is its own model.
ramplus = merge_method(
    name="ramplus", label="RAM+", definition=f"{_PLUS} whole model", reference=_REFERENCE,
    min_models=1, needs_base=True, idempotent=True, survey=_whole,
)(_ramplus)  # fmt: skip
#: As mergekit has it.
ramplus_tl = merge_method(
    name="ramplus_tl", label="RAM+ (tensor-local)", definition=f"{_PLUS} tensor",
    reference=f"{_REFERENCE}; mergekit", min_models=1, needs_base=True, idempotent=True,
)(_ramplus)  # fmt: skip
