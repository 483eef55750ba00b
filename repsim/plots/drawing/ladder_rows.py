"""Where the rungs of a ladder stand, and how its pairs of models are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from repsim.plots.appearance import Look, darkened, line_marker, looks
from repsim.plots.drawing.figure import key_of

#: Several pairs differ in lightness (so in grey too), in marker and in the dashes of their line.
PAIRS: tuple[tuple[str, str, Any], ...] = (
    ("#1F2733", "o", "-"),
    ("#0072B2", "s", (0, (4, 1.5))),
    ("#D55E00", "^", (0, (1, 1))),
    ("#E69F00", "D", (0, (5, 1.5, 1, 1.5))),
)
#: Inches: least height of a rung, space between rungs, space between pairs.
_RUNG, _GAP = 0.5, 0.26
APART = 0.13


class Rows(NamedTuple):
    """Inches below the top: (top, bottom) of each rung, centre of each of the pair's rows."""

    bands: dict[str, tuple[float, float]]
    centres: list[float]
    height: float

    def scaled(self, by: float) -> Rows:
        """The same rows, that much higher."""
        bands = {rung: (above * by, below * by) for rung, (above, below) in self.bands.items()}
        return Rows(bands, [centre * by for centre in self.centres], self.height * by)


def arrange(counts: Mapping[str, int], pairs: int) -> Rows:
    """Give each rung a band with one row per measure; more pairs make higher rows."""
    pitch = 0.2 if pairs == 1 else 0.14 + APART * pairs
    bands: dict[str, tuple[float, float]] = {}
    centres: list[float] = []
    at = 0.0
    for rung, count in counts.items():
        tall = max(_RUNG, pitch * count + 0.06)
        first = at + (tall - pitch * count) / 2 + pitch / 2
        bands[rung] = (at, at + tall)
        centres += [first + k * pitch for k in range(count)]
        at += tall + _GAP
    return Rows(bands, centres, at - _GAP)


def pair_looks(roles: Sequence[str]) -> list[Look]:
    """A pair alone looks like its role; several are told apart whatever their roles are."""
    if len(roles) == 1:
        return looks(roles)
    return [
        Look(colour, darkened(colour, 3.0), darkened(colour, 4.5), shape, True)
        for colour, shape, _ in PAIRS[: len(roles)]
    ]


def pair_key(labels: Sequence[str], found: Sequence[Look]) -> list[Any]:
    """Marker and line of each pair."""
    return key_of({
        label: pair_marker(look) | {"linestyle": dashes, "linewidth": 1.2, "color": look.fill}
        for label, look, (_, _, dashes) in zip(labels, found, PAIRS, strict=False)
    })  # fmt: skip


def pair_marker(look: Look, hollow: bool = False) -> dict[str, Any]:
    """Marker without a line; hollow where a measure has no null."""
    return line_marker(look, 5, hollow=hollow, markeredgewidth=1.0, linestyle="none")
