"""The corpora inside the package are what they say they are."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata

import pytest

from repsim.corpora import CORPORA, list_corpora, load_corpus
from repsim.corpora.builtin import DATA_FOLDER, BuiltinCorpus

HASHES = {
    "kolibri": "8ee53a0e332eaab295d7bf640f7c5c955277019a486e8dc79b85196c12ce0344",
    "udhr": "f42f4055cdf57dee4fb7493d822a0417b25327e0ebb70aeae63967d495f70cf5",
}


@pytest.mark.parametrize("known", list_corpora(), ids=lambda known: known.name)
def test_a_builtin_corpus_has_what_it_claims(known: BuiltinCorpus) -> None:
    corpus = load_corpus(known.name)
    assert (len(corpus.languages), len(corpus)) == (known.languages, known.sentences)
    assert len(set(corpus.documents)) == int(known.documents.split()[0])
    assert known.licence in corpus.source
    assert known.source in corpus.source
    assert known.caution in corpus.notes
    for language, lines in corpus.sentences.items():
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", language)
        assert len(set(lines)) == len(lines)
        assert all(line == unicodedata.normalize("NFC", line.strip()) != "" for line in lines)


@pytest.mark.parametrize("name", HASHES)
def test_the_shipped_text_does_not_change_unnoticed(name: str) -> None:
    assert load_corpus(name).hash == HASHES[name]


def test_the_corpora_have_29_and_54_languages_and_udhr_says_that_it_is_small() -> None:
    listed = {known.name: known for known in list_corpora()}
    assert (listed["kolibri"].languages, listed["udhr"].languages) == (29, 54)
    assert "only 48 sentences" in load_corpus("udhr", languages=["en"]).notes[0]
    assert listed["udhr"].path.stat().st_size == listed["udhr"].size < 200_000


def test_a_choice_of_languages_does_not_change_the_rows() -> None:
    assert load_corpus("kolibri", languages="en,zh").ids == load_corpus("kolibri").ids
    assert load_corpus("udhr", languages=["zh_TW"]).languages == ("zho_Hant",)


def test_paragraphs_of_one_article_are_one_document() -> None:
    corpus = load_corpus("udhr", languages=["en"])
    articles = dict(zip(corpus.ids, corpus.documents, strict=True))
    assert articles["11.0"] == articles["11.2"] == "article 11"
    assert corpus.covariates("eng_Latn")["length"][1] == len(corpus["eng_Latn"][1])


def test_the_notice_names_every_file_and_keeps_its_licence() -> None:
    notice = (DATA_FOLDER / "NOTICE.md").read_text(encoding="utf-8")
    for known in list_corpora():
        assert f"## {known.file}" in notice
    assert "Copyright (c) 2021 Learning Equality and other contributors" in notice
    assert "Copyright (c) Titus Wormer <tituswormer@gmail.com>" in notice
    assert notice.count("The above copyright notice and this permission notice shall be") == 2


def test_descriptions_are_json() -> None:
    described = json.loads(json.dumps([known.describe() for known in list_corpora()]))
    assert [entry["name"] for entry in described] == ["kolibri", "udhr", "bible-heldout"]
    assert described[0]["bytes"] > 100_000


def test_another_distribution_may_register_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = dataclasses.replace(CORPORA["udhr"], name="mine", caution="")
    monkeypatch.setitem(CORPORA._entries, "mine", mine)
    corpus = load_corpus("mine", languages=["en"], limit=3)
    assert corpus.name == "mine"
    assert corpus.notes == ("3 of 48 sentences drawn with seed 0",)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import repsim.corpora

    assert "load_corpus" in dir(repsim.corpora)
    with pytest.raises(AttributeError, match="has no attribute 'load_corpora'"):
        repsim.corpora.load_corpora  # noqa: B018
