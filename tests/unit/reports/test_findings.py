"""The words of a report say what the numbers say, and nothing that they do not."""

import pytest

from repsim.core import SimilarityTable
from repsim.core.similarity_table import COLUMNS
from repsim.reports.comparison_findings import findings


def table(*rows: dict[str, object], widths: tuple[int, int] = (8, 8), **info: object):
    filled = [
        dict.fromkeys(COLUMNS)
        | {
            "model_a": "a", "model_b": "b", "language_a": "eng_Latn", "language_b": "eng_Latn",
            "layer_a": 1, "layer_b": 1, "point": "resid", "pairing": "same text", "measure": "cka",
            "params": "{}", "value": 0.8, "null_mean": 0.0, "null_q95": 0.01, "calibrated": 0.79,
            "p_adjusted": 0.01, "n": 600, "seed": 0, "note": "",
        }
        | row
        for row in rows
    ]  # fmt: skip
    declared = {
        "measures": {
            "cka": {"label": "CKA", "rung": "L2", "direction": "similarity"},
            "unit_correlation": {"label": "units", "rung": "L0", "direction": "similarity"},
        },
        "models": {"a": {"width": widths[0]}, "b": {"width": widths[1]}},
        "statistics": {"covariates": ["log_length"]},
    }
    return SimilarityTable(filled, declared | info)


def texts(t: SimilarityTable, kind: str) -> str:
    return "\n".join(f.text for f in findings(t) if f.kind == kind)


def units(value: float | None) -> dict[str, object]:
    return {"measure": "unit_correlation", "value": value, "calibrated": value}


def test_agreement_on_the_same_text_is_stated_with_its_null() -> None:
    said = texts(table({}, {"language_a": "deu_Latn", "language_b": "deu_Latn", "value": 0.6}),
                 "result")  # fmt: skip
    assert "CKA at matched depth is 0.70 on average over 2 languages" in said
    assert "lowest 0.60 in deu_Latn, highest 0.80 in eng_Latn" in said
    assert "2 of 2 layer pairs lie beyond" in said


def test_without_a_null_none_is_claimed() -> None:
    said = texts(table({"p_adjusted": None}), "result")
    assert "No null was computed" in said
    assert "lie beyond" not in said


@pytest.mark.parametrize(
    ("geometry", "unit_score", "phrase"),
    [
        (0.8, 0.01, "share geometry but not coordinates"),
        (0.8, 0.3, "share part of their coordinates"),
        (0.8, 0.75, "they share their coordinates"),
        (0.02, 0.01, "share little geometry beyond chance"),
    ],
)
def test_the_gap_between_the_rungs_is_read(geometry: float, unit_score: float, phrase: str) -> None:
    t = table({"value": geometry, "calibrated": geometry}, units(unit_score))
    assert phrase in texts(t, "result")


def test_models_of_different_width_have_no_common_units() -> None:
    said = texts(table({}, units(None), widths=(8, 16)), "result")
    assert "cannot be compared unit by unit (widths 8 and 16)" in said


def test_translations_name_the_most_alike_layer() -> None:
    rows = [
        {
            "model_b": "a", "language_b": "deu_Latn", "pairing": "parallel text", "layer_a": layer,
            "layer_b": layer, "value": value,
        }
        for layer, value in enumerate([0.2, 0.9, 0.4])
    ]  # fmt: skip
    assert "most alike after layer 1 (0.90)" in texts(table(*rows), "result")


def test_a_covariate_that_carries_the_similarity_is_a_warning() -> None:
    assert "falls from 0.80 to 0.20" in texts(table({"partial": 0.2}), "warning")
    assert "falls" not in texts(table({"partial": 0.75}), "warning")


def test_few_sentences_notes_and_truncation_are_warnings() -> None:
    t = table({"n": 40, "note": "n <= d"}, extraction={"a": {"eng_Latn": {"truncated": 3}}})
    said = texts(t, "warning")
    assert "Only 40 sentences" in said
    assert "n <= d (CKA, 1 cells)" in said
    assert "read only the beginning of 3 sentences in eng_Latn" in said
