"""The numbers that hypotheses are judged by, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots.appearance import GREY, LABEL, Size, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import INTERVALS, Row, grouped, numbers_of

#: Most hypotheses, and most numbers of one, that a figure has.
MAX_HYPOTHESES, MAX_NUMBERS = 12, 16


def _caption(info: Numbers) -> str:
    said = []
    for panel in info.panels:
        numbers = [f"{e.quantity} {number(e.value)} [{number(e.low)}, {number(e.high)}]"
                   for e in panel.numbers]  # fmt: skip
        said.append(f"{panel.name} ({panel.verdict}): {', '.join(numbers)}")
    return f"The numbers that each hypothesis is judged by. {'; '.join(said)}."


def hypotheses_info(rows: Iterable[Row]) -> Numbers:
    """Hypotheses with their numbers."""
    needed = ("statement", "verdict", "quantity", "value", "low", "high")
    found = grouped(rows, "hypothesis", needed, "hypotheses")
    if len(found) > MAX_HYPOTHESES or max(map(len, found.values())) > MAX_NUMBERS:
        raise UsageError(
            f"a figure has at most {MAX_HYPOTHESES} hypotheses with {MAX_NUMBERS} numbers each"
        )
    panels = []
    for name, group in found.items():
        numbers = [Numbers(quantity=str(row["quantity"]), **numbers_of(row, "value", "low", "high"))
                   for row in group]  # fmt: skip
        first = group[0]
        panel = Numbers(
            name=name,
            statement=str(first["statement"]),
            verdict=str(first["verdict"]),
            numbers=numbers,
        )
        panels.append(panel)
    made = "Hypotheses and their numbers"
    return Numbers(_caption, panels=tuple(panels), title=made, note=(f"bars: {INTERVALS}",))


def draw_hypotheses(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """One frame per hypothesis, one below the other."""
    width = width_of(size)
    tall = [0.62 + 0.19 * len(panel.numbers) for panel in info.panels]
    axes = fig.frames(info, ax, len(tall), 1, size, sum(tall), height_ratios=tall)
    labelled = min(2.6, width * 0.4)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, labelled)
        said = f"{panel.verdict}" if width <= 4 else f"{panel.statement} ({panel.verdict})"
        fig.title_panel(frame, f"{panel.name}: {said}", width - labelled - 0.3)
    return fig.finish(axes)


def _draw_panel(ax: Axes, panel: Numbers, room: float) -> None:
    look = looks(["other"])[0]
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    ax.grid(visible=True, axis="x")
    reach = [0.0]
    for place, evidence in enumerate(panel.numbers):
        reach += [v for v in (evidence.low, evidence.high, evidence.value) if np.isfinite(v)]
        dot = {"marker": "o", "color": look.line, "markersize": 4.2}
        draw_point(ax, place, evidence.value, (evidence.low, evidence.high), dot)
        ax.annotate(
            number(evidence.value), (1.0, place), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5, color=LABEL,
        )  # fmt: skip
    span = max(reach) - min(reach) or 1.0
    ax.set_xlim(min(reach) - 0.04 * span, max(reach) + 0.04 * span)
    ax.locator_params(axis="x", nbins=6 if room > 2 else 4)
    name_rows(ax, [one.quantity for one in panel.numbers], room, lines=1)


ROWS = "One per number: hypothesis, statement, verdict, quantity, value, low, high."
HYPOTHESES = Figure(
    "validation_hypotheses", "rows", hypotheses_info, draw_hypotheses, {"rows": ROWS}
)
