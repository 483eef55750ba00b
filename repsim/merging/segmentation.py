"""Does a tokenizer still cut text as another one did? Measured on text of the models' languages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Characters of text per language: shares of words are known to half a percent.
CHARACTERS = 60_000


def compare_segmentation(
    own: Path, merged: Mapping[str, Any], languages: Sequence[str], name: str
) -> list[str]:
    """How many words of built-in text a tokenizer cuts as that of a model, per language."""
    from tokenizers import Tokenizer

    from repsim.corpora.builtin_training import EDITIONS, bible_text

    before = Tokenizer.from_file(str(own))
    after = Tokenizer.from_str(json.dumps(dict(merged)))
    notes = []
    for language in (code for code in languages if code in EDITIONS):
        text = ""
        for document in bible_text(language, "heldout").texts():
            text += document + "\n"
            if len(text) >= CHARACTERS:
                break
        words = Counter(_words(before, text[:CHARACTERS]))
        cuts = {word: (_cut(before, word), _cut(after, word)) for word in words}
        total = sum(words.values())
        kept = sum(n for word, n in words.items() if cuts[word][0] == cuts[word][1]) / total
        lengths = [sum(n * len(cuts[word][i]) for word, n in words.items()) / total for i in (0, 1)]
        notes.append(
            f"{100 * kept:.1f} in 100 words of built-in text in {language} are cut as by the "
            f"tokenizer of '{name}' ({lengths[0]:.2f} -> {lengths[1]:.2f} tokens a word)"
        )
    return notes


def _words(tokenizer: Any, text: str) -> list[str]:
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return text.split(" ")
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def _cut(tokenizer: Any, word: str) -> list[str]:
    return [token.value for token in tokenizer.model.tokenize(word)]
