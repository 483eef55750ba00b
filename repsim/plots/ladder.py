"""The invariance ladder: two models compared under more and more symmetries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_table import SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    LABEL,
    NULL_BAND,
    Look,
    Size,
    width_of,
)  # fmt: skip
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.ladder_rows import (
    APART,
    PAIRS,
    Rows,
    arrange,
    pair_key,
    pair_looks,
    pair_marker,
)  # fmt: skip
from repsim.plots.names import listed, number, shortened, wrapped
from repsim.plots.selection import At, MeasureFacts, Reading, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

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
#: Inches: space above the first rung, foot with the x axis; columns of rungs (wide, narrow) and of
#: each number.
_HEAD, _FOOT, _RUNG_COLUMN, _NARROW_COLUMN, _NUMBER_COLUMN = 0.24, 0.5, 1.42, 0.3, 0.46


class Placed(NamedTuple):
    """A reading on the common scale: 0 at the null's 95 %, 1 on identical input."""

    score: float
    low: float
    high: float
    null: float


class LadderPair(NamedTuple):
    """One pair of models and its measures, lowest rung first."""

    label: str
    role: str
    rows: Sequence[Numbers]

    @property
    def rungs(self) -> dict[str, list[Numbers]]:
        """Rung -> its measures, lowest rung first."""
        grouped = itertools.groupby(self.rows, key=lambda row: str(row.facts.rung))
        return {rung: list(rows) for rung, rows in grouped}

    def counts(self) -> dict[str, int]:
        """How many measures stand on each rung."""
        return {rung: len(rows) for rung, rows in self.rungs.items()}

    def level(self, rung: str) -> float:
        """Mean score of a rung's measures."""
        return float(np.mean([row.at.score for row in self.rungs[rung]]))

    def steps(self) -> list[tuple[str, str, float]]:
        """(from, to, rise of the level) between neighbouring rungs."""
        pairs = itertools.pairwise(self.rungs)
        return [(first, second, self.level(second) - self.level(first)) for first, second in pairs]


def _caption(info: Numbers) -> str:
    levels = []
    for pair in info.pairs:
        found = ", ".join(f"{rung} {number(pair.level(rung))}" for rung in pair.rungs)
        levels.append(f"{pair.label}: {found}")
    zero = "0 is the unrelated end of each measure's range"
    if info.is_calibrated:
        zero = "scores are calibrated: 0 is the 95 % quantile under shuffled sentence pairs"
    return (
        f"Invariance ladder. {'; '.join(info.note)}. Each rung is blind to more than the one "
        f"above it; {zero}, 1 identical input. Mean of each rung: {'; '.join(levels)}. "
        f"{info.reading} Read the steps between rungs: a high L2 over a low L0 means the same "
        "geometry in other coordinates, which averaging destroys. Measures share the ends of "
        "this scale, not what lies between."
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
) -> Numbers:
    """Put the measures of each rung on one scale, for one pair of models or a few."""
    selections = [
        sel.select(
            table, measure=m, point=point, pairing=pairing, models=models, languages=languages
        )
        for m in _measures_on_ladder(table, measures)
    ]
    keys = list(dict.fromkeys(pair.models for pair in selections[0].pairs))
    every = len(keys)
    if every > MAX_PAIRS and models is None:
        scores = [_row(selections[0], key, at).at.score for key in keys]
        order = np.argsort(np.nan_to_num(scores, nan=-np.inf), kind="stable")
        evenly = np.linspace(0, every - 1, MAX_PAIRS).round().astype(int)
        keys = [keys[order[i]] for i in evenly]
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
            [row for row in rows[key] if row.facts.label not in left_out],
        )
        for key in keys
    )
    if not pairs[0].rows:
        raise UsageError(
            "no measure of the ladder can be put on a common scale",
            hint="compare with a null, or choose measures with a bounded range",
        )
    rows_shown = [row for pair in pairs for row in pair.rows]
    note = _note(selections, rows_shown, at, left_out)
    if every > len(keys):
        note.insert(
            0, f"{MAX_PAIRS} of {every} pairs of models, least to most alike on the lowest rung"
        )
    # No line of the title begins with the dash.
    whole = f": {pairs[0].label}".replace(" – ", "\u00a0– ") if len(pairs) == 1 else ""
    return Numbers(
        _caption,
        pairs=pairs,
        rows=rows_shown,
        is_calibrated=any(row.is_calibrated for row in rows_shown),
        reading=_reading(pairs[0]) if len(pairs) == 1 else "",
        title=f"Invariance ladder{whole}",
        note=tuple(note),
    )


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


def _row(selection: Selection, models: tuple[str, str], at: At) -> Numbers:
    """One measure of one pair of models, the languages averaged."""
    readings = [
        sel.read_at(rows, at) for pair, rows in selection.pairs.items() if pair.models == models
    ]
    if not readings:
        raise UsageError(
            f"the table has no '{selection.facts.name}' for {models[0]} and {models[1]}",
            hint="choose measures that all pairs have with measures=[...]",
        )
    facts = selection.facts
    placed = [on_scale(reading, facts) for reading in readings]
    return Numbers(
        facts=facts,
        reading=Reading.mean(readings),
        at=Placed(*np.array(placed).mean(axis=0).tolist()),
        members=np.array([one.score for one in placed] if len(placed) > 1 else []),
        is_calibrated=all(np.isfinite(reading.null_q95) for reading in readings),
    )


def on_scale(reading: Reading, facts: MeasureFacts) -> Placed:
    """A reading as `(x - zero) / (identical - zero)`; zero is the null's 95 % quantile."""
    unrelated = 0.0 if facts.is_similarity else facts.high
    zero = reading.null_q95 if np.isfinite(reading.null_q95) else unrelated
    if zero is None or zero == facts.identity:
        return Placed(*[math.nan] * 4)
    values = np.array([reading.value, reading.ci_low, reading.ci_high, reading.null_mean])
    score, low, high, null = ((values - zero) / (facts.identity - zero)).tolist()
    return Placed(score, min(low, high), max(low, high), null)


def _reading(pair: LadderPair) -> str:
    """The largest step upwards in words."""
    levels = {rung: pair.level(rung) for rung in pair.rungs}
    least, (lowest, level) = number(NOTABLE, 1), next(iter(levels.items()))
    if max(levels.values()) < NOTABLE:
        return f"No rung rises above {least}: they share little under any of these symmetries."
    first, second, rise = max(pair.steps(), key=lambda step: step[2], default=("", "", 0.0))
    if rise < NOTABLE:
        return (
            f"No step reaches {least}: what they share ({number(level)} at {lowest}) shows on the "
            "first rung already."
        )
    return f"Largest step {first} to {second}, +{number(rise)}: {MEANING[second]}."


def _note(
    selections: Sequence[Selection], rows: Sequence[Numbers], at: At, left_out: Sequence[str]
) -> list[str]:
    note = [selections[0].pairing, sel.sample_size(selections[0]), sel.depth_words(at)]
    if members := max(len(row.members) for row in rows):
        what = "languages" if selections[0].pairing == "same text" else "language pairs"
        note.append(f"mean over {members} {what} (small dots: each)")
    if any(np.isfinite(row.at.low) for row in rows):
        note.append(sel.statistics_note(selections[0], interval=True)[1])
    if any(row.is_calibrated for row in rows):
        note.append(f"null = 95 % of {sel.shuffles_of(selections)}")
    if not all(row.is_calibrated for row in rows):
        note.append("hollow = no null, 0 is the unrelated end of the range")
    if left_out:
        note.append(f"left out, no scale: {listed(left_out)}")
    return note


def draw_ladder(
    info: Numbers,
    *,
    ax: Where = None,
    size: Size = "wide",
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """Columns of rungs, measures, scores and numbers; in a given axes rungs go by number only."""
    first, width, alone = info.pairs[0], width_of(size), len(info.pairs) == 1
    rows = arrange(first.counts(), len(info.pairs))
    found = pair_looks([pair.role for pair in info.pairs])
    names = [f"{shortened(row.facts.label, 26)} {row.facts.arrow}" for row in first.rows]
    if ax is not None:
        (ax,) = fig.frames(info, ax, 1, 1, size, 1.0)
        _draw_scores(ax, info, rows, found, arrows=False, joined=True)
        rungs = [str(row.facts.rung) for row in first.rows]
        ax.set_yticks(rows.centres, map(" ".join, zip(rungs, names, strict=True)), color=LABEL)
        ax.tick_params(axis="y", length=0)
        if not alone:
            ax.legend(handles=pair_key([pair.label for pair in info.pairs], found), fontsize=7)
        if limits is not None:
            ax.set_xlim(*limits)
        return fig.figure_of(ax)

    key = [] if alone else pair_key([pair.label for pair in info.pairs], found)
    body, narrow = _HEAD + rows.height + _FOOT, size == "single"
    figure = fig.new_figure(width, body, info.title, info.note, reading=info.reading, key=key)
    top, total = fig.header_height(figure) + _HEAD, float(figure.get_size_inches()[1])
    rows = rows.scaled((total - top - _FOOT) / rows.height)
    figure.set_layout_engine("none")

    def write(x: float, y: float, string: str, **options: Any) -> None:
        """Text at inches from the left, and below the top of the axes."""
        options = {"va": "center"} | options
        figure.text(x / width, 1 - (top + y) / total, string, **options)

    longest = max(fig.text_size(figure, name, 8.0)[0] for name in names)
    left = fig.MARGIN + (_NARROW_COLUMN if narrow else _RUNG_COLUMN) + longest + 0.12
    numbers = alone * (2 if info.is_calibrated and not narrow else 1)
    right = fig.MARGIN + 0.1 + _NUMBER_COLUMN * numbers
    frame = (left / width, _FOOT / total, (width - left - right) / width, rows.height / total)
    axes = figure.add_axes(frame)
    _draw_scores(axes, info, rows, found, arrows=alone and not narrow, joined=not narrow)
    if limits is not None:
        axes.set_xlim(*limits)
    _write_rungs(write, rows, narrow=narrow)
    for name, y in zip(names, rows.centres, strict=True):
        write(left - 0.08, y, name, ha="right", color=INK, fontsize=8.0)
    if not narrow:
        low, high = axes.get_xlim()
        zero = "null" if info.is_calibrated else "unrelated"
        for value, name, side in ((0.0, zero, "center"), (1.0, "identical", "right")):
            at = left + (width - left - right) * (value - low) / (high - low)
            write(at, -0.1, name, ha=side, fontsize=7.5, color=GREY)
    columns = [width - fig.MARGIN - _NUMBER_COLUMN * k for k in reversed(range(numbers))]
    for at, head in zip(columns, ("value", "null"), strict=False):
        write(at, -0.1, head, ha="right", fontsize=7.5, color=GREY)
    for row, y in zip(first.rows, rows.centres, strict=True):
        shown = ((row.reading.value, INK), (row.reading.null_q95, GREY))
        for at, (value, colour) in zip(columns, shown, strict=False):
            write(at, y, number(value), ha="right", fontsize=8, color=colour)
    return figure


def _write_rungs(write: Callable[..., None], rows: Rows, *, narrow: bool) -> None:
    """The rung, what it is blind to, and its question."""
    for rung, (above, below) in rows.bands.items():
        blind_to, question = RUNGS[rung]
        bold: dict[str, Any] = {"fontweight": "bold", "color": INK}
        if narrow:
            write(fig.MARGIN, (above + below) / 2, rung, fontsize=9, **bold)
            # White under the question hides the grid lines that it may run over.
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            write(fig.MARGIN, above - 0.13, question, fontsize=7, color=GREY, bbox=box)
        else:
            write(fig.MARGIN, above + 0.1, f"{rung}  {blind_to}", fontsize=8.5, **bold)
            write(
                fig.MARGIN, above + 0.2, wrapped(question, 22), fontsize=7.5, color=GREY, va="top",
                linespacing=1.1,
            )  # fmt: skip


def _draw_scores(
    ax: Axes, info: Numbers, rows: Rows, found: list[Look], *, arrows: bool, joined: bool
) -> None:
    values = np.concatenate([[*row.at, *row.members] for row in info.rows])
    low = min(-0.06, float(np.nanmin(values)) - 0.03)
    ax.set_xlim(low, max(1.02, float(np.nanmax(values)) + 0.03))
    ax.set_ylim(rows.height, 0)
    ax.axvspan(low, 0, color=NULL_BAND, linewidth=0, zorder=0, label="null")
    for at in (0.25, 0.5, 0.75, 1.0):
        ax.axvline(at, color="#E6E9ED", linewidth=0.8, zorder=0.4)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    ax.set_xlabel("calibrated similarity" if info.is_calibrated else "share of the range")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    alone = len(info.pairs) == 1
    scale = rows.height / arrange(info.pairs[0].counts(), len(info.pairs)).height
    offsets = (np.arange(len(info.pairs)) - (len(info.pairs) - 1) / 2) * APART * scale
    for place, (pair, look) in enumerate(zip(info.pairs, found, strict=True)):
        offset, dashes = float(offsets[place]), "-" if alone else PAIRS[place][2]
        _draw_levels(ax, pair, rows, look, dashes, filled=alone, joined=joined)
        for row, y in zip(pair.rows, rows.centres, strict=True):
            _draw_row(ax, row, y + offset, look)
    if arrows:
        _draw_steps(ax, info.pairs[0], rows)


def _draw_levels(
    ax: Axes, pair: LadderPair, rows: Rows, look: Look, dashes: Any, *, filled: bool, joined: bool
) -> None:
    """The mean of each rung as a bar, or of several pairs as a staircase, joined to the next."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    tint = [1 - 0.16 * (1 - channel) for channel in to_rgb(look.fill)]
    levels = [pair.level(rung) for rung in pair.rungs]
    bands = list(rows.bands.values())
    colour, wide = (look.line, 1.6) if filled else (look.fill, 1.2)
    for level, (above, below) in zip(levels, bands, strict=True):
        if filled:
            ax.add_patch(Rectangle((0, above), level, below - above, color=tint, zorder=0.8))
        ax.plot(
            [level] * 2, [above, below], color=colour, linewidth=wide, linestyle=dashes, zorder=1.5
        )
    colour = FAINT if filled else look.fill
    for k in range(len(levels) - 1 if joined else 0):
        start, end = bands[k][1], bands[k + 1][0]
        x, middle = [levels[k]] * 2 + [levels[k + 1]] * 2, (start + end) / 2
        ax.plot(
            x, [start, middle, middle, end], color=colour, linewidth=0.8, linestyle=dashes,
            zorder=1.2, alpha=1.0 if filled else 0.6,
        )  # fmt: skip


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


def _draw_row(ax: Axes, row: Numbers, y: float, look: Look) -> None:
    if np.isfinite(row.at.null):
        bar: dict[str, Any] = {"marker": "|", "markersize": 6, "markeredgewidth": 1.0}
        ax.plot([row.at.null], [y], color=GREY, zorder=2, **bar)
    if np.isfinite(row.at.low) and np.isfinite(row.at.high):
        ax.plot([row.at.low, row.at.high], [y, y], color=look.line, linewidth=1.6, zorder=2.5)
    if row.members.size:
        ax.plot(
            row.members, np.full(row.members.size, y), linestyle="none", marker="o", markersize=2.2,
            color=look.line, alpha=0.45, markeredgewidth=0, zorder=2.2,
        )  # fmt: skip
    ax.plot([row.at.score], [y], zorder=3, **pair_marker(look, hollow=not row.is_calibrated))


LADDER = Figure("ladder", "similarity", ladder_info, draw_ladder)
