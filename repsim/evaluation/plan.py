"""What an evaluation would read and take, before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repsim.evaluation.held_out import common_context, stated_languages
from repsim.evaluation.parents import find_parents
from repsim.evaluation.text import load_evaluation_text

#: Of one core, as forward passes go.
FLOPS_PER_SECOND = 2e10
#: Bytes of text per token, roughly, and seconds until the first model reads.
BYTES_PER_TOKEN, START_SECONDS = 3.0, 6.0


def plan_evaluation(
    models: Sequence[str],
    corpus: str = "bible",
    languages: Sequence[str] | None = None,
    *,
    parents: Sequence[str] | None = None,
    context: int | None = None,
    max_bytes: int | None = None,
    revision: str | None = None,
    allow_network: bool = False,
    readings: float = 1,
) -> dict[str, Any]:
    """Models, parents included, text and a rough time, JSON-able; loads no weights."""
    finding = {"revision": revision, "allow_network": allow_network}
    refs, _ = find_parents(models, parents, finding)
    spoken = tuple(languages) if languages else stated_languages(refs)
    window = common_context(refs, context)
    text = load_evaluation_text(corpus, spoken, max_bytes=max_bytes, allow_network=allow_network)
    sizes = {code: sum(len(one.encode()) for one in text.texts[code]) for code in spoken}
    return {
        "models": [ref.name for ref in refs],
        "parameters": [ref.parameters for ref in refs],
        "corpus": corpus,
        "context": window,
        "bytes": sizes,
        "seconds": round(
            START_SECONDS
            + readings * scoring_seconds([ref.parameters for ref in refs], sum(sizes.values()))
        ),
    }


def scoring_seconds(
    parameters: Sequence[int], n_bytes: float, flops: float = FLOPS_PER_SECOND
) -> float:
    """Two operations per parameter and token; by one core, unless told how fast it goes."""
    return 2 * sum(parameters) * n_bytes / BYTES_PER_TOKEN / flops
