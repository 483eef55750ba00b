"""A parallel corpus is aligned or it is not made."""

import numpy as np
import pytest

from repsim.core import InputError, ParallelCorpus, UsageError


def corpus(**changes: object) -> ParallelCorpus:
    fields = {
        "name": "c",
        "ids": ("1", "2", "3"),
        "sentences": {"eng_Latn": ("a", "bb", "ccc"), "deu_Latn": ("x", "yy", "zzz")},
    } | changes
    return ParallelCorpus(**fields)  # type: ignore[arg-type]


def test_it_gives_languages_sentences_and_documents() -> None:
    c = corpus()
    assert c.languages == ("eng_Latn", "deu_Latn")
    assert c["deu_Latn"] == ("x", "yy", "zzz")
    assert c.documents == c.ids
    assert c.describe()["sentences"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ()}, "holds no sentences"),
        ({"sentences": {}}, "holds no sentences"),
        ({"ids": ("1", "1", "3")}, "repeated sentence ids"),
        ({"documents": ("d",)}, "1 document ids for 3 sentences"),
        ({"sentences": {"eng_Latn": ("a", "b")}}, "misaligned: 2 sentences in eng_Latn, 3 ids"),
        ({"sentences": {"eng_Latn": ("a", " ", "c")}}, "sentence '2' is empty in eng_Latn"),
    ],
)
def test_a_broken_corpus_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        corpus(**changes)


def test_an_unknown_language_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean 'deu_Latn'"):
        corpus()["deu_Lat"]


def test_the_hash_depends_on_every_part() -> None:
    base = corpus()
    assert base.hash == corpus().hash
    assert base.hash != corpus(ids=("1", "2", "4")).hash
    other = corpus(sentences={"eng_Latn": ("a", "bb", "ccd"), "deu_Latn": ("x", "yy", "zzz")})
    assert base.hash != other.hash
    assert base.language_hash("deu_Latn") == other.language_hash("deu_Latn")
    assert base.language_hash("eng_Latn") != other.language_hash("eng_Latn")


def test_selection_keeps_ids_and_order() -> None:
    c = corpus().select(languages=["deu_Latn"], rows=[2, 0])
    assert c.languages == ("deu_Latn",)
    assert c.ids == ("3", "1")
    assert c["deu_Latn"] == ("zzz", "x")


def test_a_sample_is_in_order_and_depends_only_on_the_seed() -> None:
    big = ParallelCorpus("b", tuple(map(str, range(50))), {"eng_Latn": tuple("abcde" * 10)})
    one, two = big.sample(10, seed=1), big.sample(10, seed=1)
    assert one.ids == two.ids != big.sample(10, seed=2).ids
    assert list(map(int, one.ids)) == sorted(map(int, one.ids))
    assert big.sample(500) is big


def test_covariates_are_lengths_in_characters() -> None:
    np.testing.assert_array_equal(corpus().covariates("eng_Latn")["length"], [1, 2, 3])
