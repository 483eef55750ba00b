"""Derived languages: exact, invertible where they say so, and the same wherever text is read."""

import pytest

from repsim.core.errors import UsageError
from repsim.corpora import load_corpus, load_training_text
from repsim.corpora.derived import (
    _ALPHABETS,
    _cipher,
    derive,
    natural_languages,
    respelled,
    split_language,
    word_order_reversed,
)

LINE = "In the beginning, God created the heavens and the earth."


def test_respelling_is_a_bijection_without_fixed_letters() -> None:
    table = _cipher()
    assert len(set(table.values())) == len(table)
    assert all(here != there for here, there in table.items())
    inverse = {there: here for here, there in table.items()}
    assert respelled(LINE).translate(inverse) == LINE


def test_respelling_keeps_vowels_case_punctuation_and_other_scripts() -> None:
    changed = respelled("Aa, Ββ 1 שלום")
    assert changed[0].lower() in _ALPHABETS[0]
    assert changed[0].isupper()
    assert changed[1].islower()
    assert changed.endswith(" 1 שלום")


def test_reversing_keeps_the_words_and_the_punctuation() -> None:
    changed = word_order_reversed(LINE)
    assert changed == "earth the and, heavens the created God beginning the In."
    assert word_order_reversed(changed) == LINE


def test_rules_apply_line_by_line_and_in_order() -> None:
    assert derive("one two\nthree four", ["reversed"]) == "two one\nfour three"
    both = derive(LINE, ["respelled", "reversed"])
    assert both == word_order_reversed(respelled(LINE))


def test_codes() -> None:
    assert split_language("eng_Latn~reversed") == ("eng_Latn", ("reversed",))
    assert natural_languages(["eng_Latn~reversed", "eng_Latn"]) == ("eng_Latn",)
    with pytest.raises(UsageError, match="unknown rule of a derived language 'revresed'"):
        split_language("eng_Latn~revresed")
    with pytest.raises(UsageError, match="names a rule twice"):
        split_language("eng_Latn~reversed~reversed")


def test_training_text_is_parallel_to_its_source() -> None:
    texts = load_training_text("bible", ["eng_Latn", "eng_Latn~reversed"], max_bytes=20_000)
    source, changed = (list(texts[code]) for code in ("eng_Latn", "eng_Latn~reversed"))
    assert [d.id for d in source] == [d.id for d in changed]
    assert changed[0].text == derive(source[0].text, ["reversed"])
    assert texts["eng_Latn~reversed"].language == "eng_Latn~reversed"
    assert "derived: reversed" in texts["eng_Latn~reversed"].choice


def test_parallel_text_with_a_derived_language() -> None:
    corpus = load_corpus("bible-heldout", languages=["deu_Latn", "eng_Latn~respelled"], limit=5)
    assert corpus.languages == ("deu_Latn", "eng_Latn~respelled")
    plain = load_corpus("bible-heldout", languages=["deu_Latn", "eng_Latn"], limit=5)
    assert corpus.ids == plain.ids
    assert corpus["eng_Latn~respelled"][0] == respelled(plain["eng_Latn"][0])
