"""The invariance ladder: two models compared under more and more symmetries."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_table import SimilarityTable
from repsim.plots.appearance import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    LABEL,
    NULL_BAND,
    Look,
    Size,
    line_marker,
    looks,
    style,
    width_of,
)  # fmt: skip
from repsim.plots.drawing import figure as fig
from repsim.plots.names import listed, number, shortened, wrapped
from repsim.plots.selection import (
    At,
    MeasureFacts,
    Reading,
    Selection,
    depth_words,
    read_at,
    sample_size,
    select,
    shuffles_of,
    statistics_note,
)
from repsim.plots.spec import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: Rung -> what it is blind to, and the question that it answers.
RUNGS: dict[str, tuple[str, str]] = {
    "L0": ("identity", "Can they be averaged as they are?"),
    "L1": ("permutation", "Would re-ordering units help?"),
    "L2": ("rotation", "Same geometry in other coordinates?"),
    "L3": ("linear map", "Same information?"),
    "L4": ("neighbourhood", "Same neighbourhoods?"),
}
#: What it means that similarity first shows on a rung.
MEANING: dict[str, str] = {
    "L1": "much of what they share is hidden by the order of their units",
    "L2": "they share a geometry, but each has it in coordinates of its own",
    "L3": "they share information, but not the geometry in which it is laid out",
    "L4": "they agree on who is whose neighbour, and on little else",
}
MAX_PAIRS = 4
#: Smaller steps than this are not put into words.
NOTABLE = 0.1


#: Inches: least height of a rung, space between rungs, space above the first, foot with the x axis.
_RUNG, _GAP, _HEAD, _FOOT = 0.5, 0.26, 0.24, 0.5
#: Inches: column of rungs (wide), of rungs (narrow), of each number.
_RUNG_COLUMN, _NARROW_COLUMN, _NUMBER_COLUMN = 1.42, 0.3, 0.46


class Placed(NamedTuple):
    """A reading on the common scale: 0 at the null's 95 %, 1 on identical input."""

    score: float
    low: float
    high: float
    null: float


class LadderRow(NamedTuple):
    """One measure on one pair of models, the mean over languages if there are several.

    `reading` is in its own units, `at` on the common scale, `members` `[m]` the scores of the
    languages that were averaged. Without a null (`is_calibrated` False) 0 is its unrelated end.
    """

    facts: MeasureFacts
    reading: Reading
    at: Placed
    members: np.ndarray
    is_calibrated: bool


class LadderPair(NamedTuple):
    """One pair of models: rung -> its measures, lowest rung first."""

    label: str
    role: str
    rungs: Mapping[str, tuple[LadderRow, ...]]

    def level(self, rung: str) -> float:
        """Mean score of a rung's measures."""
        return float(np.mean([row.at.score for row in self.rungs[rung]]))

    def steps(self) -> list[tuple[str, str, float]]:
        """(from, to, rise of the level) between neighbouring rungs."""
        return [
            (first, second, self.level(second) - self.level(first))
            for first, second in itertools.pairwise(self.rungs)
        ]


@dataclasses.dataclass(frozen=True)
class LadderInfo:
    """Pairs of models with the same rungs and measures; what the figure says in a sentence.

    `left_out` are measures of the ladder that could not be put on its scale.
    """

    pairs: tuple[LadderPair, ...]
    title: str
    reading: str
    note: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def is_calibrated(self) -> bool:
        """Whether any score rests on a null."""
        return any(row.is_calibrated for row in self.rows)

    @property
    def rows(self) -> list[LadderRow]:
        """All rows of all pairs."""
        return [row for pair in self.pairs for those in pair.rungs.values() for row in those]

    def caption(self) -> str:
        """What is shown, on how many sentences, with which interval, and how to read it."""
        levels = []
        for pair in self.pairs:
            found = ", ".join(f"{rung} {number(pair.level(rung))}" for rung in pair.rungs)
            levels.append(f"{pair.label}: {found}")
        scale = "0 is the unrelated end of each measure's range, 1 identical input"
        if self.is_calibrated:
            scale = (
                "scores are calibrated: 0 is the 95 % quantile under shuffled sentence pairs, 1 "
                "identical input"
            )
        return (
            f"Invariance ladder. {'; '.join(self.note)}. Each rung is blind to more than the one "
            f"above it; {scale}. Mean of each rung: {'; '.join(levels)}. {self.reading} Read the "
            "steps between rungs: a high L2 over a low L0 means the same geometry in other "
            "coordinates, which averaging destroys. Measures share the ends of this scale, not "
            "what lies between."
        )


def ladder_info(
    table: SimilarityTable,
    *,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    point: str = "resid",
    pairing: str | None = None,
    at: At = "middle",
    title: str | None = None,
) -> LadderInfo:
    """Put the measures of each rung on one scale, for one pair of models or a few.

    Args:
        table: The similarities.
        models: Keep pairs of these models. Without a choice, a table of more than four pairs
            shows four, spread from the least to the most alike on the lowest rung.
        languages: Keep these languages; several are averaged.
        point: Hook point.
        pairing: "same text" or "parallel text"; the first of the two that there is if left out.
        measures: Measures to show; all on the ladder if left out.
        at: "middle", "mean" (over layers matched by relative depth) or a layer.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: No measure on the ladder, more than four pairs of the models chosen, or a pair
            that lacks a measure.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> (pair,) = ladder_info(synthetic_table()).pairs
        >>> list(pair.rungs), pair.level("L0") < pair.level("L2")
        (['L0', 'L1', 'L2', 'L3', 'L4'], True)
    """
    chosen = _measures_on_ladder(table, measures)
    selections = [
        select(table, measure=m, point=point, pairing=pairing, models=models, languages=languages)
        for m in chosen
    ]
    keys = list(dict.fromkeys(pair.models for pair in selections[0].pairs))
    every = len(keys)
    if every > MAX_PAIRS and models is None:
        keys = _spread(keys, [_row(selections[0], key, at).at.score for key in keys])
    if len(keys) > MAX_PAIRS:
        raise UsageError(
            f"the table has {len(keys)} pairs of models; the ladder shows {MAX_PAIRS} at most",
            hint=f"choose two with models=['{keys[0][0]}', '{keys[0][1]}']",
        )
    rows = {key: [_row(selection, key, at) for selection in selections] for key in keys}
    left_out = [
        selection.facts.label
        for i, selection in enumerate(selections)
        if any(np.isnan(rows[key][i].at.score) for key in keys)
    ]
    pairs = tuple(
        LadderPair(
            " – ".join(shortened(name, 36) for name in dict.fromkeys(key)),
            selections[0].role(key),
            _grouped([row for row in rows[key] if row.facts.label not in left_out]),
        )
        for key in keys
    )
    if not pairs[0].rungs:
        raise UsageError(
            "no measure of the ladder can be put on a common scale",
            hint="compare with a null, or choose measures with a bounded range",
        )
    return LadderInfo(
        pairs=pairs,
        title=title if title is not None else _title(pairs),
        reading=_reading(pairs),
        note=(
            *[f"{MAX_PAIRS} of {every} pairs of models, least to most alike on the lowest rung"]
            * (every > len(keys)),
            *_note(selections, pairs, at, left_out),
        ),
        left_out=tuple(left_out),
    )


def _spread(keys: list[tuple[str, str]], scores: list[float]) -> list[tuple[str, str]]:
    """`MAX_PAIRS` of the pairs, evenly spaced in the order of their scores."""
    order = np.argsort(np.nan_to_num(scores, nan=-np.inf), kind="stable")
    picked = np.linspace(0, len(keys) - 1, MAX_PAIRS).round().astype(int)
    return [keys[order[i]] for i in picked]


def _measures_on_ladder(table: SimilarityTable, measures: Sequence[str] | None) -> list[str]:
    """Names in order of their rung."""
    known = table.unique("measure")
    for name in measures or ():
        if name not in known:
            raise unknown_name("measure in this table", name, known)
    rungs = {name: MeasureFacts.of(table, name).rung for name in measures or known}
    found = [name for rung in RUNGS for name in rungs if rungs[name] == rung]
    if not found:
        raise UsageError(
            "none of the measures in the table stands on the invariance ladder",
            hint=f"the table has {', '.join(known) or 'none'}; see: repsim measures",
        )
    return found


def _row(selection: Selection, models: tuple[str, str], at: At) -> LadderRow:
    """One measure of one pair of models, the languages averaged."""
    readings = [
        read_at(rows, at) for pair, rows in selection.pairs.items() if pair.models == models
    ]
    if not readings:
        raise UsageError(
            f"the table has no '{selection.facts.name}' for {models[0]} and {models[1]}",
            hint="choose measures that all pairs have with measures=[...]",
        )
    facts = selection.facts
    placed = [on_scale(reading, facts) for reading in readings]
    return LadderRow(
        facts=facts,
        reading=Reading.mean(readings),
        at=Placed(*np.array(placed).mean(axis=0).tolist()),
        members=np.array([one.score for one in placed] if len(placed) > 1 else []),
        is_calibrated=all(np.isfinite(reading.null_q95) for reading in readings),
    )


def on_scale(reading: Reading, facts: MeasureFacts) -> Placed:
    """A reading as `(x - zero) / (identical - zero)`, zero at the null's 95 % quantile.

    Without a null, zero is the unrelated end of the measure's range; all NaN if it has none.
    """
    unrelated = 0.0 if facts.is_similarity else facts.high
    zero = reading.null_q95 if np.isfinite(reading.null_q95) else unrelated
    if zero is None or zero == facts.identity:
        return Placed(*[math.nan] * 4)
    values = np.array([reading.value, reading.ci_low, reading.ci_high, reading.null_mean])
    score, low, high, null = ((values - zero) / (facts.identity - zero)).tolist()
    return Placed(score, min(low, high), max(low, high), null)


def _grouped(rows: Sequence[LadderRow]) -> dict[str, tuple[LadderRow, ...]]:
    grouped: dict[str, tuple[LadderRow, ...]] = {}
    for row in rows:
        rung = str(row.facts.rung)
        grouped[rung] = (*grouped.get(rung, ()), row)
    return grouped


def _title(pairs: Sequence[LadderPair]) -> str:
    if len(pairs) > 1:
        return "Invariance ladder"
    # No line begins with the dash.
    return "Invariance ladder: " + pairs[0].label.replace(" – ", "\u00a0– ")


def _reading(pairs: Sequence[LadderPair]) -> str:
    """The largest step upwards in words, for one pair."""
    if len(pairs) > 1:
        return ""
    pair = pairs[0]
    levels = {rung: pair.level(rung) for rung in pair.rungs}
    top = max(levels, key=lambda rung: levels[rung])
    if levels[top] < NOTABLE:
        least = number(NOTABLE, 1)
        return f"No rung rises above {least}: they share little under any of these symmetries."
    steps = [step for step in pair.steps() if step[2] >= NOTABLE]
    if not steps:
        first = next(iter(levels))
        return (
            f"No step reaches {number(NOTABLE, 1)}: what they share ({number(levels[first])} at "
            f"{first}) shows on the first rung already."
        )
    first, second, rise = max(steps, key=lambda step: step[2])
    return f"Largest step {first} to {second}, +{number(rise)}: {MEANING[second]}."


def _note(
    selections: Sequence[Selection],
    pairs: Sequence[LadderPair],
    at: At,
    left_out: Sequence[str],
) -> list[str]:
    rows = [row for pair in pairs for those in pair.rungs.values() for row in those]
    note = [selections[0].pairing, sample_size(selections[0]), depth_words(at)]
    members = max(len(row.members) for row in rows)
    if members:
        what = "languages" if selections[0].pairing == "same text" else "language pairs"
        note.append(f"mean over {members} {what} (small dots: each)")
    if any(np.isfinite(row.at.low) for row in rows):
        note.append(statistics_note(selections[0], interval=True)[1])
    if any(row.is_calibrated for row in rows):
        note.append(f"null = 95 % of {shuffles_of(selections)}")
    if not all(row.is_calibrated for row in rows):
        note.append("hollow = no null, 0 is the unrelated end of the range")
    if left_out:
        note.append(f"left out, no scale: {listed(left_out)}")
    return note


class _Rows(NamedTuple):
    """Where everything stands, in inches below the top: (top, bottom) of rungs, centres of rows."""

    bands: dict[str, tuple[float, float]]
    centres: dict[str, list[float]]
    height: float


def _arrange(pair: LadderPair, pairs: int) -> _Rows:
    """Give each rung a band with one row per measure; more pairs make higher rows."""
    pitch = 0.2 if pairs == 1 else 0.1 + 0.105 * pairs
    bands, centres = {}, {}
    at = 0.0
    for rung, rows in pair.rungs.items():
        tall = max(_RUNG, pitch * len(rows) + 0.06)
        first = at + (tall - pitch * len(rows)) / 2 + pitch / 2
        bands[rung] = (at, at + tall)
        centres[rung] = [first + k * pitch for k in range(len(rows))]
        at += tall + _GAP
    return _Rows(bands, centres, at - _GAP)


@style()
def draw_ladder(info: LadderInfo, *, ax: Axes | None = None, size: Size = "wide") -> Drawing:
    """Columns of rungs, measures, scores and numbers; in a given axes rungs go by number only."""
    width = width_of(size)
    rows = _arrange(info.pairs[0], len(info.pairs))
    found = looks([pair.role for pair in info.pairs])
    if ax is None:
        return _own_figure(info, rows, found, width, narrow=size == "single")
    _draw_scores(ax, info, rows, found, arrows=False, joined=True)
    _name_rows_inside(ax, info, rows)
    ax.set_title(info.title, loc="left")
    return fig.figure_of(ax)


def _own_figure(
    info: LadderInfo, rows: _Rows, found: list[Look], width: float, *, narrow: bool
) -> Drawing:
    """Columns from left to right: rungs, measures, scores, and numbers if there is one pair."""
    alone = len(info.pairs) == 1
    labels = [pair.label for pair in info.pairs]
    key = [] if alone else fig.key_of(dict(zip(labels, map(_marker, found), strict=True)))
    body = _HEAD + rows.height + _FOOT
    figure = fig.new_figure(width, body, info.title, info.note, reading=info.reading, key=key)
    writer = _Writer(figure, fig.header_height(figure) + _HEAD)
    figure.set_layout_engine("none")
    names = _row_names(info.pairs[0])
    longest = max(fig.text_size(figure, name, 8.0)[0] for those in names.values() for name in those)
    left = fig.MARGIN + (_NARROW_COLUMN if narrow else _RUNG_COLUMN) + longest + 0.12
    calibrated = info.is_calibrated
    numbers = alone * (2 if calibrated and not narrow else 1)
    right = fig.MARGIN + 0.1 + _NUMBER_COLUMN * numbers
    total = float(figure.get_size_inches()[1])
    frame = (left / width, _FOOT / total, (width - left - right) / width, rows.height / total)
    axes = figure.add_axes(frame)
    _draw_scores(axes, info, rows, found, arrows=alone and not narrow, joined=not narrow)
    _write_rungs(writer, rows, narrow=narrow)
    for rung, those in names.items():
        for name, y in zip(those, rows.centres[rung], strict=True):
            writer.write(left - 0.08, y, name, ha="right", color=INK, fontsize=8.0)
    _write_heads(writer, axes, width, numbers, narrow=narrow, calibrated=calibrated)
    if numbers:
        _write_numbers(writer, info.pairs[0], rows, width, numbers)
    return figure


class _Writer(NamedTuple):
    """Writes text at inches from the left, and below the top of the axes."""

    figure: Drawing
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


def _write_rungs(writer: _Writer, rows: _Rows, *, narrow: bool) -> None:
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
    return width - fig.MARGIN - _NUMBER_COLUMN * (numbers - 1 - k)


def _write_numbers(
    writer: _Writer, pair: LadderPair, rows: _Rows, width: float, numbers: int
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
    ax: Axes, info: LadderInfo, rows: _Rows, found: list[Look], *, arrows: bool, joined: bool
) -> None:
    low, high = _limits(info)
    ax.set_xlim(low, high)
    ax.set_ylim(rows.height, 0)
    ax.axvspan(low, 0, color=NULL_BAND, linewidth=0, zorder=0, label="null")
    for at in (0.25, 0.5, 0.75, 1.0):
        ax.axvline(at, color="#E6E9ED", linewidth=0.8, zorder=0.4)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    ax.set_xlabel("calibrated similarity" if info.is_calibrated else "share of the range")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    offsets = (np.arange(len(info.pairs)) - (len(info.pairs) - 1) / 2) * 0.105
    for pair, look, offset in zip(info.pairs, found, offsets.tolist(), strict=True):
        _draw_levels(ax, pair, rows, look, filled=len(info.pairs) == 1)
        if joined:
            _join_levels(ax, pair, rows, look, filled=len(info.pairs) == 1)
        for rung, those in pair.rungs.items():
            for row, y in zip(those, rows.centres[rung], strict=True):
                _draw_row(ax, row, y + offset, look)
    if arrows:
        _draw_steps(ax, info.pairs[0], rows)


def _limits(info: LadderInfo) -> tuple[float, float]:
    values = np.concatenate([[*row.at, *row.members] for row in info.rows])
    return min(-0.06, float(np.nanmin(values)) - 0.03), max(1.02, float(np.nanmax(values)) + 0.03)


def _draw_levels(ax: Axes, pair: LadderPair, rows: _Rows, look: Look, *, filled: bool) -> None:
    """The mean of each rung as a bar; of several pairs, as a thin staircase."""
    levels = {rung: pair.level(rung) for rung in pair.rungs}
    for rung, (above, below) in rows.bands.items():
        if filled:
            from matplotlib.patches import Rectangle

            bar = Rectangle(
                (0, above), levels[rung], below - above, color=_tint(look.fill), zorder=0.8
            )
            ax.add_patch(bar)
        colour = look.line if filled else look.fill
        wide = 1.6 if filled else 0.9
        ax.plot([levels[rung]] * 2, [above, below], color=colour, linewidth=wide, zorder=1.5)


def _join_levels(ax: Axes, pair: LadderPair, rows: _Rows, look: Look, *, filled: bool) -> None:
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


def _draw_steps(ax: Axes, pair: LadderPair, rows: _Rows) -> None:
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
    if np.isfinite(row.at.null):
        ax.plot(
            [row.at.null], [y], marker="|", color=GREY, markersize=6, markeredgewidth=1.0, zorder=2
        )
    if np.isfinite(row.at.low) and np.isfinite(row.at.high):
        ax.plot([row.at.low, row.at.high], [y, y], color=look.line, linewidth=1.6, zorder=2.5)
    if row.members.size:
        ax.plot(
            row.members, np.full(row.members.size, y), linestyle="none", marker="o", markersize=2.2,
            color=look.line, alpha=0.45, markeredgewidth=0, zorder=2.2,
        )  # fmt: skip
    options = _marker(look)
    if not row.is_calibrated:
        options["markerfacecolor"] = "white"
    ax.plot([row.at.score], [y], zorder=3, **options)


def _marker(look: Look) -> dict[str, Any]:
    return line_marker(look, 5, markeredgewidth=1.0, linestyle="none")


def _name_rows_inside(ax: Axes, info: LadderInfo, rows: _Rows) -> None:
    """Names as tick labels, for an axes whose surroundings belong to somebody else."""
    names = _row_names(info.pairs[0])
    places = [y for rung in names for y in rows.centres[rung]]
    labels = [f"{rung} {name}" for rung, those in names.items() for name in those]
    ax.set_yticks(places, labels, color=LABEL)
    ax.tick_params(axis="y", length=0)


LADDER = Figure("ladder", "similarity", ladder_info, draw_ladder)
