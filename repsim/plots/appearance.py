"""Colours, markers and sizes of every figure, and the context in which figures are drawn."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

from repsim.core.errors import UsageError, unknown_name

Size = Literal["single", "medium", "wide"]
#: "repsim", "dark", "yours" (the caller's settings), or a style sheet or settings of matplotlib.
Theme = str | Mapping[str, Any]

#: Figure widths in inches: one column, one and a half, two.
WIDTHS: dict[str, float] = {"single": 3.4, "medium": 5.0, "wide": 7.0}

INK = "#1F2733"
LABEL = "#3A4350"
TICK, GRID = "#9AA1AB", "#E6E9ED"
GREY = "#5F6672"
FAINT = "#C4C9D0"
NULL_BAND = "#E4E6E9"
ACCENT = "#C8601A"
#: Ink on dark and on bright cells of a matrix; it stays as it is on dark paper.
ON_CELLS = ("#FEFEFE", "#15181D")

#: Role of a model -> colour and marker. The marker repeats what the colour says.
ROLES: dict[str, tuple[str, str]] = {
    "monolingual": ("#1F5FA8", "D"),
    "mixed": ("#C8601A", "s"),
    "merged": ("#2E8B57", "o"),
    "null": ("#5F6672", "x"),
}

#: Okabe-Ito, for what has no role: languages, models of unknown origin.
PALETTE: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P")


class Canvas(NamedTuple):
    """What the caller asked of a whole figure: width and height in inches, and its theme."""

    figsize: tuple[float, float] | None = None
    theme: Theme = "repsim"


_CANVAS: contextvars.ContextVar[Canvas | None] = contextvars.ContextVar("canvas", default=None)


def canvas() -> Canvas:
    """What was asked of the figure that is being drawn."""
    return _CANVAS.get() or Canvas()


@contextlib.contextmanager
def drawn_on(asked: Canvas) -> Iterator[None]:
    """Figures made inside have this size and theme."""
    size = asked.figsize
    if size is not None and not (len(size) == 2 and all(0 < side < 200 for side in size)):
        raise UsageError(
            f"figsize {size} is no width and height in inches", hint="such as figsize=(5, 3)"
        )
    token = _CANVAS.set(asked)
    try:
        yield
    finally:
        _CANVAS.reset(token)


class Look(NamedTuple):
    """How a series is drawn: contrast with white is 3 for `fill`, 4.5 for `line` and text."""

    fill: str
    line: str
    text: str
    marker: str
    filled: bool


def width_of(size: str) -> float:
    """Width in inches of a named size, or that of the figure size asked for."""
    if size not in WIDTHS:
        raise unknown_name("figure size", size, WIDTHS)
    asked = canvas().figsize
    return WIDTHS[size] if asked is None else float(asked[0])


def looks(roles: Sequence[str]) -> list[Look]:
    """One look per series: by role, and in palette order for what has no role."""
    seen: dict[str, int] = {}
    found = []
    palette = _away_from([ROLES[role][0] for role in roles if role in ROLES])
    for role in roles:
        place = seen.get(role, 0)
        seen[role] = place + 1
        if role in ROLES:
            colour, marker = ROLES[role]
            marker = marker if place < 2 else MARKERS[(place + 2) % len(MARKERS)]
        else:
            colour = palette[place % len(palette)]
            marker = MARKERS[PALETTE.index(colour)]
        hollow = place % 2 == 1 if role in ROLES else place >= len(palette)
        found.append(Look(colour, darkened(colour, 3.0), darkened(colour, 4.5), marker, not hollow))
    return found


def _away_from(taken: Sequence[str]) -> list[str]:
    """Palette colours that nobody takes for one of those taken."""
    return [
        colour
        for colour in PALETTE
        if all(math.dist(_channels(colour), _channels(other)) > 0.3 for other in taken)
    ]


def _channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(colour: str) -> float:
    """Relative luminance of "#RRGGBB" as WCAG defines it, 0 black to 1 white."""
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str) -> float:
    """Contrast of "#RRGGBB" with white as WCAG defines it, 1 to 21."""
    return 1.05 / (luminance(colour) + 0.05)


def darkened(colour: str, ratio: float) -> str:
    """The colour, darkened in small steps until its contrast with white reaches `ratio`."""
    while contrast(colour) < ratio:
        colour = "#" + "".join(f"{int(c * 255 * 0.97):02X}" for c in _channels(colour))
    return colour


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the theme asked for; every setting is as it was before when the block ends.

    Example:
        >>> import matplotlib
        >>> before = matplotlib.rcParams["font.size"]
        >>> with style():
        ...     inside = matplotlib.rcParams["font.size"]
        >>> inside, matplotlib.rcParams["font.size"] == before
        (8.5, True)
    """
    import matplotlib.style

    theme = canvas().theme
    if theme == "yours":
        yield
        return
    if isinstance(theme, str) and theme not in ("repsim", "dark", *matplotlib.style.available):
        known = ["repsim", "dark", "yours", *matplotlib.style.available]
        raise unknown_name("theme", theme, known)
    if not isinstance(theme, str) and (
        strange := [k for k in theme if k not in matplotlib.rcParams]
    ):
        raise UsageError(
            f"the theme names no setting of matplotlib: {', '.join(strange)}",
            hint="settings are keys of matplotlib.rcParams, such as 'font.size'",
        )
    over: list[Any] = [] if theme in ("repsim", "dark") else [theme]
    sheet = resources.files("repsim.plots").joinpath("repsim.mplstyle")
    with (
        resources.as_file(sheet) as path,
        matplotlib.style.context([str(path), *over], after_reset=True),
    ):
        yield


def line_marker(
    look: Look, size: float | None = 4.5, *, hollow: bool = False, **more: Any
) -> dict[str, Any]:
    """Options of a line's markers (and of the line); `size` None leaves the style's own."""
    sized = {} if size is None else {"markersize": size}
    face = look.fill if look.filled and not hollow else "white"
    marked = {"marker": look.marker, "markerfacecolor": face, "markeredgecolor": look.line}
    return {"color": look.line, **marked, **sized, **more}
