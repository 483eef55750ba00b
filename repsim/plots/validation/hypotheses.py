"""The numbers that hypotheses are judged by, with their intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.validation.rows import Row, known, needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most hypotheses, and most numbers of one, that a figure has.
MAX_HYPOTHESES, MAX_NUMBERS = 12, 16
_NEEDED = ("hypothesis", "statement", "verdict", "quantity", "value", "low", "high")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One number; NaN where it, or an end of its interval, is not known."""

    quantity: str
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class HypothesisPanel:
    """One hypothesis with what it is judged by."""

    name: str
    statement: str
    verdict: str
    numbers: tuple[Evidence, ...]


@dataclasses.dataclass(frozen=True)
class HypothesesData:
    """Everything that the figure shows.

    Attributes:
        panels: One per hypothesis.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[HypothesisPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and every number."""
        said = []
        for panel in self.panels:
            numbers = [
                f"{e.quantity} {number(e.value)} [{number(e.low)}, {number(e.high)}]"
                for e in panel.numbers
            ]
            said.append(f"{panel.name} ({panel.verdict}): {', '.join(numbers)}")
        return f"The numbers that each hypothesis is judged by. {'; '.join(said)}."


def prepare_hypotheses(rows: Iterable[Row], *, title: str | None = None) -> HypothesesData:
    """Hypotheses with their numbers.

    Args:
        rows: One per number, with the columns hypothesis, statement, verdict, quantity, value, low,
            high.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, too many hypotheses or numbers of one.

    Example:
        >>> row = {"hypothesis": "H4", "statement": "sign conflict foretells nothing",
        ...        "verdict": "supported", "quantity": "rank correlation", "value": 0.02,
        ...        "low": -0.1, "high": 0.15}
        >>> prepare_hypotheses([row]).panels[0].numbers[0].high
        0.15
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        needs(row, _NEEDED, "hypotheses")
        found.setdefault(str(row["hypothesis"]), []).append(row)
    if not found:
        raise UsageError("there are no hypotheses to draw")
    if len(found) > MAX_HYPOTHESES or max(map(len, found.values())) > MAX_NUMBERS:
        raise UsageError(
            f"a figure has at most {MAX_HYPOTHESES} hypotheses with {MAX_NUMBERS} numbers each"
        )
    panels = tuple(
        HypothesisPanel(
            name,
            str(group[0]["statement"]),
            str(group[0]["verdict"]),
            tuple(
                Evidence(str(row["quantity"]), *(known(row[k]) for k in ("value", "low", "high")))
                for row in group
            ),
        )
        for name, group in found.items()
    )
    return HypothesesData(
        panels=panels,
        title=title if title is not None else "Hypotheses, tested in the open",
        note=("bars: 95 % intervals, bootstrap over models",),
    )


def plot_hypotheses(
    rows: Iterable[Row], *, size: Size = "wide", title: str | None = None
) -> Figure:
    """Draw the numbers of hypotheses; arguments as for `prepare_hypotheses`."""
    from repsim.plots.drawing.validation.hypotheses import draw_hypotheses

    return draw_hypotheses(prepare_hypotheses(rows, title=title), size=size)
