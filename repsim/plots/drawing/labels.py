"""Places on an axis of logarithms, and labels that stay apart: at ends of lines, around points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repsim.plots.drawing.figure import figure_of, renderer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Decades between 0 and the least value.
_GAP = 0.45


def place_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where values stand: at their logarithm, and 0 a little left of the least known one."""
    least = float(np.log10(known[known > 0].min()))
    positive = np.where(values > 0, values, 1.0)
    return np.where(values > 0, np.log10(positive), least - _GAP)


class EndLabel(NamedTuple):
    """A label that wants to stand at height `y` (data units) to the right of an axes."""

    y: float
    text: str
    colour: str
    bold: bool = True


def spread(
    centres: Sequence[float], heights: Sequence[float], low: float, high: float
) -> np.ndarray:
    """Move intervals apart, in their order: isotonic regression of the wishes."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(np.asarray(centres, dtype=float), kind="stable")
    tall = np.asarray(heights, dtype=float)[order]
    below = np.cumsum(tall) - tall / 2
    least, most = low, high - float(tall.sum())
    if least > most:
        least = most = (least + most) / 2
    wanted = np.asarray(centres, dtype=float)[order] - below
    placed = np.empty(len(order))
    placed[order] = np.clip(isotonic_regression(wanted).x, least, most) + below
    return placed


def write_end_labels(ax: Axes, labels: Sequence[EndLabel], size: float = 8.0) -> None:
    """Write labels right of an axes, so that the layout reserves their width; then spread them."""
    for label in labels:
        text = ax.annotate(
            label.text, xy=(1.0, label.y), xycoords=("axes fraction", "data"), xytext=(5, 0),
            textcoords="offset points", color=label.colour, fontsize=size, va="center", ha="left",
            fontweight="bold" if label.bold else "normal", linespacing=1.05, annotation_clip=False,
        )  # fmt: skip
        text.set_gid("end-label")


def spread_end_labels(ax: Axes) -> None:
    """Set the heights of end labels, after the layout has run."""
    figure = figure_of(ax)
    texts = [text for text in ax.texts if text.get_gid() == "end-label"]
    if not texts:
        return
    renderer = renderer_of(figure)
    points = 72 / figure.dpi
    frame = ax.get_window_extent(renderer)
    wanted = [ax.transData.transform((0, text.xy[1]))[1] * points for text in texts]  # type: ignore[attr-defined]
    heights = [text.get_window_extent(renderer).height * points + 1.5 for text in texts]
    placed = spread(wanted, heights, frame.y0 * points - 4, frame.y1 * points + 4)
    for text, want, got in zip(texts, wanted, placed, strict=True):
        text.xyann = (5, got - want)  # type: ignore[attr-defined]


#: Directions in which a point's label is tried, best first: right, left, above, below, diagonals.
_DIRECTIONS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)])
#: How far from its point a label is tried, in clearances.
_REACHES = (1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0)


def place_beside(
    points: np.ndarray,
    sizes: np.ndarray,
    bounds: tuple[float, float, float, float],
    clearance: float,
) -> np.ndarray:
    """Centres `[k, 2]` of labels: the nearest free place beside each point, or NaN."""
    low, high = points - clearance, points + clearance
    centres = np.full((len(points), 2), np.nan)
    # Along a diagonal, the reach is shared between both directions.
    shares = np.where(np.abs(_DIRECTIONS).sum(axis=1) == 2, np.sqrt(0.5), 1.0)
    steps = np.concatenate([clearance * reach * shares for reach in _REACHES])
    directions = np.tile(_DIRECTIONS, (len(_REACHES), 1))
    for i, size in enumerate(sizes):
        tried = points[i] + directions * (steps[:, None] + size / 2)
        least, most = tried - size / 2, tried + size / 2
        inside = (least >= bounds[:2]).all(axis=1) & (most <= bounds[2:]).all(axis=1)
        covers = (least[:, None] < high).all(axis=2) & (low < most[:, None]).all(axis=2)
        free = np.flatnonzero(inside & ~covers.any(axis=1))
        if free.size:
            centres[i] = tried[free[0]]
            low, high = np.vstack([low, least[free[0]]]), np.vstack([high, most[free[0]]])
    return centres
