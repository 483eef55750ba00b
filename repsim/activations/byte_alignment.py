"""Rows that mean the same to models with different tokenizers: byte boundaries within sentences.

The row of a boundary is the last token that covers it: all models have read the same bytes there.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from repsim.activations.distributed import join
from repsim.activations.extraction import Encoder, Job, complete, on_device, run
from repsim.activations.settings import ExtractionSettings, with_hashes
from repsim.activations.tokens import Encoded, TokenPolicy, encode, longest_input
from repsim.core import Activations, InputError, ModelRef, ParallelCorpus, UsageError
from repsim.core.files import cache_folder, hash_json

if TYPE_CHECKING:
    from repsim.models.load import LoadedModel

Boundaries = Literal["words", "tokens"]

#: Scripts that put no space between words, as the names of their characters begin.
SPACELESS = (
    "CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
    "JAVANESE", "BALINESE", "TAI ", "NEW TAI", "YI ",
)  # fmt: skip
_WORD = re.compile(r"\S+")


def boundary_kind(sentences: Sequence[str]) -> Boundaries:
    """Ends of words, or of tokens where most letters are of scripts without spaces."""
    characters = Counter(char for sentence in sentences for char in sentence)
    letters = {char: k for char, k in characters.items() if char.isalpha()}
    spaceless = sum(
        k for char, k in letters.items() if unicodedata.name(char, "").startswith(SPACELESS)
    )
    return "tokens" if 2 * spaceless > sum(letters.values()) else "words"


def word_ends(sentence: str) -> list[int]:
    """Byte positions behind each whitespace-delimited word."""
    return [len(sentence[: match.end()].encode()) for match in _WORD.finditer(sentence)]


def common_boundaries(
    sentence: str, readings: Sequence[Encoded], kind: Boundaries
) -> tuple[np.ndarray, np.ndarray]:
    """Boundaries `[k]` where every model has a token that counts; those tokens `[models, k]`."""
    if kind == "words":
        candidates = word_ends(sentence)
    else:
        shared = set.intersection(*(set(_spans(one)[:, 1].tolist()) for one in readings))
        candidates = sorted(shared - {0})
    ends: list[int] = []
    tokens: list[list[int]] = []
    for end in candidates:
        found = [_last_cover(one, end) for one in readings]
        if all(token is not None for token in found):
            ends.append(end)
            tokens.append([token for token in found if token is not None])
    shape = (len(ends), len(readings))
    return np.array(ends, dtype=np.int32), np.array(tokens, dtype=np.int64).reshape(shape).T


def _spans(one: Encoded) -> np.ndarray:
    if one.spans is None:
        raise UsageError("byte boundaries need sentences that were encoded with spans=True")
    return one.spans


def _last_cover(one: Encoded, end: int) -> int | None:
    """The last token whose span reaches over or up to a byte position, if it counts."""
    spans = _spans(one)
    covering = np.flatnonzero((spans[:, 0] < end) & (end <= spans[:, 1]))
    if len(covering) == 0 or one.short or covering[-1] not in one.kept:
        return None
    return int(covering[-1])


def byte_aligned(
    models: Sequence[LoadedModel | ModelRef | str | Path],
    corpus: ParallelCorpus,
    language: str,
    *,
    boundaries: Literal["auto", "words", "tokens"] = "auto",
    points: Sequence[str] = ("resid",),
    layers: Sequence[int] | None = None,
    batch_size: int | str = "auto",
    max_length: int | None = None,
    skip_first: bool = True,
    dtype: str = "float32",
    precision: str = "auto",
    device: str | None = None,
    cache: str | Path | None = None,
    prefix: str = "",
) -> list[Activations]:
    """Token activations of several models at the same bytes of the same sentences.

    A row is a boundary within a sentence, with id `sentence#byte`; all models have the same rows in
    the same order. Boundaries are the ends of whitespace-delimited words or, in scripts that write
    none, the positions at which tokens of all models end. All models are in memory at once. What is
    not said here is as in `extract`, for all `models` (loaded, or what `load_model` takes) alike.
    `boundaries` are `words`, `tokens`, or `auto` to go by the script of the language.

    Returns:
        One `Activations` per model, `pooling` "tokens", with the byte as covariate `position`.

    Raises:
        UsageError: No models, or an argument that is not possible, or a tokenizer without offsets.
        InputError: No boundary is common to all models.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = tempfile.mkdtemp()
        >>> corpus = ParallelCorpus("one", ("s",), {"eng_Latn": ("Two dogs bark.",)})
        >>> pair = [write_tiny_model(family, f"{folder}/{family}") for family in ("llama", "bert")]
        >>> a, b = byte_aligned(pair, corpus, "eng_Latn", cache=folder)
        >>> a.ids == b.ids, a.ids[-1]
        (True, 's#14')
    """
    if not models:
        raise UsageError("no model was given")
    if boundaries not in ("auto", "words", "tokens"):
        raise UsageError(f"boundaries is '{boundaries}'", hint="'auto', 'words' or 'tokens'")
    settings = ExtractionSettings(
        points=tuple(points), layers=None if layers is None else tuple(layers), pooling="tokens",
        skip_first=skip_first, max_length=max_length, prefix=prefix, dtype=dtype,
    )  # fmt: skip
    ranks = join()
    kind: Boundaries = boundary_kind(corpus[language]) if boundaries == "auto" else boundaries
    loaded = [on_device(model, device, ranks) for model in models]
    completed = [complete(settings, one, precision) for one in loaded]
    refs = [with_hashes(one, own.weights) for one, own in zip(loaded, completed, strict=True)]
    policies = [settings.policy(longest_input(m.model.config, m.tokenizer)) for m in loaded]
    readers = list(zip((one.tokenizer for one in loaded), policies, strict=True))
    # Rows depend on what every tokenizer makes of the text and on where each model cuts it.
    company = hash_json(
        sorted([r.tokenizer_hash, p.max_length] for r, p in zip(refs, policies, strict=True))
    )
    completed = [dataclasses.replace(own, boundaries=f"{kind} {company}") for own in completed]
    folder = Path(cache) if cache is not None else cache_folder() / "activations"
    results = []
    for i, (one, ref) in enumerate(zip(loaded, refs, strict=True)):
        encoder, notes = _aligned_encoder(readers, i, kind), {"boundaries": f"ends of {kind}"}
        job = Job(
            one, ref, corpus, language, completed[i], policies[i], encoder, batch_size, notes=notes
        )
        result = run(job, folder, ranks)
        if len(result) == 0:
            raise InputError(
                f"the models have no {kind} in common in {language}",
                hint="boundaries='words' and 'tokens' can be tried; one-word sentences have none",
            )
        results.append(result)
    return results


def _aligned_encoder(
    readers: Sequence[tuple[object, TokenPolicy]], which: int, kind: Boundaries
) -> Encoder:
    """Encode for one model, keeping only tokens at boundaries that all models share."""

    def encoder(texts: Sequence[str], names: Sequence[str]) -> list[Encoded]:
        readings = [
            encode(tokenizer, texts, policy, sentence_ids=names, spans=True)
            for tokenizer, policy in readers
        ]
        aligned = []
        for i, text in enumerate(texts):
            ends, tokens = common_boundaries(text, [one[i] for one in readings], kind)
            own = readings[which][i]
            aligned.append(dataclasses.replace(own, kept=tokens[which], labels=ends, short=False))
        return aligned

    return encoder
