"""Drawing of languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import GREY, Size, style, width_of
from repsim.plots.colours import ColourScale
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.matrix import add_colour_bar, align_colour_bar, draw_matrix, ink_on
from repsim.plots.languages import TREE, LanguagesData, LanguagesPanel
from repsim.plots.names import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_languages(data: LanguagesData, *, ax: Axes | None = None, size: Size = "wide") -> Figure:
    """Draw prepared matrices, into an axes or a figure of their own.

    Raises:
        UsageError: `ax` was given for several panels, or the size is unknown.
    """
    width = width_of(size)
    fig.only_one_panel(ax, len(data.panels))
    with style():
        if ax is not None:
            image = _draw_panel(ax, data.panels[0], data.scale)
            height = ax.get_window_extent().height / fig.figure_of(ax).dpi
            add_colour_bar(fig.figure_of(ax), image, [ax], data.scale, data.facts, height)
            ax.set_title(data.panels[0].title, loc="left", y=1 + TREE)
            fig.settle(fig.figure_of(ax))
            if data.annotated:
                _annotate(ax, data.panels[0], data.scale)
            return fig.figure_of(ax)
        count = len(data.panels)
        columns = min(count, {"single": 1, "medium": 2, "wide": 2 if count in (2, 4) else 3}[size])
        rows = -(-count // columns)
        side = min((width - 1.0) / columns - 0.35, 3.4)
        height = rows * (side * (1 + TREE) + 0.6)
        figure = fig.new_figure(width, height, data.title, data.note)
        axes = fig.panel_axes(figure, count, columns)
        for frame, panel in zip(axes, data.panels, strict=True):
            image = _draw_panel(frame, panel, data.scale)
            fig.title_panel(frame, panel.title, side, y=1 + TREE)
        bar = add_colour_bar(figure, image, axes, data.scale, data.facts, side + 0.3)
        if count == 1:
            fig.keep_left(figure, side + 1.5)
        fig.freeze(figure)
        align_colour_bar(figure, bar, axes)
        for frame, panel in zip(axes if data.annotated else (), data.panels, strict=False):
            _annotate(frame, panel, data.scale)
    return figure


def _draw_panel(ax: Axes, panel: LanguagesPanel, scale: ColourScale) -> Any:
    image = draw_matrix(ax, panel.values, scale, origin="upper")
    count = len(panel.languages)
    from matplotlib.patches import Rectangle

    for i in range(count):
        ax.add_patch(
            Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor="white", edgecolor="none", zorder=2)
        )
    small: dict[str, Any] = {"fontsize": 7.5 if count <= 16 else 5.5 if count <= 30 else 3.5}
    ax.set_xticks(range(count), panel.languages, rotation=90 if _turned(panel) else 0, **small)
    ax.set_yticks(range(count), panel.languages, **small)
    _draw_tree(ax, panel)
    return image


def _turned(panel: LanguagesPanel) -> bool:
    """Whether codes below the matrix must stand upright to have room."""
    return len(panel.languages) * max(len(code) for code in panel.languages) > 28


def _draw_tree(ax: Axes, panel: LanguagesPanel) -> None:
    """The dendrogram, glued to the matrix: leaf i stands at 10 i + 5 in SciPy's coordinates."""
    from scipy.cluster.hierarchy import dendrogram

    tree = dendrogram(panel.linkage, no_plot=True)
    above = ax.inset_axes((0.0, 1.01, 1.0, TREE - 0.03))
    for x, height in zip(tree["icoord"], tree["dcoord"], strict=True):
        above.plot(x, height, color=GREY, linewidth=0.9, solid_joinstyle="miter")
    above.set_xlim(0, 10 * len(panel.languages))
    above.set_ylim(0, float(panel.linkage[:, 2].max()) * 1.05 or 1.0)
    above.axis("off")


def _annotate(ax: Axes, panel: LanguagesPanel, scale: ColourScale) -> None:
    """Hundredths in the lower triangle, as large as the cells allow."""
    count = len(panel.languages)
    cell = ax.get_window_extent().width / count * 72 / fig.figure_of(ax).dpi
    longest = 3 if max(abs(scale.low), abs(scale.high)) > 1 else 2
    fontsize = max(min(7.5, (cell - 2) / (0.66 * longest)), 3.0)
    ink = ink_on(panel.values, scale)
    for i in range(count):
        for j in range(i):
            if np.isfinite(panel.values[i, j]):
                text = number(100 * float(panel.values[i, j]), 0)
                ax.text(
                    j,
                    i,
                    text,
                    ha="center",
                    va="center",
                    fontsize=fontsize,
                    color=ink[i, j],
                    zorder=4,
                )
