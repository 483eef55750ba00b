"""Derived languages: a natural language changed by a rule, so that an exact parallel text exists.

`eng_Latn~respelled` is English with every letter exchanged for another by a fixed bijection (vowels
for vowels, consonants for consonants): a vocabulary of its own over the same grammar and content.
`eng_Latn~reversed` has the words of every line in reverse order: the same vocabulary over another
grammar. Both can be combined: `eng_Latn~respelled~reversed`.

Source: Deshpande et al. (2022), "When is BERT Multilingual?", arXiv:2110.14782, whose script and
word-order transformations act on tokens; these act on text, so that a tokenizer learns them as it
learns any language.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence

from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import UsageError, unknown_name
from repsim.corpora.data_order import seeded_permutation
from repsim.corpora.documents import Document, TrainingText

MARK = "~"
#: Vowels and consonants of the scripts that can be respelled, in lower case.
_ALPHABETS = (
    "aeiouy", "bcdfghjklmnpqrstvwxz",
    "аеёиоуыэюя", "бвгджзйклмнпрстфхцчшщ",
    "αεηιουω", "βγδζθκλμνξπρστφχψ",
)  # fmt: skip
#: Punctuation stays where it is; what lies between moves.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def split_language(code: str) -> tuple[str, tuple[str, ...]]:
    """The natural language of a code, and the rules that change it."""
    base, *rules = code.split(MARK)
    for rule in rules:
        if rule not in RULES:
            raise unknown_name("rule of a derived language", rule, RULES)
    if len(set(rules)) < len(rules):
        raise UsageError(f"language '{code}' names a rule twice")
    return base, tuple(rules)


def respelled(line: str) -> str:
    """The line with every letter exchanged; invertible, case and other scripts are kept."""
    return line.translate(_cipher())


def word_order_reversed(line: str) -> str:
    """The line with its words in reverse order; punctuation stays in its place."""
    words = _WORD.findall(line)[::-1]
    return _WORD.sub(lambda _: words.pop(0), line)


RULES: dict[str, Callable[[str], str]] = {
    "respelled": respelled,
    "reversed": word_order_reversed,
}


@functools.cache
def _cipher() -> dict[int, int]:
    """Letter -> letter; no letter stays what it is."""
    table: dict[int, int] = {}
    for number, letters in enumerate(_ALPHABETS):
        order = seeded_permutation(len(letters), number)
        for place, i in enumerate(order):
            here, there = letters[int(i)], letters[int(order[(place + 1) % len(order)])]
            table |= {ord(here): ord(there), ord(here.upper()): ord(there.upper())}
    return table


def derive(text: str, rules: Sequence[str]) -> str:
    """Apply rules to every line of a text."""
    lines = text.split("\n")
    for rule in rules:
        lines = [RULES[rule](line) for line in lines]
    return "\n".join(lines)


def derived_text(text: TrainingText, code: str) -> TrainingText:
    """Training text in a derived language; document ids stay those of its source."""
    _, rules = split_language(code)

    def documents() -> Iterator[Document]:
        return (Document(document.id, derive(document.text, rules)) for document in text)

    changed = text.narrowed(documents, f"derived: {', '.join(rules)}")
    return dataclasses.replace(changed, language=code)


def natural_languages(codes: Sequence[str]) -> tuple[str, ...]:
    """The natural languages behind some codes, each once."""
    return tuple(dict.fromkeys(split_language(code)[0] for code in codes))


def derived_corpus(corpus: ParallelCorpus, codes: Sequence[str]) -> ParallelCorpus:
    """A parallel corpus with derived languages beside, or in place of, natural ones."""
    sentences = {}
    for code in codes:
        base, rules = split_language(code)
        sentences[code] = tuple(derive(sentence, rules) for sentence in corpus[base])
    return dataclasses.replace(corpus, sentences=sentences)
