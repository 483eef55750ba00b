"""Drawing of retention against distance of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repsim.plots.appearance import GREY, Size, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.study.axes import (
    RETENTION,
    look_of,
    marker,
    retention_axis,
    setting_key,
)
from repsim.plots.study.distance import DistanceData, DistancePanel, correlation_words
from repsim.plots.study.outcomes import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_distance(data: DistanceData, *, size: Size = "wide") -> Figure:
    """Draw prepared distances: a panel per feature, a point per pair.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    columns = len(data.panels) if size == "wide" else 1
    rows = -(-len(data.panels) // columns)
    present = {setting for panel in data.panels for setting in panel.settings}
    with style():
        key = setting_key([setting for setting in SETTINGS if setting in present])
        figure = fig.new_figure(width, 3.0 * rows, data.title, data.note, key=key)
        axes = fig.panel_axes(figure, len(data.panels), columns)
        retention = np.concatenate([panel.retention for panel in data.panels])
        for ax, panel in zip(axes, data.panels, strict=True):
            retention_axis(ax, retention, "y")
            _draw_panel(ax, panel)
        axes[0].set_ylabel(RETENTION)
        fig.freeze(figure)
    return figure


def _draw_panel(ax: Axes, panel: DistancePanel) -> None:
    known = np.array(panel.settings)
    for setting in SETTINGS:
        those = known == setting
        if those.any():
            ax.plot(panel.values[those], panel.retention[those], linestyle="", alpha=0.8, zorder=3,
                    **marker(look_of(setting), 4.2))  # fmt: skip
    if panel.correlation is not None:
        ax.text(0.97, 0.96, correlation_words(panel.correlation), transform=ax.transAxes,
                color=GREY, fontsize=7.5, ha="right", va="top")  # fmt: skip
    ax.set_xlim(min(0.0, float(panel.values.min()) * 1.05), float(panel.values.max()) * 1.06)
    ax.set_xlabel(panel.label)
