"""Predictors side by side: what each further tier of features adds, and what other laws reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, known, needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most lines that a figure has.
MAX_CANDIDATES = 40
_NEEDED = ("candidate", "kind", "value", "low", "high", "chosen")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One predictor; ends are NaN where there is no interval."""

    name: str
    kind: str
    value: float
    low: float
    high: float
    chosen: bool


@dataclasses.dataclass(frozen=True)
class CandidatesData:
    """Everything that the figure shows.

    Attributes:
        candidates: In the order of the lines; those of one kind together.
        kinds: Kinds, in the order of their looks.
        axis: What is compared.
        title, note: Heading, and pieces of the grey line.
    """

    candidates: tuple[Candidate, ...]
    kinds: tuple[str, ...]
    axis: str
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and every number."""
        said = [
            f"{c.name} {number(c.value, 3)} [{number(c.low, 3)}, {number(c.high, 3)}]"
            for c in self.candidates
        ]
        chosen = [c.name for c in self.candidates if c.chosen]
        words = f" The predictor that is judged here: {chosen[0]} (dashed)." if chosen else ""
        return f"{self.axis[0].upper()}{self.axis[1:]}: {'; '.join(said)}.{words}"


def prepare_candidates(
    rows: Iterable[Row], *, axis: str, title: str | None = None, note: Sequence[str] = ()
) -> CandidatesData:
    """Predictors with one number each.

    Args:
        rows: One per predictor, with the columns candidate, kind, value, low, high, chosen.
        axis: What is compared.
        title: Heading instead of the one that is made.
        note: Pieces of the grey line.

    Raises:
        UsageError: Nothing to draw, a missing column, or more than 40 predictors.

    Example:
        >>> rows = [{"candidate": name, "kind": "tiers", "value": error, "low": None, "high": None,
        ...          "chosen": name == "T0+T1"} for name, error in [("T0", 0.2), ("T0+T1", 0.1)]]
        >>> prepare_candidates(rows, axis="mean absolute error").kinds
        ('tiers',)
    """
    found = []
    for row in rows:
        needs(row, _NEEDED, "predictors")
        value, low, high = (known(row[name]) for name in ("value", "low", "high"))
        name, kind = str(row["candidate"]), str(row["kind"])
        found.append(Candidate(name, kind, value, low, high, bool(row["chosen"])))
    if not found:
        raise UsageError("there are no predictors to draw")
    if len(found) > MAX_CANDIDATES:
        raise UsageError(f"{len(found)} predictors are more than {MAX_CANDIDATES} lines")
    kinds = tuple(dict.fromkeys(candidate.kind for candidate in found))
    return CandidatesData(
        candidates=tuple(sorted(found, key=lambda candidate: kinds.index(candidate.kind))),
        kinds=kinds,
        axis=axis,
        title=title if title is not None else "What further features and other laws give",
        note=tuple(note),
    )


def plot_candidates(
    rows: Iterable[Row],
    *,
    axis: str,
    size: Size = "wide",
    title: str | None = None,
    note: Sequence[str] = (),
) -> Figure:
    """Draw predictors side by side; arguments as for `prepare_candidates`."""
    from repsim.plots.drawing.validation.candidates import draw_candidates

    return draw_candidates(prepare_candidates(rows, axis=axis, title=title, note=note), size=size)
