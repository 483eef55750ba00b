"""T3: one batch of gradients at each parent, and the curvature of the loss towards the merge.

With `d` the step from a parent to the plain average, the loss there is, to second order,
`L + g.d + 1/2 d'Hd`; for two parents at equal minima that is the barrier `1/8 D'HD` of the way D.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError
from repsim.mergeability.features.catalogue import measured_names, summarised
from repsim.mergeability.features.opened import (
    ModelLike,
    OpenedParents,
    Parent,
    opened,
    why_not_averaged,
)
from repsim.mergeability.features.outputs import unigram_floor
from repsim.mergeability.features.spec import FeatureValue, TierResult

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim.evaluation.bits_per_byte import HeldOut

#: Training text per language that windows are taken from, one per document first.
TEXT_BYTES = 64_000
#: Length of the step of the central difference, as a share of the norm of the weights.
STEP = 0.003


Tensors = Mapping[str, "torch.Tensor"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Windows of one language."""

    tokens: torch.Tensor  # [windows, t + 1]
    scored: torch.Tensor  # [windows, t] booleans, which targets count
    size: float  # UTF-8 bytes that are scored, about
    floor: float  # their bits under the unigram model


@dataclasses.dataclass(frozen=True)
class Slope:
    """The loss around one parent, in bits of one batch."""

    bits: float
    gradient: torch.Tensor  # [parameters]
    first: float  # g.d for the step d to the average
    second: float  # d'Hd


def gradient_features(
    models: OpenedParents | Sequence[ModelLike],
    *,
    corpus: str = "bible",
    languages: Sequence[str],
    windows: int = 8,
    context: int = 128,
    seed: int = 0,
    device: str | None = None,
) -> TierResult:
    """Gradients of the parents on one batch of training text per language.

    NaN, with a note, where the parents cannot be averaged as language models (encoders, other
    shapes or tokenizers).

    Args:
        models: At least two parents, or a group that is open.
        corpus: Training corpus, see `corpora.load_training_text`: the training part is read, so
            that merges can be judged on the held-out part.
        languages: Languages of the parents.
        windows: Windows of text per language.
        context: Tokens per window, or as many as the models take.
        seed: Of the draw of documents.
        device: Where models given by name run.

    Raises:
        UsageError: Fewer than two models, no language, no window.
        InputError: A model or the corpus cannot be read.

    Example:
        >>> found = gradient_features(["zoo:eng-1", "zoo:eng-1"], languages=["eng_Latn"],
        ...                           windows=1, context=32, device="cpu")
        >>> values = {value.feature: value.value for value in found.values}
        >>> round(values["gradient_cosine"], 6), values["first_order"], values["curvature"]
        (1.0, 0.0, 0.0)
    """
    started = time.process_time()
    if not languages:
        raise UsageError("no language to read", hint="languages=['eng_Latn']")
    if windows < 1 or context < 2:
        raise UsageError(f"{windows} windows of {context} tokens are no batch")
    with opened(models, device=device) as group:
        reason = why_not_averaged(group.loaded)
        if reason:
            names = measured_names("T3")
            values = [FeatureValue(name, math.nan, lang) for lang in languages for name in names]
            notes = [f"no gradients: {reason}"]
        else:
            values, notes = _measured(group, corpus, languages, windows, context, seed)
    return TierResult("T3", tuple(values), time.process_time() - started, tuple(notes))


def _measured(
    group: OpenedParents, corpus: str, languages: Sequence[str], windows: int, context: int,
    seed: int,
) -> tuple[list[FeatureValue], list[str]]:  # fmt: skip
    parents, length = group.loaded, group.context(context)
    weights = [_weights(parent.head) for parent in parents]
    steps = _steps(weights)
    values, notes = [], []
    for language in languages:
        batch = training_batch(
            parents[0], corpus, language, windows=windows, context=length, seed=seed
        )
        slopes = [
            slope(parent.head, weight, step, batch)
            for parent, weight, step in zip(parents, weights, steps, strict=True)
        ]
        found, cosines = _summaries(slopes, weights, steps, batch)
        values += [FeatureValue(name, value, language) for name, value in found.items()]
        values += summarised("gradient_cosine", cosines, language)
        if math.isnan(found["taylor_retention"]):
            notes.append(f"no parent is better than unigrams in {language}")
    return values, notes


def training_batch(
    parent: Parent, corpus: str, language: str, *, windows: int, context: int, seed: int
) -> Batch:
    """Windows from the beginnings of training documents, one per document first."""
    import torch

    from repsim.corpora.training_text import load_training_text
    from repsim.evaluation.bits_per_byte import cut, tokenized

    text = load_training_text(corpus, [language], max_bytes=TEXT_BYTES, seed=seed)[language]
    held_out, bos = tokenized(parent.tokenizer, [document for document in text.texts() if document])
    whole = cut(held_out.documents, context, bos)
    first = np.searchsorted(whole.owner, whole.owner)
    depth = np.arange(len(whole.owner)) - first
    chosen = np.lexsort((whole.owner, depth))[:windows]
    tokens, scored = whole.tokens[chosen], whole.scored[chosen]
    longest = int(np.flatnonzero(scored.any(axis=0))[-1]) + 1
    tokens, scored = tokens[:, : longest + 1], scored[:, :longest]
    taken = _as_documents(held_out, whole.owner[chosen], tokens, scored)
    floor = float(unigram_floor(parent, corpus, language, taken).bits.sum())
    device = next(parent.head.parameters()).device
    return Batch(
        torch.from_numpy(tokens).to(device), torch.from_numpy(scored).to(device),
        float(taken.sizes.sum()), floor,
    )  # fmt: skip


def _as_documents(
    held_out: HeldOut, owner: np.ndarray, tokens: np.ndarray, scored: np.ndarray
) -> HeldOut:
    """The scored tokens of each window; bytes by the document's bytes per token."""
    from repsim.evaluation.bits_per_byte import HeldOut

    pieces = tuple(row[1:][kept] for row, kept in zip(tokens, scored, strict=True))
    rate = [held_out.sizes[i] / len(held_out.documents[i]) for i in owner]
    sizes = [round(len(piece) * each) for piece, each in zip(pieces, rate, strict=True)]
    return HeldOut(pieces, np.array(sizes, dtype=np.int64))


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name; what is tied is there once."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point()
    }


def _steps(weights: Sequence[Tensors]) -> list[dict[str, torch.Tensor]]:
    """From each parent to the plain average."""
    import torch

    average = {
        name: torch.stack([each[name].float() for each in weights]).mean(dim=0)
        for name in weights[0]
    }
    return [
        {name: average[name] - tensor.float() for name, tensor in each.items()} for each in weights
    ]


def loss_and_gradient(
    model: nn.Module, weights: Tensors, batch: Batch
) -> tuple[float, torch.Tensor]:
    """Bits of a batch and their gradient, with other weights than the model holds."""
    import torch

    leaves = {name: tensor.detach().requires_grad_(True) for name, tensor in weights.items()}
    with torch.enable_grad():
        inputs = {"input_ids": batch.tokens[:, :-1], "use_cache": False}
        logits = torch.func.functional_call(model, leaves, (), inputs).logits
        nats = torch.nn.functional.cross_entropy(
            logits[batch.scored].float(), batch.tokens[:, 1:][batch.scored], reduction="sum"
        )
        found = torch.autograd.grad(nats, list(leaves.values()), allow_unused=True)
    gradient = [
        torch.zeros_like(leaf) if each is None else each
        for leaf, each in zip(leaves.values(), found, strict=True)
    ]
    return float(nats.detach()) / math.log(2), _flat(gradient) / math.log(2)


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])


def slope(model: nn.Module, weights: Tensors, step: Tensors, batch: Batch) -> Slope:
    """Loss, gradient, and both derivatives along a step."""
    bits, gradient = loss_and_gradient(model, weights, batch)
    direction = _flat(list(step.values()))
    length, size = float(direction.norm()), float(_flat(list(weights.values())).norm())
    if length <= 1e-9 * size:
        return Slope(bits, gradient, 0.0, 0.0)
    # Central difference: three digits of double differentiation, at a third of the cost.
    h = STEP * size / length
    ahead, behind = (
        loss_and_gradient(
            model,
            {name: tensor + sign * h * step[name].to(tensor) for name, tensor in weights.items()},
            batch,
        )[1]
        for sign in (1.0, -1.0)
    )
    second = float((ahead - behind) @ direction) / (2 * h)
    return Slope(bits, gradient, float(gradient @ direction), second)


def _summaries(
    slopes: Sequence[Slope], weights: Sequence[Tensors], steps: Sequence[Tensors], batch: Batch
) -> tuple[dict[str, float], list[float]]:
    """Values by feature, and cosines of all pairs; NaN where a divisor is zero."""
    best = min(range(len(slopes)), key=lambda i: slopes[i].bits)
    here = slopes[best]
    saved = batch.floor - here.bits
    saved = saved if saved > 0 else math.nan
    norms = [float(each.gradient.norm()) for each in slopes]
    sizes = [float(_flat(list(each.values())).norm()) for each in weights]
    length = float(_flat(list(steps[best].values())).norm())
    cosines, distances = [], []
    for i, j in itertools.combinations(range(len(slopes)), 2):
        scale = norms[i] * norms[j]
        a, b = slopes[i].gradient, slopes[j].gradient
        cosines.append(_ratio(float(a @ b), scale))
        distances.append(_ratio(float((a - b).norm()), math.sqrt(scale)))
    elastic = [
        norm * size / each.bits for norm, size, each in zip(norms, sizes, slopes, strict=True)
    ]
    barrier = float(np.mean([each.second / 2 for each in slopes]))
    second = here.second / 2
    found = {
        "taylor_retention": 1 - (here.first + second) / saved,
        "first_order_relative": here.first / saved,
        "quadratic_barrier_relative": barrier / saved,
        "gradient_distance": float(np.mean(distances)),
        "gradient_norm": elastic[best],
        "gradient_norm_worst": max(elastic),
        "first_order": here.first / batch.size,
        "descent_cosine": _ratio(-here.first, norms[best] * length),
        "curvature": second / batch.size,
        "curvature_relative": second / saved,
        "sharpness": _ratio(here.second * sizes[best] ** 2, length**2 * here.bits),
        "quadratic_barrier": barrier / batch.size,
    }
    return found, cosines


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale > 0 else math.nan
