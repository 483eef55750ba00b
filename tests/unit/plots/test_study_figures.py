"""Figures of an atlas: their numbers against a planted retention, and what is drawn of them."""

import dataclasses
import functools
import math

import numpy as np
import pytest

from repsim.core.atlas import COLLAPSE, Atlas, FeatureTable, MergeTable, PathTable
from repsim.core.errors import UsageError
from repsim.plots import FIGURES
from repsim.plots.study.axes import _bent, retention_place, straightened
from repsim.plots.study.crossings import bracket_of, crossing_of
from repsim.plots.study.features import measured_pairs
from repsim.plots.study.outcomes import SETTINGS, cluster, outcomes_of
from tests.planted.atlases import FLOORS, GAINS, changed, planted_atlas, planted_retention
from tests.planted.figures import check_figure, drawn_texts

KINDS = [name.removeprefix("atlas_") for name in FIGURES if name.startswith("atlas_")]
NEEDS_FEATURES = ("depth", "plane", "distance")


@pytest.fixture(scope="module")
def atlas():
    return planted_atlas()


@pytest.fixture(scope="module")
def info_of(atlas):
    """Kind -> its numbers, computed once."""
    return functools.cache(lambda kind: FIGURES[f"atlas_{kind}"].info(atlas))


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_cut_off_or_covers_another(info_of, kind):
    check_figure(FIGURES[f"atlas_{kind}"].draw(info_of(kind)), slack=2.0)


@pytest.mark.parametrize("kind", ["forks", "depth", "plane", "alignment", "paths", "distance"])
def test_nor_in_one_column(info_of, kind):
    check_figure(FIGURES[f"atlas_{kind}"].draw(info_of(kind), size="single"), slack=2.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_states_what_is_shown(info_of, kind):
    caption = info_of(kind).caption()
    assert caption.endswith(".")
    assert "nan" not in caption
    assert len(caption) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_an_atlas_without_outcomes_says_so(atlas, kind):
    empty = dataclasses.replace(atlas, merges=MergeTable([]))
    with pytest.raises(UsageError, match="holds no merge with a defined retention"):
        FIGURES[f"atlas_{kind}"](empty)


@pytest.mark.parametrize("kind", NEEDS_FEATURES)
def test_an_atlas_without_features_says_so(kind):
    with pytest.raises(UsageError, match="features"):
        FIGURES[f"atlas_{kind}"](planted_atlas(features=False))


def test_every_merge_has_the_setting_of_its_arm(atlas):
    by_arm = {}
    for outcome in outcomes_of(atlas):
        by_arm.setdefault(outcome.arm, set()).add(outcome.setting)
    assert by_arm == {
        "A": {"same-init", "early-forks", "late-forks"},
        "B": {"independent", "one-language"},
        "E": {"doses"},
        "G": {"control"},
    }


@pytest.mark.parametrize(
    ("row", "models", "setting"),
    [
        ({"arm": "A2"}, {}, "mono-trunk"),
        ({"arm": "F"}, {}, "derived"),
        ({"arm": "D"}, {"tokenizer": "bytes"}, "bytes"),
        ({"arm": "D"}, {"tokenizer": "per-language"}, "tokenizers"),
        ({"arm": "A", "fork_fraction": 0.3}, {"role": "mixed"}, "with-trunk"),
        ({"arm": "C"}, {"trained_on": "eng_Latn"}, "data-order"),
    ],
)
def test_settings_that_the_planted_atlas_lacks(atlas, row, models, setting):
    first = next(atlas.merges.rows())
    parents = first["parents"].split(" + ")
    rows = [r | (models if r["model"] in parents else {}) for r in atlas.models.rows()]
    merges = [r | row for r in atlas.merges.rows() if r["merge"] == first["merge"]]
    made = dataclasses.replace(atlas, models=type(atlas.models)(rows), merges=MergeTable(merges))
    assert [outcome.setting for outcome in outcomes_of(made)] == [setting]
    assert setting in SETTINGS


def test_a_merge_without_retention_is_left_out(atlas):
    first = next(atlas.merges.rows())["merge"]
    less = changed(atlas, lambda row: row | {"worst_retention": None} if row["merge"] == first
                   else row)  # fmt: skip
    assert len(outcomes_of(less)) == len(outcomes_of(atlas)) - 1


def test_planned_fractions_that_steps_have_rounded_are_one():
    assert len(set(cluster([0.0, 0.0051, 0.0099, 0.0101, 0.1, 0.3]).values())) == 5


def test_strength_takes_the_merge_that_is_best_in_its_worst_language(atlas):
    rows = {row.label: row for row in FIGURES["atlas_strength"].info(atlas).rows}
    forks = rows["best merge: forks at 90 %"].models["deu_Latn"][0]
    best = planted_retention(0.9, 2, "linear", "none", shared=True)
    assert FLOORS["deu_Latn"] - GAINS["monolingual"] * (best + 0.1) == pytest.approx(forks.bits)
    assert forks.low == pytest.approx(forks.bits - 0.03 * GAINS["monolingual"])
    assert forks.high == pytest.approx(forks.bits + 0.03 * GAINS["monolingual"])


def test_strength_keeps_to_the_family_of_the_mixed_models(atlas):
    names = {
        model.name
        for row in FIGURES["atlas_strength"].info(atlas).rows
        for models in row.models.values()
        for model in models
    }
    assert not any("controls/" in name for name in names)


def test_cells_of_methods_hold_the_median_of_their_merges(atlas):
    data = FIGURES["atlas_methods"].info(atlas)
    for (setting, k), fraction in {("same-init", 3): 0.0, ("early-forks", 2): 0.1}.items():
        column = data.columns.index((setting, k))
        for recipe, label in {
            ("ties", "none"): "TIES",
            ("linear", "orthogonal"): "mean, rotated",
        }.items():
            expected = planted_retention(fraction, k, *recipe, shared=True)
            assert data.medians[data.recipes.index(label), column] == pytest.approx(expected)
    assert data.collapsed[:, data.columns.index(("same-init", 2))] == pytest.approx(1.0)
    assert data.collapsed[0, data.columns.index(("doses", 2))] == 0


def test_combinations_keep_plain_and_best_apart(atlas):
    panel = FIGURES["atlas_combinations"].info(atlas).panels[0]
    assert panel.title == "independent weights"
    assert panel.plain == pytest.approx(np.full((4, 4), -2.0))
    assert panel.best == pytest.approx(np.full((4, 4), -1.0))
    forks = FIGURES["atlas_combinations"].info(atlas).panels[1]
    assert np.isnan(np.diag(forks.plain)).all()
    assert forks.plain[0, 1] == forks.plain[1, 0] == -1.0


def test_doses_of_different_size_are_different_panels(atlas):
    titles = [panel.title for panel in FIGURES["atlas_combinations"].info(atlas).panels]
    assert titles[-2:] == ["fine-tuned, 33 % alone", "fine-tuned, 9 % alone"]


def test_a_crossing_is_the_last_one():
    fractions = np.array([0.01, 0.03, 0.1, 0.3])
    values = np.array([0.6, 0.2, 0.4, 0.8])
    assert bracket_of(fractions, values) == (0.1, 0.3)
    between = math.exp(math.log(0.1) + 0.25 * math.log(3))
    assert crossing_of(fractions, values) == pytest.approx(between)


def test_a_series_that_is_never_below_crosses_at_its_beginning():
    assert crossing_of(np.array([0.0, 0.1]), np.array([0.5, 0.9])) == 0.0


def test_no_crossing_is_made_up_across_a_wide_gap(atlas):
    gap = changed(atlas, lambda row: None if row["arm"] == "A" and row["fork_fraction"] == 0.3
                  and "arb" in row["parents"] else row)  # fmt: skip
    data = FIGURES["atlas_forks"].info(gap)
    plain = next(crossing for crossing in data.crossings if crossing.recipe == "mean")
    assert (plain.pairs, plain.coarse, plain.bracket) == (3, 3, (0.1, 0.9))
    assert plain.at.value == pytest.approx(math.exp(math.log(0.1) + 0.5 * math.log(3)))
    assert plain.words() == "17 % (3 pairs, 17 % to 17 %; 3 others between 10 % and 90 %)"


def test_medians_over_pairs_take_pairs_that_are_there_at_every_fraction(atlas):
    gap = changed(atlas, lambda row: None if row["arm"] == "A" and row["fork_fraction"] == 0.3
                  and "arb" in row["parents"] else row)  # fmt: skip

    def shifted(row):
        return (
            row | {"worst_retention": row["worst_retention"] - 5}
            if "arb" in row["parents"]
            else row
        )

    series = FIGURES["atlas_forks"].info(changed(gap, shifted)).recipes[0]
    assert series.label == "mean"
    assert series.values == pytest.approx([-1.0, 0.25, 0.75, 0.75])


def test_merges_that_never_live_are_said_never_to():
    drowned = changed(planted_atlas(), lambda row: row | {"worst_retention": -1.0})
    crossing = FIGURES["atlas_forks"].info(drowned).crossings[0]
    assert math.isinf(crossing.at.value)
    assert crossing.words().startswith("never (6 pairs, never to never")


def test_depth_parts_pairs_by_what_became_of_them(atlas):
    data = FIGURES["atlas_depth"].info(atlas)
    panel = next(panel for panel in data.panels if panel.label == "debiased CKA")
    living, dead = panel.curves
    assert (living.survives, dead.survives) == (True, False)
    pairs = measured_pairs(atlas, "cka_late")
    expected = np.median([p.values["cka_late"] for p in pairs if not p.outcome.collapsed])
    assert living.middle[3].value == pytest.approx(expected)
    assert len(living.lines) + len(dead.lines) == len(pairs)


def test_pairs_without_similarities_are_not_counted(atlas):
    one = next(row["parents"] for row in atlas.features.rows())
    less = dataclasses.replace(
        atlas, features=FeatureTable(r for r in atlas.features.rows() if r["parents"] != one)
    )
    counted = FIGURES["atlas_depth"].info(less).note[0]
    assert counted == "24 pairs survive, 27 collapse"


def test_the_plane_states_how_well_each_rung_tells(atlas):
    data = FIGURES["atlas_plane"].info(atlas)
    assert "L0 1.00 and L2 0.93" in data.caption()
    one = next(profile for profile in data.profiles if profile.setting == "one-language")
    assert (one.survive, one.pairs) == (0, 4)
    assert one.values[2] > 0.7 > 0 > one.values[0]


def test_the_courses_of_the_plane_are_those_of_its_outcomes(atlas):
    data = FIGURES["atlas_plane"].info(atlas)
    pairs = measured_pairs(atlas, "unit_correlation_middle", "cka_middle")
    alive = [pair.values["cka_middle"] for pair in pairs if not pair.outcome.collapsed]
    survives, collapses = data.courses
    at = data.rungs.index("L2")
    ends = [getattr(survives, end)[at] for end in ("low", "middle", "high")]
    assert ends == pytest.approx(np.quantile(alive, (0.25, 0.5, 0.75)).tolist())
    assert survives.pairs + collapses.pairs == len(pairs) == len(data.points)
    figure = FIGURES["atlas_plane"](atlas)
    assert len(figure.legends[0].get_texts()) == 2


def test_colours_of_retention_tell_what_is_far_below_from_what_is_a_little_below():
    places = retention_place([-4.7, -1.0, 0.0, COLLAPSE - 1e-9, COLLAPSE, 1.0])
    assert (np.diff(places) > 0.05).all()
    values = np.array([-40.0, -2.0, -1.0, 0.3, 1.2])
    assert _bent(straightened(values)) == pytest.approx(values)


def test_rows_of_barriers_show_every_path_and_the_median_of_their_highest_points(atlas):
    data = FIGURES["atlas_paths"].info(atlas)
    (ax,) = FIGURES["atlas_paths"](atlas).axes
    groups = [group for panel in data.panels for group in panel.groups]
    small = [line for line in ax.lines if line.get_marker() == "|"]
    for line, group in zip(small, groups, strict=True):
        assert line.get_xdata() == pytest.approx(group.above.max(axis=1))
    large = {line.get_xdata()[0] for line in ax.lines if line.get_zorder() == 4}
    assert large == {group.barrier.value for group in groups}


def test_fates_of_groups_are_counted_in_the_panel(atlas):
    data = FIGURES["atlas_alignment"].info(atlas)
    figure = FIGURES["atlas_alignment"](atlas)
    for ax, panel in zip(figure.axes, data.panels, strict=True):
        rescued = sum(group.fate == "rescued" for group in panel.groups)
        collapsed = sum(group.naive < COLLAPSE for group in panel.groups)
        assert f"rescued: {rescued} of {collapsed}" in {text.get_text() for text in ax.texts}


def test_no_point_of_an_axis_of_retention_is_cut(atlas):
    for kind in ("alignment", "distance"):
        for ax in FIGURES[f"atlas_{kind}"](atlas).axes:
            points = [p for line in ax.lines if line.get_linestyle() == "None"
                      for p in ax.transData.transform(line.get_xydata())]  # fmt: skip
            box = ax.get_window_extent()
            assert all(box.y0 + 2 <= y <= box.y1 - 2 for _, y in points)


def test_alignment_rescues_the_twins_and_nothing_else(atlas):
    by_name = {panel.alignment: panel for panel in FIGURES["atlas_alignment"].info(atlas).panels}
    rescued = {
        name: {s.setting: (s.rescued, s.collapsed) for s in panel.settings if s.rescued}
        for name, panel in by_name.items()
    }
    assert rescued == {"permutation": {"control": (2, 6)}, "orthogonal": {"control": (4, 6)}}
    gain = {s.setting: s.gain.value for s in by_name["orthogonal"].settings}
    assert gain["independent"] == pytest.approx(1.0)
    assert gain["same-init"] == 0


def test_distance_is_told_of_shared_initial_weights_only(atlas):
    panel = FIGURES["atlas_distance"].info(atlas).panels[0]
    assert not {"independent", "one-language", "control"} & set(panel.settings)
    assert panel.correlation is not None
    assert panel.correlation.value < -0.8


def test_a_control_that_fails_is_named(atlas):
    def broken(row):
        fails = row["control"] == "permuted" and row["alignment"] == "permutation"
        return row | {"worst_retention": 0.9} if fails else row

    assert "23 of 23 are as expected." in FIGURES["atlas_controls"].info(atlas).caption()
    caption = FIGURES["atlas_controls"].info(changed(atlas, broken)).caption()
    assert "21 of 23 are as expected." in caption
    assert "a model and its permuted twin, permuted (0 of 2)" in caption


def test_what_lies_far_below_zero_is_on_the_axis(atlas):
    deep = changed(
        atlas,
        lambda row: row | {"worst_retention": -40.0} if row["merge"].startswith("main/eng-f0 +")
        else row,
    )  # fmt: skip
    figure = FIGURES["atlas_alignment"](deep)
    for ax in figure.axes:
        assert ax.get_yscale() == ax.get_xscale() == "function"
        points = np.concatenate(
            [line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"]
        )
        assert ax.get_ylim()[0] < min(points) <= -40
    assert "−30" in {text.string for text in drawn_texts(figure)}


def test_an_atlas_that_was_saved_gives_the_same_numbers(atlas, tmp_path):
    atlas.save(tmp_path)
    again = Atlas.load(tmp_path)
    assert (
        FIGURES["atlas_forks"].info(again).caption() == FIGURES["atlas_forks"].info(atlas).caption()
    )


def test_barriers_are_the_highest_points_of_planted_paths(atlas):
    panels = {panel.setting: panel for panel in FIGURES["atlas_paths"].info(atlas).panels}
    assert "control" not in panels
    for setting, fraction, shared in [("same-init", 0.0, True), ("independent", 0.0, False)]:
        for group in panels[setting].groups:
            kept = planted_retention(fraction, 2, "linear", group.alignment, shared=shared)
            assert group.barrier.value == pytest.approx((1 - kept) * GAINS["monolingual"])
            assert group.above[:, [0, -1]] == pytest.approx(0.0)


def test_an_atlas_without_paths_says_so(atlas):
    with pytest.raises(UsageError, match="follows no path"):
        FIGURES["atlas_paths"](dataclasses.replace(atlas, paths=PathTable([])))
