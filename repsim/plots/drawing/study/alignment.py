"""Drawing of what alignment rescues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsim.plots.appearance import FAINT, GREY, Size, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.study.axes import look_of, marker, retention_axis, setting_key
from repsim.plots.study.alignment import AlignmentData, AlignmentPanel
from repsim.plots.study.outcomes import ALIGNMENTS, SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_alignment(data: AlignmentData, *, size: Size = "wide") -> Figure:
    """Draw prepared rescues: a panel per alignment, a point per group of parents.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    columns = len(data.panels) if size == "wide" else 1
    rows = -(-len(data.panels) // columns)
    present = {group.setting for panel in data.panels for group in panel.groups}
    with style():
        key = setting_key([setting for setting in SETTINGS if setting in present])
        figure = fig.new_figure(width, 3.3 * rows, data.title, data.note, key=key)
        axes = fig.panel_axes(figure, len(data.panels), columns)
        values = [v for panel in data.panels for g in panel.groups for v in (g.naive, g.aligned)]
        for ax, panel in zip(axes, data.panels, strict=True):
            _draw_panel(ax, panel, values)
        axes[0].set_ylabel("retention after alignment")
        fig.freeze(figure)
    return figure


def _draw_panel(ax: Axes, panel: AlignmentPanel, values: list[float]) -> None:
    retention_axis(ax, values, "x", shade=False)
    retention_axis(ax, values, "y")
    ends = ax.get_xlim()
    ax.plot(ends, ends, color=FAINT, linewidth=0.9, zorder=1, scalex=False, scaley=False)
    for setting in SETTINGS:
        those = [group for group in panel.groups if group.setting == setting]
        options = marker(look_of(setting), 4.4 if setting != "control" else 6.0)
        ax.plot([group.naive for group in those], [group.aligned for group in those],
                linestyle="", alpha=0.8, zorder=4 if setting == "control" else 3,
                **options)  # fmt: skip
    ax.text(0.03, 0.87, "rescued", transform=ax.transAxes, color=GREY, fontsize=8, va="top")
    ax.set_title(f"{panel.alignment}: parents {ALIGNMENTS[panel.alignment]}")
    ax.set_xlabel("retention, worst language, as they are")
