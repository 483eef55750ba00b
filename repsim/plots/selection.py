"""What plots read from a similarity table: pairs, layers, and what the numbers rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable

PAIRINGS = ("same text", "parallel text")
At = Literal["middle", "mean"] | int


class Pair(NamedTuple):
    """Two (model, language) sides."""

    model_a: str
    language_a: str
    model_b: str
    language_b: str

    @property
    def is_self(self) -> bool:
        """Whether both sides are one model reading one language."""
        return self.model_a == self.model_b and self.language_a == self.language_b

    @property
    def models(self) -> tuple[str, str]:
        """The two models."""
        return self.model_a, self.model_b

    @property
    def languages(self) -> tuple[str, str]:
        """The two languages."""
        return self.language_a, self.language_b

    def swapped(self) -> Pair:
        """The same pair, the other way round."""
        return Pair(self.model_b, self.language_b, self.model_a, self.language_a)


class MeasureFacts(NamedTuple):
    """What a figure must know of a measure, from `table.info["measures"]`."""

    name: str
    label: str
    direction: str
    low: float | None
    high: float | None
    identity: float
    symmetric: bool
    rung: str | None

    @classmethod
    def of(cls, table: SimilarityTable, name: str) -> MeasureFacts:
        """Read the declaration; a table without one gets the plainest reading (0 to 1, up)."""
        known: Mapping[str, Any] = table.info.get("measures", {}).get(name, {})
        direction = known.get("direction", "similarity")
        low, high = known.get("range", (None, None))
        default = 1.0 if direction == "similarity" else 0.0
        return cls(
            name=name,
            label=known.get("label", name),
            direction=direction,
            low=low,
            high=high,
            identity=float(known.get("identity_value", default)),
            symmetric=bool(known.get("symmetric", True)),
            rung=known.get("rung"),
        )

    @property
    def is_similarity(self) -> bool:
        """Whether larger is more similar."""
        return self.direction == "similarity"

    @property
    def arrow(self) -> str:
        """Direction in which similarity grows."""
        return "↑" if self.is_similarity else "↓"

    @property
    def axis_label(self) -> str:
        """Label with the direction in words, which stay on one line."""
        return f"{self.label} ({self.arrow}\u00a0more\u00a0similar)"


class Selection(NamedTuple):
    """The rows of one figure by pair; self-comparisons, and the second order, are left out."""

    facts: MeasureFacts
    pairing: str
    point: str
    pairs: dict[Pair, list[dict[str, Any]]]
    info: dict[str, Any]

    def role(self, models: Iterable[str]) -> str:
        """The role that these models share; "other" if they differ or have none."""
        known = self.info.get("models", {})
        roles = {known.get(model, {}).get("role", "other") for model in models}
        return str(roles.pop()) if len(roles) == 1 else "other"

    def languages(self) -> list[str]:
        """Languages of the pairs, in order of first appearance."""
        return list(dict.fromkeys(lang for pair in self.pairs for lang in pair.languages))


def _choose_measure(table: SimilarityTable, measure: str | None) -> str:
    """The measure asked for, else CKA, else the first in the table."""
    known = table.unique("measure")
    if not known:
        raise UsageError("the table is empty: there is nothing to draw")
    if measure is None:
        return "cka" if "cka" in known else str(known[0])
    if measure not in known:
        raise unknown_name("measure in this table", measure, known)
    return measure


def select(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    pairing: str | None = None,
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    alone: bool = False,
) -> Selection:
    """Choose the rows of one measure, hook point and pairing, or say by name what is not there."""
    facts = MeasureFacts.of(table, _choose_measure(table, measure))
    if not table.unique("point"):  # arrays whose hook point nobody stated
        point = ""
    for kind, wanted, columns in (
        ("model in this table", models, ("model_a", "model_b")),
        ("language in this table", languages, ("language_a", "language_b")),
        ("hook point in this table", [point] if point else None, ("point",)),
    ):
        known = table.unique(*columns) if wanted else []
        for name in wanted or ():
            if name not in known:
                raise unknown_name(kind, name, known)
    if pairing is not None and pairing not in PAIRINGS:
        raise unknown_name("pairing", pairing, PAIRINGS)
    grouped: dict[str, dict[Pair, list[dict[str, Any]]]] = {}
    own: dict[Pair, list[dict[str, Any]]] = {}
    kept = table.where(measure=facts.name, point=point)
    if models is not None:
        kept = kept.where(model_a=list(models), model_b=list(models))
    if languages is not None:
        kept = kept.where(language_a=list(languages), language_b=list(languages))
    for row in kept.rows():
        spoken = row["language_a"] or "", row["language_b"] or ""
        pair = Pair(row["model_a"], spoken[0], row["model_b"], spoken[1])
        if row["value"] is None:
            continue
        if pair.is_self:
            own.setdefault(pair, []).append(row)
            continue
        of_pairing = grouped.setdefault(row["pairing"], {})
        if not (facts.symmetric and pair.swapped() in of_pairing):
            of_pairing.setdefault(pair, []).append(row)
    chosen = pairing or next((name for name in PAIRINGS if name in grouped), PAIRINGS[0])
    pairs = grouped.get(chosen, {}) or (own if alone and not grouped else {})
    if not pairs:
        raise UsageError(
            f"the table has no '{facts.name}' between different models or languages to draw "
            f"(hook point '{point}', {chosen})",
            hint=f"measures: {table.unique('measure')}, hook points: {table.unique('point')}, "
            f"pairings: {table.unique('pairing')}",
        )
    return Selection(facts, chosen, point, pairs, table.info)


def limit_panels(count: int, most: int, hint: str) -> None:
    """Refuse a figure of more panels than can be read."""
    if count > most:
        raise UsageError(f"this figure would have {count} panels, more than {most}", hint=hint)


class Reading(NamedTuple):
    """A cell or the mean over several (NaN: none), whose mean interval ends are conservative."""

    value: float
    ci_low: float
    ci_high: float
    null_mean: float
    null_q95: float
    calibrated: float
    partial: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Reading:
        """From a row of the table."""
        return cls(*(math.nan if row[name] is None else float(row[name]) for name in cls._fields))

    @classmethod
    def mean(cls, readings: Sequence[Reading]) -> Reading:
        """Mean of each number; NaN as soon as one of them is missing."""
        return cls(*np.array(readings).mean(axis=0).tolist())


def read_at(rows: Sequence[dict[str, Any]], at: At) -> Reading:
    """One pair's numbers at the "middle", as "mean" over matched layers, or at a layer."""
    cells = matched_cells(rows)
    if at == "middle":
        return Reading.of(cells[len(cells) // 2])
    if at == "mean":
        return Reading.mean([Reading.of(cell) for cell in cells])
    side = shallower_side(rows)
    for cell in cells:
        if cell[side] == at:
            return Reading.of(cell)
    raise UsageError(
        f"layer {at} is not in the table for {rows[0]['model_a']} and {rows[0]['model_b']}",
        hint=f"layers: {[cell[side] for cell in cells]}, or 'middle', or 'mean'",
    )


def shallower_side(rows: Sequence[Mapping[str, Any]]) -> str:
    """The layer column of the side with fewer layers, the first if they are equal."""
    deep_a, deep_b = depths(rows)
    return "layer_a" if deep_a <= deep_b else "layer_b"


def depths(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """The last layer of either side."""
    return max(row["layer_a"] for row in rows), max(row["layer_b"] for row in rows)


def depth_words(at: At) -> str:
    """Where `read_at` looks, in words."""
    if at == "middle":
        return "middle layer"
    return "mean over matched layers" if at == "mean" else f"layer {at}"


def statistics_note(
    selection: Selection, *, interval: bool = False, null: bool = False, partial: bool = False
) -> list[str]:
    """What the shown numbers rest on, in pieces for the grey line above a figure."""
    stated: Mapping[str, Any] = selection.info.get("statistics") or {}
    pieces = [sample_size(selection)]
    if interval:
        level = round(100 * float(stated.get("level", 0.95)))
        method = stated.get("interval") or ""
        unit = stated.get("interval_unit")
        over = f" over {unit}" if unit and unit != "sentences" else ""
        pieces.append(f"interval {level} % {method}{over}".rstrip())
    if null:
        pieces.append(f"null = 95 % of {shuffles_of([selection])}")
    if partial:
        covariates = stated.get("covariates") or ["covariates"]
        names = [str(name).replace("_", " ") for name in covariates]
        pieces.append(f"dashed = {' and '.join(names)} removed")
    return pieces


def sample_size(selection: Selection) -> str:
    """Such as "n = 686 sentence pairs", or a range."""
    sizes = {row["n"] for rows in selection.pairs.values() for row in rows if row["n"]}
    what = "sentences" if selection.pairing == "same text" else "sentence pairs"
    what = what if selection.point else "inputs"
    if not sizes:
        return f"n not stated ({what})"
    low, high = min(sizes), max(sizes)
    count = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    return f"n = {count.replace(',', ' ')} {what}"


def shuffles_of(selections: Sequence[Selection]) -> str:
    """How many shuffles the nulls of these measures rest on, such as "20–100 shuffles"."""
    counts = set()
    for selection in selections:
        stated: Mapping[str, Any] = selection.info.get("statistics") or {}
        expensive = selection.facts.name in stated.get("expensive_measures", ())
        count = stated.get("permutations_expensive") if expensive else stated.get("shuffles")
        counts |= {int(count)} if count else set()
    ends = "–".join(str(end) for end in sorted({min(counts), max(counts)})) if counts else ""
    return f"{ends} shuffles".lstrip()
