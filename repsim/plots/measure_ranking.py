"""Which measure to trust: how often each is right, test by test."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.core.table import Table
from repsim.plots.appearance import ACCENT, FAINT, GREY, INK, Size, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.stats.ranking import Ranked, rank_rows

#: Test -> heading of its column; the first four are averaged for the order.
TESTS = {
    "layers": "layers", "noise": "noise", "seeds": "seeds", "forks": "forks",
    "atlas_seeds": "atlas:\nseeds", "atlas_forks": "atlas:\nforks",
    "atlas_merging": "atlas:\nmerging",
}  # fmt: skip
AVERAGED = ("layers", "noise", "seeds", "forks")
_ROW = 0.152


def _caption(info: Numbers) -> str:
    first = info.columns[0].ranking
    best = first.ranked[0]
    label = {name: label for name, label, _ in info.measures}
    tied = [label[one.name] for one in first.ranked if one.tied and one is not best]
    with_it = f" Not told from it: {', '.join(tied)}." if tied else ""
    return (
        f"Share of comparisons that each of {len(info.measures)} measures gets right, of "
        f"{first.comparisons:,} on {first.models} models; 0.5 is chance. {label[best.name]} is "
        f"right most often ({number(best.score)}).{with_it} Lines: 95 % intervals, models and "
        "layers drawn with replacement; filled: the interval of the distance to the column's "
        "best measure reaches 0. The best one is picked from the same comparisons."
    )


def measure_ranking_info(table: Table) -> Numbers:
    """Rank the measures of a benchmark on each of its tests."""
    rows = list(table.rows())
    there = [test for test in TESTS if test in table.unique("test")]
    averaged = [test for test in there if test in AVERAGED]
    if not averaged:
        raise UsageError("the table holds no test on models", hint=", ".join(AVERAGED))
    first = _column("mean of\nthe tests", rows, averaged)
    columns = [_column(TESTS[test], rows, [test]) for test in there]
    facts = {row["measure"]: (row["measure"], row["label"], row["rung"] or "–") for row in rows}
    return Numbers(
        _caption,
        measures=tuple(facts[one.name] for one in first.ranking.ranked),
        columns=(first, *columns),
        title="Which measure to trust",
        note=(
            f"{first.ranking.comparisons:,} comparisons on {first.ranking.models} models",
            "share that is right, 95 % interval",
            "filled: not told from the best",
        ),
    )


def _column(heading: str, rows: list[dict[str, Any]], tests: list[str]) -> Numbers:
    ranking = rank_rows(rows, tests)
    by_name = {one.name: one for one in ranking.ranked}
    return Numbers(heading=heading, ranking=ranking, by_name=by_name)


def draw_measure_ranking(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A row per measure, a column per test; in given axes and narrow figures only the first."""
    columns = info.columns if ax is None and size != "single" else info.columns[:1]
    height = _ROW * len(info.measures) + 0.7
    axes = fig.frames(info, ax, len(columns), len(columns), size, height, sharey=True)
    for place, (frame, column) in enumerate(zip(axes, columns, strict=True)):
        _draw_column(frame, info, column, first=place == 0)
    _name_rows(axes[0], info, width_of(size))
    return fig.finish(axes)


def _draw_column(ax: Axes, info: Numbers, column: Numbers, *, first: bool) -> None:
    found = column.by_name
    drawn = [found[name] for name, *_ in info.measures if name in found]
    ends = [v for one in drawn for v in (one.score, one.low) if np.isfinite(v)]
    ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (3.5, 2)), zorder=1)
    for place, (name, *_) in enumerate(info.measures):
        if name in found:
            _draw_one(ax, found[name], place)
    ax.set_title(column.heading, fontsize=7.5, fontweight="bold" if first else "normal", color=INK)
    ax.set_xlim(min([0.45, *(end - 0.03 for end in ends)]), 1.05)
    ax.set_xticks([0.5, 1.0], ["0.5", "1"])
    ax.tick_params(axis="both", length=0, labelsize=7)
    ax.grid(visible=True, axis="y", color=FAINT, linewidth=0.3)
    ax.set_ylim(len(info.measures) - 0.4, -0.6)


def _draw_one(ax: Axes, one: Ranked, place: int) -> None:
    colour = ACCENT if one.tied else GREY
    dot = {"marker": "o", "markersize": 3.4, "markeredgewidth": 0.8, "color": colour,
           "markerfacecolor": colour if one.tied else "white"}  # fmt: skip
    draw_point(ax, place, one.score, (one.low, one.high), dot, width=0.9)


def _name_rows(ax: Axes, info: Numbers, width: float) -> None:
    figure = fig.figure_of(ax)
    names = [
        f"{fig.fitted(figure, label, width * 0.22, size=7)}  {rung}"
        for _, label, rung in info.measures
    ]
    ax.set_yticks(range(len(names)), names, fontsize=7)


MEASURE_RANKING = Figure(
    "measure_ranking", "measure_scores", measure_ranking_info, draw_measure_ranking
)
