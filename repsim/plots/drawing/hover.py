"""Values on hover: where the points and cells of a figure lie, and what each of them says."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repsim.plots.names import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: A figure of more points than this says nothing on hover: they lie on one another.
MOST = 3000
#: Width of the spot of a point, in points (1/72 inch).
_POINT = 8.0
#: Artist -> what each of its points or cells says.
_SAID: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Spot(NamedTuple):
    """A place on a figure, in points from its top left corner, and what it says."""

    x: float
    y: float
    width: float
    height: float
    text: str


def say(artist: Any, texts: Sequence[Any]) -> None:
    """State what each point of a line, or each cell of an image, says on hover."""
    _SAID[artist] = texts


def spots(figure: Figure) -> list[Spot]:
    """Every point and cell of a figure whose layout is settled; none if there are too many."""
    found: dict[tuple[float, float], Spot] = {}
    for ax in figure.axes:
        for spot in (*_cells(ax), *_points(ax)):
            found[round(spot.x), round(spot.y)] = spot
    return list(found.values()) if len(found) <= MOST else []


def _placed(ax: Axes, x: float, y: float) -> tuple[float, float]:
    """Data coordinates in points from the top left corner of the figure."""
    figure: Any = ax.get_figure(root=True)
    right, up = ax.transData.transform((x, y)) / figure.dpi * 72
    return float(right), float(figure.get_size_inches()[1]) * 72 - float(up)


def _cells(ax: Axes) -> Iterator[Spot]:
    for image in ax.images:
        texts: Any = _SAID.get(image)
        for i, j in np.ndindex(np.shape(texts) if texts is not None else (0, 0)):
            if texts[i][j]:
                (x0, y0), (x1, y1) = (_placed(ax, j + s, i + s) for s in (-0.5, 0.5))
                box = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
                yield Spot(*box, str(texts[i][j]))


def _points(ax: Axes) -> Iterator[Spot]:
    for line in ax.lines:
        told = _SAID.get(line)
        labelled = not str(line.get_label()).startswith("_")
        marked = line.get_marker() not in ("None", "", " ", "|", None)
        if not (told is not None or marked or labelled) or line.get_transform() != ax.transData:
            continue
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        inside = _within(x, ax.get_xlim()) & _within(y, ax.get_ylim())
        for k in np.flatnonzero(inside):
            text = _words(ax, line, float(x[k]), float(y[k]), told[k] if told is not None else "")
            right, down = _placed(ax, float(x[k]), float(y[k]))
            yield Spot(right - _POINT / 2, down - _POINT / 2, _POINT, _POINT, text)


def _within(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (values >= min(ends)) & (values <= max(ends))


def _words(ax: Axes, line: Line2D, x: float, y: float, told: str) -> str:
    """A point by the names of its line and of the axes; `told` is its value in words."""
    figure: Any = ax.get_figure(root=True)
    names = (ax.get_xlabel() or figure.get_supxlabel(), ax.get_ylabel() or figure.get_supylabel())
    said = []
    for axis, name, value in zip((ax.xaxis, ax.yaxis), names, (x, y), strict=True):
        short = " ".join(name.split()).split(" (")[0]
        stated = f"{short} {number(value, 3) if value % 1 else f'{value:g}'}".strip()
        said.append(_tick(axis, value) or ("" if told else stated))
    label = str(line.get_label())
    said = [part for part in (*said, told) if part]
    return ("" if label.startswith("_") else f"{label}: ") + ", ".join(said)


def _tick(axis: Axis, value: float) -> str:
    """The name of the row or column in which a value lies, on an axis of names."""
    places, names = axis.get_ticklocs(), axis.get_major_formatter()
    from matplotlib.ticker import FixedFormatter

    if not isinstance(names, FixedFormatter) or not np.array_equal(places, np.arange(len(places))):
        return ""
    place = int(np.clip(round(value), 0, len(places) - 1))
    return " ".join(str(names.seq[place]).split())
