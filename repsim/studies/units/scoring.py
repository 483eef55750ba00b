"""Unit `score`: bits per byte of one model on the held-out text of a study."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.evaluation.held_out import LONGEST_CONTEXT

if TYPE_CHECKING:
    from repsim.evaluation import BitsPerByte, EvaluationText, PreparedText
    from repsim.studies.engine.workspace import Workspace


def score_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Score a model on every language of its family."""
    from repsim.evaluation.held_out import best_device
    from repsim.models.causal import load_causal_lm

    start = spec.get("how", {}).get("init_from")
    folder = start if start else workspace.fetch(f"models/{spec['model']}")
    model = load_causal_lm(folder, device=best_device())
    ready = prepared(spec, model)
    scores = ready.score(model.model)
    return {
        "model": spec["model"],
        "scores": {language: packed(score) for language, score in scores.items()},
        "floors": {language: packed(score) for language, score in ready.floors.items()},
        "documents": {lang: list(ids) for lang, ids in ready.text.documents.items()},
    }


def prepared(spec: Mapping[str, Any], model: Any) -> PreparedText:
    """The held-out text as the tokens of a model; kept for the next unit of this process."""
    context = min(int(getattr(model.model.config, "max_position_embeddings", 128)), LONGEST_CONTEXT)
    key = _TokenizerOf(model.ref.tokenizer_hash, model.tokenizer)
    text = _text(spec["corpus"], tuple(spec["languages"]), spec["max_bytes"])
    return _prepared(key, text.corpus, tuple(spec["languages"]), spec["max_bytes"], context)


@dataclasses.dataclass(frozen=True)
class _TokenizerOf:
    """A tokenizer known by its hash."""

    digest: str
    tokenizer: Any = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _text(corpus: str, languages: tuple[str, ...], max_bytes: int) -> EvaluationText:
    from repsim.evaluation import load_evaluation_text

    return load_evaluation_text(corpus, list(languages), max_bytes=max_bytes)


@functools.lru_cache(maxsize=8)
def _prepared(
    key: _TokenizerOf, corpus: str, languages: tuple[str, ...], max_bytes: int, context: int
) -> PreparedText:
    return _text(corpus, languages, max_bytes).prepare(key.tokenizer, context)


def packed(score: BitsPerByte) -> dict[str, list[float]]:
    """Bits and bytes per document, JSON-able."""
    return {"bits": score.bits.tolist(), "sizes": score.sizes.tolist()}


def unpacked(document: Mapping[str, Sequence[float]]) -> BitsPerByte:
    """Inverse of `packed`."""
    from repsim.evaluation import BitsPerByte

    return BitsPerByte(
        np.array(document["bits"], dtype=np.float64), np.array(document["sizes"], dtype=np.int64)
    )


def selected(ready: PreparedText, languages: Sequence[str]) -> PreparedText:
    """The same text in fewer languages."""
    return dataclasses.replace(
        ready,
        text=dataclasses.replace(
            ready.text,
            documents={lang: ready.text.documents[lang] for lang in languages},
            texts={lang: ready.text.texts[lang] for lang in languages},
        ),
        held_out={lang: ready.held_out[lang] for lang in languages},
        floors={lang: ready.floors[lang] for lang in languages},
    )
