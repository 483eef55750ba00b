"""Minimal pairs: does a model find the grammatical sentence more likely than its twin?

Formats: JSON lines as in BLiMP (Warstadt et al. 2020, arXiv:1912.00582), fields `sentence_good` and
`sentence_bad`; TSV as in MultiBLiMP (Jumelet et al. 2025, arXiv:2504.02768), columns `sen` and
`wrong_sen`. The sentences that ship with the package are a small sample of our own, not one of
these benchmarks.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError, unknown_name
from repsim.corpora.document_files import read_records
from repsim.corpora.text_files import read_lines
from repsim.evaluation.bits_per_byte import evaluate_bits_per_byte
from repsim.stats.intervals import Interval, wilson

FOLDER = Path(__file__).parent / "data" / "minimal_pairs"
#: Names of the good and the bad sentence, as files call them.
_FIELDS = (("sentence_good", "sentence_bad"), ("sen", "wrong_sen"))
#: Names of what a pair tests, the most telling first.
_PHENOMENA = ("phenomenon", "UID", "linguistics_term")


@dataclasses.dataclass(frozen=True)
class MinimalPair:
    """A sentence, its ungrammatical twin, and what is tested (empty if the file does not say)."""

    good: str
    bad: str
    phenomenon: str = ""


@dataclasses.dataclass(frozen=True)
class MinimalPairScore:
    """How often a model prefers the grammatical sentence; ties count half, chance is 0.5."""

    accuracy: Interval
    accuracy_per_byte: Interval
    by_phenomenon: dict[str, Interval]
    n: int
    margins: np.ndarray


def read_minimal_pairs(path: str | Path) -> list[MinimalPair]:
    """Read pairs from JSON lines (BLiMP) or TSV (MultiBLiMP); InputError names the line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pairs.jsonl"
        >>> _ = path.write_text('{"sentence_good": "He eats.", "sentence_bad": "He eat."}')
        >>> read_minimal_pairs(path)[0].bad
        'He eat.'
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file '{path}' does not exist")
    records = _table(path) if path.suffix == ".tsv" else read_records(path)
    pairs = [_pair(record, path, number + 1) for number, record in records]
    if not pairs:
        raise InputError(f"file '{path}' holds no minimal pairs")
    return pairs


def _table(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = csv.DictReader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    yield from enumerate(rows, start=1)


def _pair(record: Mapping[str, Any], path: Path, number: int) -> MinimalPair:
    for good, bad in _FIELDS:
        sentences = record.get(good), record.get(bad)
        if all(isinstance(sentence, str) and sentence.strip() for sentence in sentences):
            break
    else:
        raise InputError(
            f"line {number} of '{path}' has no pair",
            hint="sentence_good and sentence_bad, or the TSV columns sen and wrong_sen",
        )
    if sentences[0] == sentences[1]:
        raise InputError(f"line {number} of '{path}': both sentences are the same")
    named = (record[name] for name in _PHENOMENA if isinstance(record.get(name), str))
    return MinimalPair(str(sentences[0]), str(sentences[1]), next(named, ""))


def builtin_minimal_pairs(language: str) -> list[MinimalPair]:
    """The sample that ships with the package: 40 agreement pairs per language.

    A sample to try things on: 40 pairs tell 0.5 from 0.7, and no more.

    Raises:
        UsageError: No sample in this language.

    Example:
        >>> pair = builtin_minimal_pairs("eng_Latn")[0]
        >>> pair.good, pair.bad
        ('The king speaks.', 'The king speak.')
    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.jsonl"))}
    if language not in known:
        raise unknown_name("language of the built-in minimal pairs", language, known)
    return read_minimal_pairs(known[language])


def score_minimal_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[MinimalPair],
    *,
    context: int | None = None,
    level: float = 0.95,
) -> MinimalPairScore:
    """Score a causal language model on minimal pairs.

    Args:
        model: A `transformers` causal model.
        tokenizer: Its tokenizer; `<bos>` (else `<eos>`) stands before each sentence.
        pairs: The pairs.
        context: Tokens per window; the model's own limit if left out.
        level: Nominal coverage of the Wilson intervals.

    Raises:
        InputError: No pairs.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model, tiny_tokenizer
        >>> model = tiny_model("llama", head=True)
        >>> score_minimal_pairs(model, tiny_tokenizer(), [MinimalPair("a b", "a c")]).n
        1
    """
    if not pairs:
        raise InputError("there are no minimal pairs to score")
    limit = context or getattr(model.config, "max_position_embeddings", None) or 1024
    good, bad = (
        evaluate_bits_per_byte(model, tokenizer, texts, int(limit))
        for texts in ([pair.good for pair in pairs], [pair.bad for pair in pairs])
    )
    margins = bad.bits - good.bits
    per_byte = bad.bits / bad.sizes - good.bits / good.sizes
    groups: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(pair.phenomenon, []).append(i)
    return MinimalPairScore(
        accuracy=_accuracy(margins, level),
        accuracy_per_byte=_accuracy(per_byte, level),
        by_phenomenon={name: _accuracy(margins[rows], level) for name, rows in groups.items()},
        n=len(pairs),
        margins=margins,
    )


def _accuracy(margins: Iterable[float] | np.ndarray, level: float) -> Interval:
    values = np.asarray(margins)
    return wilson(float((values > 0).sum() + 0.5 * (values == 0).sum()), len(values), level)
