"""The invariance ladder: two models compared under more and more symmetries."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_table import SimilarityTable
from repsim.plots.appearance import Size
from repsim.plots.names import listed, number, shortened
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


@dataclasses.dataclass(frozen=True)
class LadderRow:
    """One measure on one pair of models.

    Attributes:
        facts: The measure.
        reading: Its numbers in its own units; the mean over languages if there are several.
        score, low, high: Calibrated value and interval: 0 at the null's 95 %, 1 on identical input,
            larger is more similar whatever the measure's direction.
        null: The null's mean on the same scale.
        members: `[m]` scores of the languages that were averaged; empty if there is one.
        is_calibrated: False where the table has no null: then 0 is the measure's unrelated end.
    """

    facts: MeasureFacts
    reading: Reading
    score: float
    low: float
    high: float
    null: float
    members: np.ndarray
    is_calibrated: bool


@dataclasses.dataclass(frozen=True)
class LadderPair:
    """One pair of models: rung -> its measures, lowest rung first."""

    label: str
    role: str
    rungs: Mapping[str, tuple[LadderRow, ...]]

    def level(self, rung: str) -> float:
        """Mean score of a rung's measures."""
        return float(np.mean([row.score for row in self.rungs[rung]]))

    def steps(self) -> list[tuple[str, str, float]]:
        """(from, to, rise of the level) between neighbouring rungs."""
        names = list(self.rungs)
        return [
            (first, second, self.level(second) - self.level(first))
            for first, second in itertools.pairwise(names)
        ]


@dataclasses.dataclass(frozen=True)
class LadderData:
    """Everything that the figure shows.

    Attributes:
        pairs: Pairs of models, all with the same rungs and measures.
        title, reading, note: Heading, what the figure says in a sentence, pieces of the grey line.
        left_out: Measures of the ladder that could not be put on its scale.
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


def prepare_ladder(
    table: SimilarityTable,
    *,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    point: str = "resid",
    pairing: str | None = None,
    at: At = "middle",
    title: str | None = None,
) -> LadderData:
    """Put the measures of each rung on one scale, for one pair of models or a few.

    Args:
        table: The similarities.
        models: Keep pairs of these models. Without a choice, a table of more than four pairs
            shows four, spread from the least to the most alike on the lowest rung.
        languages: Keep these languages; several are averaged.
        point: Hook point.
        pairing: "same text" or "parallel text", see `selection.select`.
        measures: Measures to show; all on the ladder if left out.
        at: "middle", "mean" or a layer, see `selection.read_at`.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: No measure on the ladder, more than four pairs of the models chosen, or a pair
            that lacks a measure.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> data = prepare_ladder(synthetic_table())
        >>> list(data.pairs[0].rungs), data.pairs[0].level("L0") < data.pairs[0].level("L2")
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
        keys = _spread(keys, [_row(selections[0], key, at).score for key in keys])
    if len(keys) > MAX_PAIRS:
        raise UsageError(
            f"the table has {len(keys)} pairs of models; the ladder shows {MAX_PAIRS} at most",
            hint=f"choose two with models=['{keys[0][0]}', '{keys[0][1]}']",
        )
    rows = {key: [_row(selection, key, at) for selection in selections] for key in keys}
    left_out = [
        selection.facts.label
        for i, selection in enumerate(selections)
        if any(np.isnan(rows[key][i].score) for key in keys)
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
    return LadderData(
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
    mean = np.array([dataclasses.astuple(p) for p in placed]).mean(axis=0)
    return LadderRow(
        facts=facts,
        reading=Reading.mean(readings),
        score=float(mean[0]),
        low=float(mean[1]),
        high=float(mean[2]),
        null=float(mean[3]),
        members=np.array([p.score for p in placed] if len(placed) > 1 else []),
        is_calibrated=all(np.isfinite(reading.null_q95) for reading in readings),
    )


@dataclasses.dataclass(frozen=True)
class Placed:
    """A reading on the common scale."""

    score: float
    low: float
    high: float
    null: float


def on_scale(reading: Reading, facts: MeasureFacts) -> Placed:
    """A reading as `(x - zero) / (identical - zero)`, zero at the null's 95 % quantile.

    Without a null, zero is the unrelated end of the measure's range: 0 for a similarity, the
    largest value for a distance.

    Returns:
        Score, interval and the null's mean; all NaN for an unbounded distance without a null.

    Example:
        >>> facts = MeasureFacts("d", "d", "distance", 0.0, 2.0, 0.0, True, "L2")
        >>> nan = float("nan")
        >>> on_scale(Reading(0.5, 0.4, 0.6, nan, 1.0, nan, nan), facts).score
        0.5
    """
    unrelated = 0.0 if facts.is_similarity else facts.high
    zero = reading.null_q95 if np.isfinite(reading.null_q95) else unrelated
    if zero is None or zero == facts.identity:
        return Placed(*[float("nan")] * 4)
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
    if any(np.isfinite(row.low) for row in rows):
        note.append(statistics_note(selections[0], interval=True)[1])
    if any(row.is_calibrated for row in rows):
        note.append(f"null = 95 % of {shuffles_of(selections)}")
    if not all(row.is_calibrated for row in rows):
        note.append("hollow = no null, 0 is the unrelated end of the range")
    if left_out:
        note.append(f"left out, no scale: {listed(left_out)}")
    return note


def plot_ladder(
    table: SimilarityTable, *, ax: Axes | None = None, size: Size = "wide", **options: Any
) -> Figure:
    """Draw the invariance ladder: what a pair of models shares under more and more symmetries.

    Args:
        table: The similarities.
        ax: Axes to draw into; a figure of its own is made if left out.
        size: "single" (3.4 in), "medium" (5 in) or "wide" (7 in).
        **options: See `prepare_ladder`.

    Returns:
        The figure (`ax.figure` if an axes was given).

    Raises:
        UsageError: Nothing to draw, or too much for one figure.
    """
    from repsim.plots.drawing.ladder import draw_ladder

    return draw_ladder(prepare_ladder(table, **options), ax=ax, size=size)
