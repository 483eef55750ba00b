"""Labels that stay apart: at the ends of lines, and around points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.drawing.figure import figure_of, renderer_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class EndLabel:
    """A label that wants to stand at height `y` (data units) to the right of an axes."""

    y: float
    text: str
    colour: str
    bold: bool = True


def spread(
    centres: Sequence[float], heights: Sequence[float], low: float, high: float
) -> np.ndarray:
    """Move intervals apart as little as possible, keeping their order.

    Overlapping neighbours are pooled into a block that is centred on the mean of its wishes; blocks
    stay within `[low, high]` while they fit. This is the least-squares solution (pool adjacent
    violators).

    Args:
        centres: Wished centres, any order.
        heights: Height of each interval.
        low: Lower bound.
        high: Upper bound.

    Returns:
        New centres, in the order given.

    Example:
        >>> spread([1.0, 1.0, 5.0], [1.0, 1.0, 1.0], 0.0, 10.0).tolist()
        [0.5, 1.5, 5.0]
    """
    order = np.argsort(np.asarray(centres, dtype=float), kind="stable")
    blocks: list[tuple[float, float, list[int]]] = []  # middle, height, members
    for i in order.tolist():
        block = (float(centres[i]), float(heights[i]), [i])
        block = _within(block, low, high)
        while blocks and blocks[-1][0] + blocks[-1][1] / 2 > block[0] - block[1] / 2 + 1e-12:
            block = _within(_pooled(blocks.pop(), block, centres, heights), low, high)
        blocks.append(block)
    placed = np.empty(len(order))
    for middle, height, members in blocks:
        at = middle - height / 2
        for i in members:
            placed[i] = at + heights[i] / 2
            at += heights[i]
    return placed


def _within(
    block: tuple[float, float, list[int]], low: float, high: float
) -> tuple[float, float, list[int]]:
    middle, height, members = block
    if height >= high - low:
        return (low + high) / 2, height, members
    return min(max(middle, low + height / 2), high - height / 2), height, members


def _pooled(
    first: tuple[float, float, list[int]],
    second: tuple[float, float, list[int]],
    centres: Sequence[float],
    heights: Sequence[float],
) -> tuple[float, float, list[int]]:
    members = first[2] + second[2]
    total = first[1] + second[1]
    below = 0.0
    starts = []
    for i in members:
        starts.append(centres[i] - heights[i] / 2 - below)
        below += heights[i]
    return float(np.mean(starts)) + total / 2, total, members


def write_end_labels(ax: Axes, labels: Sequence[EndLabel], size: float = 8.0) -> None:
    """Write labels to the right of an axes, spread so that none overlaps; the layout must have run.

    Call it once to reserve their width, and the layout will make room; call `spread_end_labels`
    after the last layout to set their heights.
    """
    for label in labels:
        text = ax.annotate(
            label.text,
            xy=(1.0, label.y),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            color=label.colour,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            va="center",
            ha="left",
            linespacing=1.05,
            annotation_clip=False,
        )
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
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def place_beside(
    points: np.ndarray,
    sizes: np.ndarray,
    bounds: tuple[float, float, float, float],
    clearance: float,
) -> np.ndarray:
    """Centres of labels around their points: nearest free place, none covering a label or a point.

    Args:
        points: `[k, 2]` in any unit of length.
        sizes: `[k, 2]` width and height of each label, in the same unit.
        bounds: x0, y0, x1, y1 that labels must stay within.
        clearance: Radius around each point that must stay free.

    Returns:
        `[k, 2]` centres; NaN for a label that has no place.

    Example:
        >>> place_beside(np.zeros((1, 2)), np.array([[2.0, 1.0]]), (-9, -9, 9, 9), 1.0).tolist()
        [[2.0, 0.0]]
    """
    taken = [
        (x - clearance, y - clearance, x + clearance, y + clearance) for x, y in points.tolist()
    ]
    centres = np.full((len(points), 2), np.nan)
    for i, ((x, y), (wide, tall)) in enumerate(zip(points.tolist(), sizes.tolist(), strict=True)):
        for reach in clearance * np.array([1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0]):
            box = _free_box(x, y, wide, tall, float(reach), bounds, taken)
            if box is not None:
                taken.append(box)
                centres[i] = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                break
    return centres


def _free_box(
    x: float,
    y: float,
    wide: float,
    tall: float,
    reach: float,
    bounds: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    for right, up in _DIRECTIONS:
        short = math.sqrt(0.5) if right and up else 1.0
        middle_x = x + right * (reach * short + wide / 2)
        middle_y = y + up * (reach * short + tall / 2)
        box = (middle_x - wide / 2, middle_y - tall / 2, middle_x + wide / 2, middle_y + tall / 2)
        inside = (
            box[0] >= bounds[0]
            and box[1] >= bounds[1]
            and box[2] <= bounds[2]
            and box[3] <= bounds[3]
        )
        if inside and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _inside(
    box: tuple[float, float, float, float], bounds: tuple[float, float, float, float]
) -> bool:
    low = box[0] >= bounds[0] and box[1] >= bounds[1]
    return low and box[2] <= bounds[2] and box[3] <= bounds[3]


def _overlap(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
