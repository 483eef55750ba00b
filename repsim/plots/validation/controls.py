"""Merges whose outcome is known beforehand: what was foretold of them, and whether it is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import listed
from repsim.plots.validation.rows import Row, known, needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most lines that a figure has.
MAX_CONTROLS = 40
_NEEDED = ("control", "predicted", "low", "high", "observed", "right")
Judgement = Literal["right", "wrong", "refused"]
JUDGEMENTS: tuple[Judgement, ...] = ("right", "wrong", "refused")


@dataclasses.dataclass(frozen=True)
class ControlMerge:
    """One merge of a control.

    Attributes:
        predicted: Retention foretold; NaN if refused.
        low: Lower end of the interval.
        high: Upper end.
        observed: Retention found.
        judgement: Whether the forecast is right about collapse.
    """

    predicted: float
    low: float
    high: float
    observed: float
    judgement: Judgement


@dataclasses.dataclass(frozen=True)
class ControlLine:
    """All merges of one control."""

    name: str
    merges: tuple[ControlMerge, ...]

    def count(self, judgement: Judgement) -> int:
        """Number of merges with that judgement."""
        return sum(merge.judgement == judgement for merge in self.merges)

    @property
    def words(self) -> str:
        """Judgements in words: "right", or "7 right, 1 wrong"."""
        counts = {judgement: self.count(judgement) for judgement in JUDGEMENTS}
        said = [f"{count} {judgement}" for judgement, count in counts.items() if count]
        return said[0].split()[1] if len(self.merges) == 1 else ", ".join(said)


@dataclasses.dataclass(frozen=True)
class ControlsData:
    """Everything that the figure shows.

    Attributes:
        lines: One per control.
        title, note: Heading, and pieces of the grey line.
    """

    lines: tuple[ControlLine, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and which controls are wrong."""
        total = {judgement: sum(l.count(judgement) for l in self.lines) for judgement in JUDGEMENTS}
        said = [f"{total['right']} of {sum(total.values())} merges are right"]
        for judgement in JUDGEMENTS[1:]:
            names = [
                f"{line.name} ({line.count(judgement)})"
                for line in self.lines
                if line.count(judgement)
            ]
            said += [f"{judgement}: {listed(names)}"] if names else []
        return (
            "Merges whose answer is known beforehand, in their worst language: retention foretold "
            "with its 90 % interval, and retention found. A forecast is right if it stands on the "
            f"true side of collapse (shaded). {'; '.join(said)}."
        )


def prepare_controls(rows: Iterable[Row], *, title: str | None = None) -> ControlsData:
    """Controls with what was foretold and found.

    Args:
        rows: One per merge, with the columns control, predicted, low, high, observed, right (0, 1,
            or null where the predictor refused); those of one control share a line.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, a missing column, or more than 40 controls.

    Example:
        >>> row = {"control": "self", "predicted": 0.98, "low": 0.9, "high": 1.0, "observed": 1.0}
        >>> data = prepare_controls([row | {"right": 1}, row | {"control": "noise", "right": 0}])
        >>> [line.words for line in data.lines]
        ['right', 'wrong']
    """
    found: dict[str, list[ControlMerge]] = {}
    for row in rows:
        needs(row, _NEEDED, "controls")
        predicted, low, high, observed = (known(row[name]) for name in _NEEDED[1:5])
        judgement = _judged(row["right"])
        merge = ControlMerge(predicted, low, high, observed, judgement)
        found.setdefault(str(row["control"]), []).append(merge)
    if not found:
        raise UsageError("there are no controls to draw")
    if len(found) > MAX_CONTROLS:
        raise UsageError(f"{len(found)} controls are more than {MAX_CONTROLS} lines")
    return ControlsData(
        lines=tuple(ControlLine(name, tuple(merges)) for name, merges in found.items()),
        title=title if title is not None else "Controls with a known answer",
        note=("bars: 90 % intervals", "shaded: collapse"),
    )


def _judged(right: Any) -> Judgement:
    if right is None:
        return "refused"
    return "right" if right else "wrong"


def plot_controls(rows: Iterable[Row], *, size: Size = "wide", title: str | None = None) -> Figure:
    """Draw controls; arguments as for `prepare_controls`."""
    from repsim.plots.drawing.validation.controls import draw_controls

    return draw_controls(prepare_controls(rows, title=title), size=size)
