"""Whether sentences stand in training text: checked, not assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from repsim.corpora.documents import TrainingText

#: Characters of a line's beginning that are looked up before the whole line is compared.
_WIDTH = 16
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BITS = 20
_SHIFT = np.uint64(64 - _BITS)


def unseen_rows(
    sentences: Mapping[str, Sequence[str]], texts: Mapping[str, TrainingText]
) -> list[int]:
    """Rows of parallel sentences that are new to the training text.

    Args:
        sentences: Language -> sentences, the same number in each (as of a `ParallelCorpus`).
        texts: Language -> training text; languages without sentences are passed over.

    Returns:
        Indices of the rows none of whose sentences stands verbatim (anywhere, also inside a longer
        line) in the training text of its own language.

    Example:
        >>> from repsim.corpora.documents import Document
        >>> text = TrainingText("demo", "eng_Latn", lambda: iter([Document("1", "He said: Go.")]))
        >>> unseen_rows({"eng_Latn": ["Go.", "Come."]}, {"eng_Latn": text})
        [1]
    """
    seen: set[int] = set()
    for language, lines in sentences.items():
        if language in texts:
            seen |= _found(lines, texts[language].texts())
    n = max((len(lines) for lines in sentences.values()), default=0)
    return [row for row in range(n) if row not in seen]


def _found(lines: Sequence[str], documents: Iterable[str]) -> set[int]:
    """Rows whose line stands in a document."""
    short = [row for row, line in enumerate(lines) if len(line) < _WIDTH]
    starts: dict[int, list[int]] = {}
    for row, line in enumerate(lines):
        if len(line) >= _WIDTH:
            starts.setdefault(int(window_hashes(line[:_WIDTH], _WIDTH)[0]), []).append(row)
    # A table over the top bits sorts out nearly all windows before any is looked at one by one.
    likely = np.zeros(1 << _BITS, dtype=bool)
    likely[np.array(list(starts), dtype=np.uint64) >> _SHIFT] = True
    found: set[int] = set()
    for text in documents:
        found.update(row for row in short if lines[row] in text)
        hashes = window_hashes(text, _WIDTH)
        for i in np.flatnonzero(likely[hashes >> _SHIFT]).tolist():
            rows = starts.get(int(hashes[i]), ())
            found.update(row for row in rows if text.startswith(lines[row], i))
    return found


def window_hashes(text: str, width: int) -> np.ndarray:
    """Polynomial hashes modulo 2^64 of all windows of `width` characters, a power of two."""
    hashes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(hashes) < width:
        return hashes[:0]
    factor, half = _FACTOR, 1
    while half < width:
        hashes = hashes[:-half] * factor + hashes[half:]
        factor, half = np.uint64(int(factor) ** 2 % 2**64), 2 * half
    return hashes
