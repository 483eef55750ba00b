"""Figures of a validation show the rows they are given, and leave nothing out in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.plots import FIGURES
from repsim.plots.appearance import Size
from repsim.plots.validation.forecasts import LOWEST
from repsim.plots.validation.intervals import GOAL
from tests.planted.figures import check_figure, drawn_texts

SPLITS = ("leave-models-out", "train A,E, test B")
Rows = list[dict[str, Any]]


def info(kind: str, rows: Rows, **options: Any) -> Any:
    return FIGURES[f"validation_{kind}"].info(rows, **options)


def draw(kind: str, rows: Rows, **options: Any) -> Any:
    return FIGURES[f"validation_{kind}"](rows, **options)


def forecasts(n: int = 12, splits: tuple[str, ...] = SPLITS) -> Rows:
    """Retention from -1.2 to 1; forecasts 0.05 above; every fourth misses its interval."""
    rows = []
    for split in splits:
        for i, observed in enumerate(np.linspace(-1.2, 1.0, n)):
            miss = 0.5 if i % 4 == 0 else 0.05
            rows.append({
                "split": split, "stratum": "shared" if i % 2 else "other", "observed": observed,
                "predicted": observed + miss, "low": observed + miss - 0.2,
                "high": observed + miss + 0.2, "p_collapse": 0.9 if observed < 0.3 else 0.2,
                "collapsed": int(observed < 0.5), "refused": 0,
            })  # fmt: skip
    return rows


def lifts() -> Rows:
    values = {"mean": (0.4, 0.3, 0.5), "cosine": (0.02, -0.1, 0.1), "cka": (-0.2, -0.3, -0.1)}
    rows: Rows = [
        {"split": split, "baseline": name, "lift": v, "low": low, "high": high}
        for split in SPLITS
        for name, (v, low, high) in values.items()
    ]
    return [*rows, rows[0] | {"baseline": "fork", "low": None, "high": None}]


def intervals() -> Rows:
    return [
        {"split": split, "stratum": stratum, "coverage": 0.9 - 0.3 * place, "coverage_low": 0.5,
         "coverage_high": 0.95, "width": 0.4, "refused": 0.1 * place}
        for split in SPLITS for place, stratum in enumerate(("all", "shared"))
    ]  # fmt: skip


def controls() -> Rows:
    row = {"predicted": 0.9, "low": 0.7, "high": 1.0, "observed": 1.0, "right": 1}
    return [
        {"control": "itself", **row},
        {"control": "rotated twin", **row, "observed": -3.0, "right": 0},
        {"control": "untrained", **dict.fromkeys(row), "observed": -0.1},
    ]


def candidates() -> Rows:
    made = [("T0", "tiers", 0.3), ("ridge", "regressor", 0.12), ("T0+T1", "tiers", 0.1)]
    return [
        {"candidate": name, "kind": kind, "value": error, "low": error - 0.02,
         "high": error + 0.03, "chosen": name == "T0+T1"}
        for name, kind, error in made
    ]  # fmt: skip


def hypotheses() -> Rows:
    head = {"hypothesis": "H1", "statement": "similarity is needed and is not enough to survive",
            "verdict": "supported"}  # fmt: skip
    return [
        head | {"quantity": "share surviving where alike", "value": 0.4, "low": 0.3, "high": 0.5},
        head | {"quantity": "share surviving where not", "value": 0.0, "low": None, "high": None},
        head | {"hypothesis": "H4", "verdict": "undecided", "quantity": "correlation",
                "value": -0.1, "low": -0.4, "high": 0.3},
    ]  # fmt: skip


DRAWN: dict[str, Callable[..., Any]] = {
    "forecasts": lambda **o: draw(
        "forecasts",
        forecasts(),
        notes=dict.fromkeys(SPLITS, "ρ 0.93 · MAE 0.08 · coverage 91 %"),
        **o,
    ),
    "one split": lambda **o: draw("forecasts", forecasts(splits=("a",)), **o),
    "reliability": lambda **o: draw("reliability", forecasts(), **o),
    "lift": lambda **o: draw("lift", lifts(), axis="gain in Spearman correlation", **o),
    "intervals": lambda **o: draw("intervals", intervals(), **o),
    "controls": lambda **o: draw("controls", controls(), **o),
    "candidates": lambda **o: draw("candidates", candidates(), axis="mean absolute error", **o),
    "hypotheses": lambda **o: draw("hypotheses", hypotheses(), **o),
}


@pytest.mark.parametrize("size", ["single", "wide"])
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_cut_off_or_covered(name: str, size: Size) -> None:
    check_figure(DRAWN[name](size=size))


def test_forecasts_beyond_the_edge_are_drawn_there_and_counted() -> None:
    rows = forecasts()
    beyond = 2 * sum(min(row["observed"], row["predicted"]) <= LOWEST for row in rows[:12])
    assert beyond > 0
    data = info("forecasts", rows)
    assert f"{beyond} points at or below −1.0 drawn at the edge" in data.note
    ax = draw("forecasts", rows).axes[0]
    drawn = np.concatenate([
        np.asarray(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "None"
    ])  # fmt: skip
    np.testing.assert_allclose(
        np.sort(drawn), np.sort([max(row["observed"], LOWEST) for row in rows[:12]])
    )


def test_coverage_is_the_share_of_bars_that_meet_the_diagonal() -> None:
    data = info("forecasts", forecasts(n=12))
    assert data.panels[0].coverage == pytest.approx(9 / 12)
    assert "leave-models-out: 12 forecasts, 75 % in their interval" in data.caption()


def test_refusals_are_shown_apart_and_do_not_count() -> None:
    rows = forecasts(splits=("a",))
    for row in rows[::4]:
        row["refused"] = 1
    data = info("forecasts", rows)
    assert data.panels[0].coverage == 1.0
    assert set(np.flatnonzero(~data.panels[0].refused).tolist()) == {i for i in range(12) if i % 4}
    assert (
        "a: 9 forecasts, 100 % in their interval (75 % with the 3 that it would refuse)"
        in data.caption()
    )
    figure = draw("forecasts", rows)
    (crosses,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses.get_xdata()) == 3
    assert "refused" in {text.string for text in drawn_texts(figure)}


def test_many_forecasts_are_drawn_as_a_density_that_holds_all_of_them() -> None:
    rows = forecasts(n=400, splits=("a",))
    data = info("forecasts", rows)
    (panel,) = data.panels
    assert not panel.sparse
    assert not any("bars" in piece for piece in data.note)
    figure = draw("forecasts", rows)
    (mesh,) = [c for c in figure.axes[0].collections if c.get_label().startswith("_") and
               type(c).__name__ == "QuadMesh"]  # fmt: skip
    assert mesh.get_array().sum() == 400
    for middle, low, median, high in panel.course:
        assert low <= median <= high
        assert panel.predicted.min() <= middle <= panel.predicted.max()
    check_figure(figure)


def test_bins_of_few_merges_are_hollow() -> None:
    rows: Rows = [{"split": "a", "p_collapse": p, "collapsed": int(i % 10 < 10 * p)}
                  for p, n in ((0.15, 5), (0.85, 50)) for i in range(n)]  # fmt: skip
    ax = draw("reliability", rows).axes[0]
    faces = {
        line.get_xdata()[0]: line.get_markerfacecolor()
        for line in ax.lines
        if line.get_linestyle() == "None" and len(line.get_xdata())
    }
    few, many = (next(f for x, f in faces.items() if abs(x - at) < 1e-6) for at in (0.15, 0.85))
    assert few == "white" != many


def test_reliability_bins_scores_and_refusals() -> None:
    pairs = [(0.0, 0), (0.05, 0), (0.62, 1), (0.68, 0), (1.0, 1), (None, 1)]
    rows: Rows = [{"split": "a", "p_collapse": p, "collapsed": c} for p, c in pairs]
    panel = info("reliability", rows).panels[0]
    assert panel.count.tolist() == [2, 0, 0, 0, 0, 0, 2, 0, 0, 1]
    assert panel.mean[6] == pytest.approx(0.65)
    assert panel.share[[0, 6, 9]].tolist() == [0.0, 0.5, 1.0]
    assert panel.brier == pytest.approx((0.05**2 + 0.38**2 + 0.68**2) / 5)
    assert panel.ece == pytest.approx((2 * 0.025 + 2 * 0.15) / 5)
    assert panel.base == pytest.approx(0.4 * 0.6)


def test_lift_says_who_is_better_and_orders_by_strength() -> None:
    data = info("lift", lifts(), axis="gain", labels={"cka": "CKA (debiased)"})
    assert data.baselines == ("CKA (debiased)", "cosine", "mean", "fork")
    assert [p.outcome for p in data.panels[0].points] == [
        "worse", "not told apart", "better", "no interval"
    ]  # fmt: skip
    assert np.isnan(data.panels[1].points[3].value)
    assert "leave-models-out: better than 1 of 4, worse than 1, closest CKA" in data.caption()
    shown = {text.string for text in drawn_texts(draw("lift", lifts(), axis="gain"))}
    assert {
        "predictor better",
        "predictor worse",
        "predictor not told apart",
        "no interval",
    } <= shown


def test_only_the_strongest_baselines_are_kept_where_asked_and_it_is_said() -> None:
    data = info("lift", lifts(), axis="gain", most=2)
    assert data.baselines == ("cka", "cosine")
    assert "the 2 strongest of 4 baselines" in data.note
    assert "shown are the 2 strongest of 4 baselines" in data.caption()


def test_intervals_are_drawn_beside_their_promise() -> None:
    frames = draw("intervals", intervals()).axes
    (band,) = frames[0].patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(GOAL)
    seen = [line.get_xdata()[0] for line in frames[0].lines if len(line.get_xdata()) == 1]
    assert seen == pytest.approx([0.9, 0.6, 0.9, 0.6])
    assert frames[0].get_xlim()[0] < 0.5
    assert "leave-models-out: coverage 90 %, mean width 0.40, 0 % refused" in (
        info("intervals", intervals()).caption()
    )


def test_controls_are_judged_as_the_rows_say() -> None:
    data = info("controls", controls())
    assert [line.words for line in data.lines] == ["right", "wrong", "refused"]
    said = "1 of 3 merges are right; wrong: rotated twin (1); refused: untrained (1)"
    assert said in data.caption()
    words = [text.string for text in drawn_texts(draw("controls", controls()))]
    assert [word for word in words if word in {"right", "wrong", "refused"}] == [
        "right", "wrong", "refused"
    ]  # fmt: skip


def test_merges_of_one_control_share_a_line() -> None:
    rows = [*controls()[:1] * 3, controls()[0] | {"right": 0}, controls()[1]]
    data = info("controls", rows)
    assert [line.words for line in data.lines] == ["3 right, 1 wrong", "wrong"]
    ax = draw("controls", rows).axes[0]
    diamonds = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert diamonds == [1.0, 1.0, 1.0, 1.0, -1.0]
    check_figure(draw("controls", rows))


def test_predictors_of_one_kind_stand_together_and_the_judged_one_stands_out() -> None:
    data = info("candidates", candidates(), axis="mean absolute error")
    assert [candidate.name for candidate in data.candidates] == ["T0", "T0+T1", "ridge"]
    assert data.caption().endswith("judged here: T0+T1 (dashed).")
    ax = draw("candidates", candidates(), axis="error").axes[0]
    bold = [text.get_text() for text in ax.get_yticklabels() if text.get_fontweight() == "bold"]
    assert bold == ["T0+T1"]
    (dashed,) = [line for line in ax.lines if line.is_dashed()]
    assert list(dashed.get_xdata()) == [0.1, 0.1]


def test_hypotheses_keep_their_numbers_together() -> None:
    data = info("hypotheses", hypotheses())
    assert [len(panel.numbers) for panel in data.panels] == [2, 1]
    assert "H4 (undecided): correlation −0.10 [−0.40, 0.30]" in data.caption()
    frames = draw("hypotheses", hypotheses()).axes
    assert [frame.get_title(loc="left").split(":")[0] for frame in frames] == ["H1", "H4"]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: info("forecasts", []), "no forecasts to draw"),
        (
            lambda: info("forecasts", [{"split": "a"}]),
            "lack the column 'stratum'",
        ),
        (
            lambda: info("reliability", [{"split": "a", "p_collapse": None}]),
            "no probabilities",
        ),
        (
            lambda: info("lift", lifts()[:1] * 2 + [{}], axis="x"),
            "lack the column 'split'",
        ),
        (
            lambda: info("forecasts", forecasts(splits=tuple("abcdefghijklm"))),
            "13 splits are more",
        ),
        (lambda: info("controls", []), "no controls to draw"),
        (
            lambda: info("controls", [controls()[0] | {"control": str(i)} for i in range(41)]),
            "41 controls are more than 40",
        ),
        (lambda: info("candidates", [], axis="x"), "no predictors to draw"),
        (lambda: info("hypotheses", []), "no hypotheses to draw"),
        (lambda: draw("controls", controls(), size="huge"), "unknown figure size"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_drawn_is_refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        act()


def test_forecasts_are_of_the_outcome_that_is_named() -> None:
    drawn = draw("forecasts", forecasts(), outcome="gain kept")
    texts = [text.string for text in drawn_texts(drawn)]
    assert {"predicted gain kept", "observed gain kept"} <= set(texts)
    assert not any("retention" in text for text in texts)
    assert "observed gain kept" in info("forecasts", forecasts(), outcome="gain kept").caption()
