"""Numbers, names and paths as people read them."""

import math

import pytest

from repsim.core import formatting as f
from repsim.core.errors import UsageError, expected, readable
from repsim.core.outcome_table import OutcomeTable
from repsim.core.pair_table import PairTable
from repsim.core.progress import duration
from repsim.core.provenance import shown_path, shown_text
from repsim.core.similarity_summary import SUMMARY_FIELDS, not_computed

FORMS = [
    (f.number, -0.5, "−0.50"),
    (f.number, -0.001, "0.00"),
    (f.number, math.nan, "–"),
    (f.brief, -0.01234, "−0.0123"),
    (f.brief, 12.0, "12"),
    (f.percent, 0.007, "0.7 %"),
    (f.percent, 0.0, "0 %"),
    (f.percent, 0.42, "42 %"),
    (f.percent, 0.998, "99.8 %"),
    (f.percent, 0.00001, "<0.1 %"),
    (
        f.singular,
        "2 models x 1 languages, 31 layers, 1 of 1 rows",
        "2 models x 1 language, 31 layers, 1 of 1 row",
    ),
    (f.listed, ["a", "b", "c"], "a, b and c"),
    (f.markdown_text, "<b>a|b</b> *c*", "&lt;b>a\\|b&lt;/b> \\*c\\*"),
    (f.markdown_text, "[a](b)\n# c", "\\[a\\](b) # c"),
    (f.markdown_text, "0.5 [0.4, 0.6]", "0.5 [0.4, 0.6]"),
    (f.markdown_text, "[1](b)", "\\[1\\](b)"),
    (f.markdown_name, "a`rm`_b", "a\\`rm\\`\\_b"),
    (f.markdown_name, "eng_Latn", "eng_Latn"),
    (duration, 44.6, "45 s"),
    (duration, 200, "3 min"),
    (duration, 9000, "2.5 h"),
    (shown_path, "/home/alice/models/en", "en"),
    (shown_path, "runs/en", "runs/en"),
    (shown_path, "hub:a/b", "hub:a/b"),
    (
        shown_text,
        "repsim compare /home/alice/en --out=/tmp/x hub:a/b https://c/d",
        "repsim compare en --out=x hub:a/b https://c/d",
    ),
]


@pytest.mark.parametrize(("form", "value", "words"), FORMS)
def test_people_read(form, value, words):
    assert form(value) == words


def test_digits_and_tables_of_markdown():
    assert f.number(0.1234, 3) == "0.123"
    assert f.markdown_lines(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_long_values_are_cut_in_the_middle():
    assert len(readable("column '" + "x" * 5000 + "'")) == 173


def test_errors_of_the_system_have_a_code_and_ours_are_none():
    assert expected(MemoryError()).exit_code == 5
    assert expected(PermissionError(13, "denied", "x")).what == "'x': denied"
    assert expected(ValueError("x")) is None


def test_what_lacks_an_interval_is_said_with_its_reason():
    row = dict.fromkeys(SUMMARY_FIELDS) | {"measure": "cka", "middle": 0.5, "n": 30}
    row |= {"middle_note": "no interval: 4 documents are too few", "middle_null_q95": 0.1}
    said = not_computed([row], {"cka": "CKA"}, 100)
    assert said == ["CKA has no interval (1 pair): 4 documents are too few"]


def test_tables_of_outcomes_and_of_pairs():
    row = {"parents": "a + b", "method": "mean", "outcome": 0.9, "feature:cosine": 0.2}
    table = OutcomeTable([row])
    assert (table.features, table.members) == (["cosine"], [("a", "b")])
    assert table.values().tolist() == [[0.2]]
    pairs = PairTable([{"a": "eng", "b": "deu", "merged_a": 0.6, "parent_a": 1.0, "floor_a": 0.5}])
    assert pairs.retention("a").round(3).tolist() == pairs.worst.round(3).tolist() == [0.2]
    with pytest.raises(UsageError):
        OutcomeTable([row]).where(nothing="x")
