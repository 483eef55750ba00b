import math
import re

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.plots.ladder import LADDER, RUNGS, ladder_info, on_scale
from repsim.plots.selection import MeasureFacts, Reading
from repsim.testing.tables import MEASURES, synthetic_table
from tests.planted.figures import drawn_texts

NAN = math.nan
UP = MeasureFacts("s", "s", "similarity", None, 1.0, 1.0, True, "L2")
DOWN = MeasureFacts("d", "d", "distance", 0.0, 2.0, 0.0, True, "L2")


def planted(scores):
    """A table of one cell per measure, at exactly these calibrated scores."""
    table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn",), measures=tuple(scores))
    rows = []
    for row in table.rows():
        best = 1.0 if MEASURES[row["measure"]].direction == "similarity" else 0.0
        null = MEASURES[row["measure"]].null
        value = null + (best - null) * scores[row["measure"]]
        rows.append(row | {"value": value, "ci_low": None, "ci_high": None})
    return type(table)(rows, table.info)


def test_a_similarity_is_zero_at_the_null_and_one_on_identical_input():
    assert on_scale(Reading(0.2, NAN, NAN, NAN, 0.2, NAN, NAN), UP).score == 0
    assert on_scale(Reading(1.0, NAN, NAN, NAN, 0.2, NAN, NAN), UP).score == 1
    assert on_scale(Reading(0.6, NAN, NAN, NAN, 0.2, NAN, NAN), UP).score == pytest.approx(0.5)


def test_a_distance_is_turned_round_with_its_interval():
    placed = on_scale(Reading(0.4, 0.2, 0.6, 1.2, 1.0, NAN, NAN), DOWN)
    assert (placed.score, placed.low, placed.high) == pytest.approx((0.6, 0.4, 0.8))
    assert placed.null == pytest.approx(-0.2)


def test_without_a_null_the_range_is_the_scale():
    assert on_scale(Reading(0.4, NAN, NAN, NAN, NAN, NAN, NAN), UP).score == pytest.approx(0.4)
    assert on_scale(Reading(0.5, NAN, NAN, NAN, NAN, NAN, NAN), DOWN).score == pytest.approx(0.75)


def test_scores_agree_with_the_calibrated_column(two_encoders):
    data = ladder_info(two_encoders, languages=["eng_Latn"])
    for row in data.rows:
        assert row.at.score == pytest.approx(row.reading.calibrated)


def test_measures_stand_on_their_rungs_lowest_first(two_encoders):
    rungs = ladder_info(two_encoders).pairs[0].rungs
    assert {rung: [row.facts.name for row in rows] for rung, rows in rungs.items()} == {
        "L0": ["unit_correlation"],
        "L1": ["permutation"],
        "L2": ["cka", "procrustes"],
        "L3": ["svcca"],
        "L4": ["mutual_knn"],
    }


def test_levels_and_steps_are_means_and_differences():
    table = planted({"unit_correlation": 0.1, "cka": 0.8, "procrustes": 0.6, "svcca": 0.75})
    pair = ladder_info(table).pairs[0]
    assert pair.level("L2") == pytest.approx(0.7)
    steps = [(a, b, round(rise, 6)) for a, b, rise in pair.steps()]
    assert steps == [("L0", "L2", 0.6), ("L2", "L3", 0.05)]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"unit_correlation": 0.05, "cka": 0.8}, r"Largest step L0 to L2, \+0.75: they share a"),
        ({"unit_correlation": 0.05, "permutation": 0.7, "cka": 0.8}, r"L0 to L1, \+0.65: .* order"),
        ({"cka": 0.1, "svcca": 0.6}, r"L2 to L3, \+0.50: they share information, but not the geom"),
        ({"svcca": 0.1, "mutual_knn": 0.6}, r"L3 to L4, \+0.50: they agree on who is whose neigh"),
        ({"unit_correlation": 0.82, "cka": 0.8}, r"No step reaches 0.1: .*0.82 at L0.* first rung"),
        ({"unit_correlation": 0.0, "cka": 0.05}, r"No rung rises above 0.1: they share little"),
    ],
)  # fmt: skip
def test_the_reading_is_that_of_the_steps(scores, words):
    assert re.search(words, ladder_info(planted(scores)).reading)


def test_several_languages_are_averaged_and_kept_as_dots(two_encoders):
    row = ladder_info(two_encoders).pairs[0].rungs["L2"][0]
    assert row.members.shape == (6,)
    assert row.at.score == pytest.approx(row.members.mean())


def test_an_unbounded_distance_without_null_is_left_out_and_named(table_of):
    declared = {
        "s": {"label": "s", "rung": "L0", "range": [0, 1.0], "identity_value": 1.0},
        "d": {"label": "far", "rung": "L2", "direction": "distance", "range": [0, None],
              "identity_value": 0.0},
    }  # fmt: skip
    rows = [{"measure": "s", "value": 0.5}, {"measure": "d", "value": 3.0}]
    data = ladder_info(table_of(rows, declared))
    assert "left out, no scale: far" in data.note
    with pytest.raises(UsageError, match="no measure of the ladder can be put on a common scale"):
        ladder_info(table_of(rows[1:], declared))


def test_measures_beside_the_ladder_alone_are_refused(table_of):
    declared = {"other": {"label": "other", "rung": None}}
    with pytest.raises(UsageError, match="none of the measures .* stands on the invariance ladder"):
        ladder_info(table_of([{"measure": "other", "value": 0.5}], declared))


def test_an_unknown_measure_is_named(two_encoders):
    with pytest.raises(UsageError, match="unknown measure in this table 'ckaa'"):
        ladder_info(two_encoders, measures=["ckaa"])


def test_more_than_four_pairs_are_cut_and_said_or_refused(four_roles):
    data = ladder_info(four_roles)
    assert len(data.pairs) == 4
    assert data.note[0].startswith("4 of 6 pairs of models, least to most alike")
    with pytest.raises(UsageError, match="6 pairs of models; the ladder shows 4 at most"):
        ladder_info(four_roles, models=["mono-en", "mono-fi", "mixed", "merged-linear"])


def test_a_pair_that_lacks_a_measure_is_named(table_of):
    declared = {name: {"label": name, "rung": "L0"} for name in ("s", "t")}
    rows = [{"measure": "s", "value": 0.5}, {"measure": "s", "value": 0.5, "model_b": "c"},
            {"measure": "t", "value": 0.5}]  # fmt: skip
    with pytest.raises(UsageError, match="the table has no 't' for a and c"):
        ladder_info(table_of(rows, declared))


def test_scores_intervals_and_levels_are_drawn_as_prepared(two_encoders):
    data = ladder_info(two_encoders)
    ax = LADDER.draw(data).axes[0]
    points = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in ax.lines
        if len(line.get_xdata()) == 1 and line.get_marker() == "o"
    ]
    scores = [row.at.score for row in data.rows]
    np.testing.assert_allclose([x for x, _ in points], scores)
    heights = [y for _, y in points]
    assert heights == sorted(heights)
    assert ax.yaxis_inverted()
    segments = [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert all((row.at.low, row.at.high) in segments for row in data.rows)
    bars = [patch.get_width() for patch in ax.patches if patch.get_x() == 0]
    np.testing.assert_allclose(bars[:5], [data.pairs[0].level(rung) for rung in RUNGS])


def test_the_largest_step_stands_out(two_encoders):
    data = ladder_info(two_encoders)
    ax = LADDER.draw(data).axes[0]
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert bold == [f"+{max(rise for *_, rise in data.pairs[0].steps()):.2f}"]


def test_questions_values_and_nulls_stand_beside_the_rungs(two_encoders):
    texts = {text.string.replace("\n", " ") for text in drawn_texts(LADDER(two_encoders))}
    assert {question for _, question in RUNGS.values()} <= texts
    assert {"value", "null", "identical", "CKA (debiased) ↑", "angular Procrustes ↓"} <= texts
    narrow = {text.string for text in drawn_texts(LADDER(two_encoders, size="single"))}
    assert {question for _, question in RUNGS.values()} <= narrow


def test_scores_without_null_are_hollow():
    table = synthetic_table(nulls=False, languages=("eng_Latn",))
    data = ladder_info(table)
    assert not data.is_calibrated
    figure = LADDER.draw(data)
    faces = {
        line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"
    }
    assert faces == {"white"}
    assert "unrelated" in {text.string for text in drawn_texts(figure)}


def test_the_caption_states_scale_levels_and_reading(two_encoders):
    data = ladder_info(two_encoders)
    caption = data.caption()
    for words in ("0 is the 95 % quantile under shuffled", "n = 686 sentences", "middle layer",
                  f"L0 {data.pairs[0].level('L0'):.2f}", data.reading):  # fmt: skip
        assert words in caption
