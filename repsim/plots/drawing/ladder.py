"""Drawing of the invariance ladder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from repsim.plots.appearance import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    LABEL,
    NULL_BAND,
    Look,
    Size,
    looks,
    style,
    width_of,
)
from repsim.plots.drawing import figure as fig
from repsim.plots.ladder import NOTABLE, RUNGS, LadderData, LadderPair, LadderRow
from repsim.plots.names import number, shortened, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: least height of a rung, space between rungs, space above the first, foot with the x axis.
RUNG, GAP, HEAD, FOOT = 0.5, 0.26, 0.24, 0.5
#: Inches: column of rungs (wide), of rungs (narrow), of each number.
RUNG_COLUMN, NARROW_COLUMN, NUMBER_COLUMN = 1.42, 0.3, 0.46


@dataclasses.dataclass(frozen=True)
class Rows:
    """Where everything stands, in inches below the top of the axes.

    Attributes:
        bands: Rung -> (top, bottom).
        centres: Rung -> centre of each measure's row.
        pitch: Height of a row.
        height: Of all of it.
    """

    bands: dict[str, tuple[float, float]]
    centres: dict[str, list[float]]
    pitch: float
    height: float


def arrange(pair: LadderPair, pairs: int) -> Rows:
    """Give each rung a band with one row per measure; more pairs make higher rows."""
    pitch = 0.2 if pairs == 1 else 0.1 + 0.105 * pairs
    bands, centres = {}, {}
    at = 0.0
    for rung, rows in pair.rungs.items():
        tall = max(RUNG, pitch * len(rows) + 0.06)
        first = at + (tall - pitch * len(rows)) / 2 + pitch / 2
        bands[rung] = (at, at + tall)
        centres[rung] = [first + k * pitch for k in range(len(rows))]
        at += tall + GAP
    return Rows(bands, centres, pitch, at - GAP)


def draw_ladder(data: LadderData, *, ax: Axes | None = None, size: Size = "wide") -> Figure:
    """Draw a prepared ladder, into an axes or a figure of its own.

    In an axes of the caller's, rungs are named by their number only.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    rows = arrange(data.pairs[0], len(data.pairs))
    with style():
        found = looks([pair.role for pair in data.pairs])
        if ax is not None:
            _draw_scores(ax, data, rows, found, arrows=False, joined=True)
            _name_rows_inside(ax, data, rows)
            ax.set_title(data.title, loc="left")
            return fig.figure_of(ax)
        return _own_figure(data, rows, found, width, narrow=size == "single")


def _own_figure(
    data: LadderData, rows: Rows, found: list[Look], width: float, *, narrow: bool
) -> Figure:
    """Columns from left to right: rungs, measures, scores, and numbers if there is one pair."""
    alone = len(data.pairs) == 1
    key = [
        Line2D([], [], linestyle="none", label=pair.label, **_marker(look))
        for pair, look in zip(data.pairs, found, strict=True)
        if not alone
    ]
    body = HEAD + rows.height + FOOT
    figure = fig.new_figure(width, body, data.title, data.note, reading=data.reading, key=key)
    writer = _Writer(figure, fig.header_height(figure) + HEAD)
    figure.set_layout_engine("none")
    names = _row_names(data.pairs[0])
    longest = max(fig.text_size(figure, name, 8.0)[0] for those in names.values() for name in those)
    left = fig.MARGIN + (NARROW_COLUMN if narrow else RUNG_COLUMN) + longest + 0.12
    calibrated = data.is_calibrated
    numbers = alone * (2 if calibrated and not narrow else 1)
    right = fig.MARGIN + 0.1 + NUMBER_COLUMN * numbers
    total = float(figure.get_size_inches()[1])
    frame = (left / width, FOOT / total, (width - left - right) / width, rows.height / total)
    axes = figure.add_axes(frame)
    _draw_scores(axes, data, rows, found, arrows=alone and not narrow, joined=not narrow)
    _write_rungs(writer, rows, narrow=narrow)
    for rung, those in names.items():
        for name, y in zip(those, rows.centres[rung], strict=True):
            writer.write(left - 0.08, y, name, ha="right", color=INK, fontsize=8.0)
    _write_heads(writer, axes, width, numbers, narrow=narrow, calibrated=calibrated)
    if numbers:
        _write_numbers(writer, data.pairs[0], rows, width, numbers)
    return figure


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes text at inches from the left, and below the top of the axes."""

    figure: Figure
    top: float

    def write(self, x: float, y: float, string: str, **options: Any) -> None:
        width, height = (float(side) for side in self.figure.get_size_inches())
        options = {"va": "center"} | options
        self.figure.text(x / width, 1 - (self.top + y) / height, string, **options)


def _row_names(pair: LadderPair) -> dict[str, list[str]]:
    return {
        rung: [f"{shortened(row.facts.label, 26)} {row.facts.arrow}" for row in rows]
        for rung, rows in pair.rungs.items()
    }


def _write_rungs(writer: _Writer, rows: Rows, *, narrow: bool) -> None:
    """The rung, what it is blind to, and its question."""
    for rung, (above, below) in rows.bands.items():
        blind_to, question = RUNGS[rung]
        middle = (above + below) / 2
        if narrow:
            writer.write(fig.MARGIN, middle, rung, fontsize=9, fontweight="bold", color=INK)
            # White under the question hides the grid lines that it may run over.
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            writer.write(fig.MARGIN, above - 0.13, question, fontsize=7, color=GREY, bbox=box)
            continue
        name = f"{rung}  {blind_to}"
        writer.write(fig.MARGIN, above + 0.1, name, fontsize=8.5, fontweight="bold", color=INK)
        writer.write(
            fig.MARGIN, above + 0.2, wrapped(question, 22), fontsize=7.5, color=GREY, va="top",
            linespacing=1.1,
        )  # fmt: skip


def _write_heads(
    writer: _Writer, ax: Axes, width: float, numbers: int, *, narrow: bool, calibrated: bool
) -> None:
    """What the ends of the scale and the columns of numbers are."""
    options = {"fontsize": 7.5, "color": GREY}
    box = ax.get_position()
    low, high = ax.get_xlim()

    def inches(value: float) -> float:
        return float(box.x0 + box.width * (value - low) / (high - low)) * width

    y = -0.1
    if not narrow:
        writer.write(inches(0), y, "null" if calibrated else "unrelated", ha="center", **options)
        writer.write(inches(1), y, "identical", ha="right", **options)
    for k, head in enumerate(("value", "null")[:numbers]):
        writer.write(_column(width, numbers, k), y, head, ha="right", **options)


def _column(width: float, numbers: int, k: int) -> float:
    return width - fig.MARGIN - NUMBER_COLUMN * (numbers - 1 - k)


def _write_numbers(
    writer: _Writer, pair: LadderPair, rows: Rows, width: float, numbers: int
) -> None:
    """Values in the measures' own units, and their nulls."""
    for rung, those in pair.rungs.items():
        for row, y in zip(those, rows.centres[rung], strict=True):
            value = number(row.reading.value)
            writer.write(_column(width, numbers, 0), y, value, ha="right", fontsize=8, color=INK)
            if numbers > 1:
                null = number(row.reading.null_q95)
                writer.write(
                    _column(width, numbers, 1), y, null, ha="right", fontsize=8, color=GREY
                )


def _draw_scores(
    ax: Axes, data: LadderData, rows: Rows, found: list[Look], *, arrows: bool, joined: bool
) -> None:
    low, high = _limits(data)
    ax.set_xlim(low, high)
    ax.set_ylim(rows.height, 0)
    ax.axvspan(low, 0, color=NULL_BAND, linewidth=0, zorder=0, label="null")
    for at in (0.25, 0.5, 0.75, 1.0):
        ax.axvline(at, color="#E6E9ED", linewidth=0.8, zorder=0.4)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    ax.set_xlabel("calibrated similarity" if data.is_calibrated else "share of the range")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    offsets = (np.arange(len(data.pairs)) - (len(data.pairs) - 1) / 2) * 0.105
    for pair, look, offset in zip(data.pairs, found, offsets.tolist(), strict=True):
        _draw_levels(ax, pair, rows, look, filled=len(data.pairs) == 1)
        if joined:
            _join_levels(ax, pair, rows, look, filled=len(data.pairs) == 1)
        for rung, those in pair.rungs.items():
            for row, y in zip(those, rows.centres[rung], strict=True):
                _draw_row(ax, row, y + offset, look)
    if arrows:
        _draw_steps(ax, data.pairs[0], rows)


def _limits(data: LadderData) -> tuple[float, float]:
    numbers = [
        value
        for pair in data.pairs
        for those in pair.rungs.values()
        for row in those
        for value in (row.score, row.low, row.high, row.null, *row.members.tolist())
        if np.isfinite(value)
    ]
    return min(-0.06, min(numbers) - 0.03), max(1.02, max(numbers) + 0.03)


def _draw_levels(ax: Axes, pair: LadderPair, rows: Rows, look: Look, *, filled: bool) -> None:
    """The mean of each rung as a bar; of several pairs, as a thin staircase."""
    levels = {rung: pair.level(rung) for rung in pair.rungs}
    for rung, (above, below) in rows.bands.items():
        if filled:
            bar = Rectangle(
                (0, above), levels[rung], below - above, color=_tint(look.fill), zorder=0.8
            )
            ax.add_patch(bar)
        colour = look.line if filled else look.fill
        wide = 1.6 if filled else 0.9
        ax.plot([levels[rung]] * 2, [above, below], color=colour, linewidth=wide, zorder=1.5)


def _join_levels(ax: Axes, pair: LadderPair, rows: Rows, look: Look, *, filled: bool) -> None:
    """From each rung's level to the next one's, through the space between them."""
    levels = {rung: pair.level(rung) for rung in pair.rungs}
    edges = list(rows.bands.values())
    for (first, second, _), (_, start), (end, _) in zip(
        pair.steps(), edges, edges[1:], strict=False
    ):
        middle = (start + end) / 2
        x = [levels[first]] * 2 + [levels[second]] * 2
        ax.plot(
            x,
            [start, middle, middle, end],
            color=FAINT if filled else look.fill,
            linewidth=0.8,
            zorder=1.2,
        )


def _tint(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - 0.16 * (1 - channel) for channel in to_rgb(colour))
    return red, green, blue


def _draw_steps(ax: Axes, pair: LadderPair, rows: Rows) -> None:
    """An arrow with the rise between neighbouring rungs; the largest one stands out."""
    steps = pair.steps()
    largest = max((rise for *_, rise in steps), default=0.0)
    high = ax.get_xlim()[1]
    for first, second, rise in steps:
        middle = (rows.bands[first][1] + rows.bands[second][0]) / 2
        start, end = pair.level(first), pair.level(second)
        stands_out = rise == largest and rise >= NOTABLE
        colour = ACCENT if stands_out else GREY
        if abs(rise) >= 0.04:
            ax.annotate(
                "", xy=(end, middle), xytext=(start, middle), zorder=2,
                arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0,
                            "linewidth": 1.4 if stands_out else 0.9, "mutation_scale": 8},
            )  # fmt: skip
        right = max(start, end)
        fits = right + 0.16 * (high - ax.get_xlim()[0]) < high
        words = ("+" if rise >= 0 else "") + number(rise)
        ax.annotate(
            words, xy=(right if fits else min(start, end), middle),
            xytext=(5 if fits else -5, 0), textcoords="offset points", va="center",
            ha="left" if fits else "right", color=colour, fontsize=8 if stands_out else 7.5,
            fontweight="bold" if stands_out else "normal",
        )  # fmt: skip


def _draw_row(ax: Axes, row: LadderRow, y: float, look: Look) -> None:
    if np.isfinite(row.null):
        ax.plot(
            [row.null], [y], marker="|", color=GREY, markersize=6, markeredgewidth=1.0, zorder=2
        )
    if np.isfinite(row.low) and np.isfinite(row.high):
        ax.plot([row.low, row.high], [y, y], color=look.line, linewidth=1.6, zorder=2.5)
    if row.members.size:
        ax.plot(
            row.members, np.full(row.members.size, y), linestyle="none", marker="o", markersize=2.2,
            color=look.line, alpha=0.45, markeredgewidth=0, zorder=2.2,
        )  # fmt: skip
    options = _marker(look)
    if not row.is_calibrated:
        options["markerfacecolor"] = "white"
    ax.plot([row.score], [y], zorder=3, **options)


def _marker(look: Look) -> dict[str, Any]:
    return {
        "marker": look.marker,
        "markerfacecolor": look.fill if look.filled else "white",
        "markeredgecolor": look.line,
        "markersize": 5,
        "markeredgewidth": 1.0,
    }


def _name_rows_inside(ax: Axes, data: LadderData, rows: Rows) -> None:
    """Names as tick labels, for an axes whose surroundings belong to somebody else."""
    names = _row_names(data.pairs[0])
    places = [y for rung in names for y in rows.centres[rung]]
    labels = [f"{rung} {name}" for rung, those in names.items() for name in those]
    ax.set_yticks(places, labels, color=LABEL)
    ax.tick_params(axis="y", length=0)
