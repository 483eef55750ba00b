"""Matrices as coloured cells, and the bar that explains the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.errors import unknown_name
from repsim.plots.appearance import LABEL, ON_CELLS, luminance
from repsim.plots.colours import ColourScale
from repsim.plots.drawing.figure import figure_of, fitted, inches_of, is_given, text_size
from repsim.plots.drawing.hover import say
from repsim.plots.names import number
from repsim.plots.selection import MeasureFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.image import AxesImage


def draw_matrix(
    ax: Axes,
    values: np.ndarray,
    scale: ColourScale,
    said: Sequence[Sequence[str]],
    *,
    origin: Literal["lower", "upper"] = "upper",
) -> AxesImage:
    """Draw a matrix with square cells on hatched grey, which shows missing ones."""
    from matplotlib.patches import Rectangle

    rows, columns = values.shape
    ax.add_patch(
        Rectangle(
            (-0.5, -0.5), columns, rows, facecolor="#EDEFF1", edgecolor="#B3B9C2", hatch="////",
            linewidth=0, zorder=0,
        )
    )  # fmt: skip
    image = ax.imshow(
        np.ma.masked_invalid(values),
        cmap=scale.cmap,
        vmin=scale.low,
        vmax=scale.high,
        origin=origin,
        aspect="equal",
        zorder=1,
    )
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    say(image, said)
    return image


def in_words(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """What each cell says on hover: its row, its column and its value; nothing without a value."""
    return [
        [f"{a} × {b}: {number(float(value), 3)}" if np.isfinite(value) else ""
         for b, value in zip(columns, row, strict=True)]
        for a, row in zip(rows, values, strict=True)
    ]  # fmt: skip


def coloured(scale: ColourScale, cmap: str | None) -> ColourScale:
    """The scale in the caller's colours, if any."""
    import matplotlib as mpl

    if cmap is not None and cmap not in mpl.colormaps:
        raise unknown_name("colour map", cmap, list(mpl.colormaps))
    return scale if cmap is None else scale._replace(cmap=cmap)


def ink_on(values: np.ndarray, scale: ColourScale) -> np.ndarray:
    """Text colour for each value: white on dark cells, near black on bright ones."""
    import matplotlib as mpl

    place = np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)
    colours = mpl.colormaps[scale.cmap](np.nan_to_num(place))
    flat = [
        "#" + "".join(f"{round(255 * c):02X}" for c in rgba[:3]) for rgba in colours.reshape(-1, 4)
    ]
    ink = [ON_CELLS[luminance(colour) > 0.28] for colour in flat]
    return np.array(ink, dtype=object).reshape(values.shape)


def blank_diagonal(ax: Axes, count: int) -> None:
    """White where a row meets itself."""
    from matplotlib.patches import Rectangle

    for i in range(count):
        cell = Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="none", zorder=2)
        ax.add_patch(cell)


def size_in_cells(ax: Axes, count: int, characters: float) -> float:
    """Font size of a text of that width in ems, so that it fits a cell: 3 to 7.5 points."""
    cell = inches_of(ax)[0] / count * 72
    return max(min(7.5, (cell - 2) / characters), 3.0)


def add_colour_bar(
    image: Any, axes: Sequence[Axes], scale: ColourScale, facts: MeasureFacts, height: float
) -> Colorbar:
    """One slim bar for all panels of that `height` (inches), with an arrow where it is cut."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = figure_of(axes[0])
    ticks = np.linspace(scale.low, scale.high, 5)
    words = [number(tick) for tick in ticks.tolist()]
    inside = len(axes) == 1 and is_given(axes)
    height = inches_of(axes[0])[1] if inside else height
    name = fitted(figure, facts.axis_label, height - 0.2)
    place: dict[str, Any] = {"ax": list(axes)}
    if inside and not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        room = height / 24 + max(text_size(figure, word, 9.0)[0] for word in words)
        room += text_size(figure, name, 9.0)[1] + 0.2
        place = {"ax": axes[0], "fraction": min(room / inches_of(axes[0])[0], 0.5)}
    bar = figure.colorbar(
        image, extend=scale.extend, extendfrac=0.06, pad=0.02, ticks=ticks.tolist(), aspect=24,
        **place,
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.ax.set_yticks(ticks, words)
    bar.set_label(name, color=LABEL)
    return bar


def align_colour_bar(bar: Colorbar, axes: Sequence[Axes]) -> None:
    """Give the bar the height of the panels beside it, at most 2.6 inches, in a frozen layout."""
    if is_given(axes):
        return
    figure = figure_of(axes[0])
    boxes = [ax.get_position() for ax in axes]
    low, high = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    height = min(high - low, 2.6 / float(figure.get_size_inches()[1]))
    middle = (low + high) / 2
    box = bar.ax.get_position()
    bar.ax.set_box_aspect(None)
    thick = min(box.width, 0.12 / float(figure.get_size_inches()[0]))
    bar.ax.set_position((box.x0, middle - height / 2, thick, height))
