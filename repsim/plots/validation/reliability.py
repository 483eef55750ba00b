"""Reliability of the probability of collapse: predicted against observed frequency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.formatting import number
from repsim.plots.appearance import FAINT, GREY, Size, darkened, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import Row, by_split, column
from repsim.stats import calibration_error
from repsim.stats.intervals import wilson
from repsim.stats.ranks import BINS

#: Strip beneath the diagram that holds the counts, in units of its height.
_STRIP = 0.24
#: Bins with fewer merges than this say little and are drawn faintly.
FEW = 30
#: Fill of the side on which collapse is underrated: the side that costs a merge.
_UNDERRATED = "#F3E4DC"
_WORDS = darkened("#A9795F", 4.5)


def _caption(info: Numbers) -> str:
    said = [
        f"{panel.title}: {panel.note.replace(' · ', ', ')} (Brier score of always predicting "
        f"the share that collapsed: {number(panel.base, 3)})"
        for panel in info.panels
    ]
    return (
        "Predicted probability of collapse against the observed share that collapsed, in "
        f"{BINS} bins; bars are 95 % Wilson intervals, which take merges as independent. On "
        "the diagonal a probability means what it says; points above it are collapses that "
        f"were underrated. Hollow: fewer than {FEW} merges. Beneath: how many merges have that "
        f"probability. {'; '.join(said)}."
    )


def reliability_info(rows: Iterable[Row], *, notes: Mapping[str, str] | None = None) -> Numbers:
    """Probabilities and outcomes by split, in bins of equal width."""
    answered = (row for row in rows if row.get("p_collapse", 0.0) is not None)
    groups = by_split(answered, ("p_collapse", "collapsed"), "probabilities of collapse")
    panels = [_panel(name, group, (notes or {}).get(name)) for name, group in groups.items()]
    return Numbers(
        _caption,
        panels=tuple(panels),
        title="Probability of collapse and collapses",
        note=(
            "bars: 95 % Wilson intervals",
            f"hollow, thin: fewer than {FEW} merges",
            "beneath: number of merges",
        ),
    )


def _panel(name: str, rows: Sequence[Row], note: str | None) -> Numbers:
    p, outcome = column(rows, "p_collapse"), column(rows, "collapsed")
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    hits = np.bincount(place, outcome, minlength=BINS)
    ends = [wilson(float(h), int(n)) for h, n in zip(hits, count, strict=True)]
    brier, ece = float(np.mean((p - outcome) ** 2)), calibration_error(p, outcome)
    words = f"Brier {number(brier, 3)} · ECE {number(ece, 3)} · {len(rows)} merges"
    return Numbers(
        title=name,
        note=words if note is None else note,
        mean=np.bincount(place, p, minlength=BINS) / filled,
        share=hits / filled,
        low=np.array([end.low for end in ends]),
        high=np.array([end.high for end in ends]),
        count=count,
        brier=brier,
        ece=ece,
        base=float(outcome.mean() * (1 - outcome.mean())),
    )


def draw_reliability(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """One frame per split, with the number of merges beneath."""
    count = len(info.panels)
    columns = fig.columns_of(count, size)
    room = min(width_of(size) / columns, 3.9)
    height = -(-count // columns) * (room + 0.4)
    axes = fig.frames(info, ax, count, columns, size, height)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_frame(frame)
        _draw_counts(frame, panel)
        _draw_panel(frame, panel)
        fig.title_panel(frame, panel.title, room - 0.5, y=1.075)
        note = fig.fitted(fig.figure_of(frame), panel.note, room - 0.3, size=7, lines=1)
        frame.text(
            0, 1.015, note, transform=frame.transAxes, fontsize=7, color=GREY, va="bottom"
        ).set_in_layout(False)
    fig.keep_left(axes, room * columns)
    fig.name_axes(axes, "predicted probability of collapse", "share collapsed", height)
    return fig.finish(axes)


def _draw_frame(ax: Axes) -> None:
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-_STRIP - 0.03, 1.03)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.fill([0, 1, 0], [0, 1, 1], color=_UNDERRATED, linewidth=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, zorder=1)
    words: dict[str, Any] = {"fontsize": 7, "zorder": 1, "color": _WORDS}
    ax.text(0.03, 0.97, "collapse\nunderrated", va="top", **words)
    ax.text(0.97, 0.03, "overrated", ha="right", va="bottom", **(words | {"color": GREY}))


def _draw_counts(ax: Axes, panel: Numbers) -> None:
    """Bars hang below the axis, the longest as long as the strip."""
    edges = np.linspace(0, 1, BINS + 1)
    lengths = panel.count / panel.count.max() * (_STRIP - 0.02)
    ax.bar(
        edges[:-1], -lengths, width=1 / BINS, align="edge", color="#D9DDE2", linewidth=0.4,
        edgecolor="white", bottom=-0.02, zorder=1,
    )  # fmt: skip


def _draw_panel(ax: Axes, panel: Numbers) -> None:
    look = looks(["other"])[0]
    for few in (True, False):
        those = (panel.count > 0) & ((panel.count < FEW) == few)
        x, y = panel.mean[those], panel.share[those]
        wide, size, face = (0.6, 3.2, "white") if few else (1.6, 5.5, look.fill)
        ends = panel.low[those], panel.high[those]
        ax.vlines(x, *ends, color=GREY if few else look.line, linewidth=wide, zorder=2)
        ax.plot(
            x, y, linestyle="", marker=look.marker, markersize=size, markerfacecolor=face,
            markeredgecolor=GREY if few else look.line, markeredgewidth=0.7, zorder=3,
        )  # fmt: skip


ROWS = "One per merge: split, p_collapse (null if refused), collapsed (0 or 1)."
RELIABILITY = Figure(
    "validation_reliability", "rows", reliability_info, draw_reliability, {"rows": ROWS}
)
