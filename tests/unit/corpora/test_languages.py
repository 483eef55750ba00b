"""What people write for a language, and what is meant."""

from __future__ import annotations

import pytest

from repsim.core import InputError, UsageError
from repsim.corpora.languages import choose_languages, parse_language


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("eng_Latn", "eng_Latn"), ("en", "eng_Latn"), ("eng", "eng_Latn"), ("EN", "eng_Latn"),
        ("en_US", "eng_Latn"), ("pt-BR", "por_Latn"), ("eng_latn", "eng_Latn"),
        ("ar", "arb_Arab"), ("fa", "pes_Arab"), ("sw", "swh_Latn"), ("zh-Hans", "zho_Hans"),
        ("zh_TW", "zho_Hant"), ("zh-CN", "zho_Hans"), ("cmn_Hans", "zho_Hans"),
        ("ekk_Latn", "est_Latn"), ("fil_Latn", "tgl_Latn"), ("hsb_Latn", "hsb_Latn"),
        ("cat_Latn_valencia", "cat_Latn_valencia"), ("zh", "zho"), ("sr", "srp"),
    ],
)  # fmt: skip
def test_a_code_means_its_flores_code(written: str, label: str) -> None:
    tag = parse_language(written)
    assert tag is not None
    assert tag.label == label


@pytest.mark.parametrize(
    "written", ["", "text", "url", "ids", "hsb", "english", "score1", "eng_Lat"]
)
def test_other_words_are_no_codes(written: str) -> None:
    assert parse_language(written) is None


def test_the_order_asked_for_is_kept() -> None:
    chosen = choose_languages(["de", "eng"], ["eng_Latn", "fra_Latn", "deu_Latn"], where="c")
    assert list(chosen) == ["deu_Latn", "eng_Latn"]


def test_an_open_code_is_decided_by_what_the_corpus_holds() -> None:
    assert choose_languages(["zh"], ["zho_Hans"], where="c") == {"zho_Hans": "zho_Hans"}
    assert choose_languages(["zho_Hant"], ["en", "zh"], where="c") == {"zho_Hant": "zh"}
    assert choose_languages(["pt_BR"], ["por_Latn"], where="c") == {"por_Latn": "por_Latn"}


def test_an_ambiguous_code_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'zh' is ambiguous in c \(hint: one of: zho_Hans, zho_H"):
        choose_languages(["zh"], ["zho_Hans", "zho_Hant"], where="c")


def test_columns_of_one_language_keep_their_own_names() -> None:
    assert list(choose_languages(None, ["pt_BR", "pt_PT"], where="c")) == ["pt_BR", "pt_PT"]
    with pytest.raises(UsageError, match="'pt' is ambiguous"):
        choose_languages(["pt"], ["pt_BR", "pt_PT"], where="c")


def test_a_missing_language_suggests_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown language 'deu_Lat' in c .*mean 'deu_Latn'"):
        choose_languages(["deu_Lat"], ["eng_Latn", "deu_Latn"], where="c")
    with pytest.raises(UsageError, match="unknown language 'fi' in c"):
        choose_languages(["fi"], ["eng_Latn", "deu_Latn"], where="c")
    with pytest.raises(UsageError, match="unknown language 'pt_PT' in c"):
        choose_languages(["pt_PT"], ["eng_Latn", "pt_BR"], where="c")


def test_a_language_may_not_be_asked_for_twice_or_not_at_all() -> None:
    with pytest.raises(UsageError, match=r"eng_Latn is asked for twice \('eng_Latn'\)"):
        choose_languages(["en", "eng_Latn"], ["eng_Latn", "deu_Latn"], where="c")
    with pytest.raises(UsageError, match="no language is asked for"):
        choose_languages([], ["eng_Latn"], where="c")
    with pytest.raises(InputError, match="c holds no language"):
        choose_languages(None, [], where="c")
