import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsim.plots.checkpoints import counted
from repsim.plots.drawing.dark import turned
from repsim.plots.names import listed, number, short_codes, shortened, wrapped
from repsim.plots.study.outcomes import pair_label, recipe_label, value_words
from repsim.stats.bootstrap import Estimate


def test_scripts_are_dropped_only_where_codes_stay_distinct():
    codes = ["eng_Latn", "srp_Cyrl", "srp_Latn", "eng_Latn"]
    assert short_codes(codes) == {
        "eng_Latn": "eng", "srp_Cyrl": "srp_Cyrl", "srp_Latn": "srp_Latn",
    }  # fmt: skip


@given(st.text(min_size=1, max_size=60), st.integers(4, 40))
def test_shortened_names_fit_and_keep_both_ends(text, width):
    short = shortened(text, width)
    assert len(short) <= width
    assert short[0] == text[0]
    assert short[-1] == text[-1]


@given(st.text(alphabet="ab-_/ ", min_size=1, max_size=60), st.integers(6, 30), st.integers(1, 3))
def test_wrapped_names_keep_within_lines_and_width(text, width, lines):
    rows = wrapped(text, width, lines).split("\n")
    assert len(rows) <= lines
    assert max(len(row) for row in rows) <= width


def test_wrapping_loses_no_character_of_a_name_that_fits():
    assert wrapped("multilingual-e5-small", 14).replace("\n", "") == "multilingual-e5-small"


@pytest.mark.parametrize(
    ("value", "text"), [(0.126, "0.13"), (-0.126, "−0.13"), (-0.001, "0.00"), (float("nan"), "–")]
)
def test_numbers_have_a_true_minus_and_no_negative_zero(value, text):
    assert number(value) == text


def test_lists_read_as_prose():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "a", "a and b", "a, b and c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "arguments", "words"),
    [
        (counted, [1500], "1,500"),
        (counted, [119_808], "120k"),
        (counted, [2_500_000], "2.5M"),
        (counted, [0], "0"),
        (turned, ["#FFFFFF"], "#161b22"),
        (turned, ["#1F2733"], "#c4cedb"),
        (recipe_label, ["linear", "none"], "mean"),
        (recipe_label, ["slerp", "orthogonal"], "SLERP, rotated"),
        (pair_label, [["eng_Latn", "deu_Latn"]], "eng–deu"),
        (pair_label, [["eng_Latn"]], "eng–eng"),
        (value_words, [Estimate(0.5, -0.1, 0.9, 6, 12)], "0.50 [−0.10, 0.90]"),
    ],
)
def test_words_of_figures(form, arguments, words):
    assert form(*arguments) == words
