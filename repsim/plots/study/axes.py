"""What the figures of a study share: looks of settings, axes of retention, shaded collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number
from repsim.plots.appearance import FAINT, GREY, INK, LABEL, Look, darkened, line_marker
from repsim.plots.colours import ColourScale
from repsim.plots.drawing.figure import figure_of, key_of
from repsim.plots.study.outcomes import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.lines import Line2D

SHADE = "#F7EBE4"
SURVIVES, COLLAPSES = "#1F5FA8", "#C8601A"
RETENTION = "retention, worst language"
#: Red collapses, blue survives, white is the threshold.
RETENTION_SCALE = ColourScale("RdBu", COLLAPSE - 0.75, COLLAPSE + 0.75, "min", "")

#: Setting -> colour, marker, filled.
_LOOKS: dict[str, tuple[str, str, bool]] = {
    "independent": ("#D55E00", "o", True),
    "one-language": ("#D55E00", "o", False),
    "same-init": ("#CC79A7", "s", True),
    "early-forks": ("#56B4E9", "^", True),
    "late-forks": ("#0072B2", "^", True),
    "with-trunk": ("#0072B2", "v", False),
    "mono-trunk": ("#56B4E9", "v", False),
    "data-order": ("#CC79A7", "s", False),
    "tokenizers": ("#5F6672", "P", True),
    "bytes": ("#5F6672", "P", False),
    "doses": ("#009E73", "D", True),
    "derived": ("#E69F00", "X", True),
    "control": (INK, "*", True),
}


def look_of(setting: str) -> Look:
    """Colour and marker of a setting, the same in every figure."""
    colour, marker, filled = _LOOKS[setting]
    return Look(colour, darkened(colour, 3.0), darkened(colour, 4.5), marker, filled)


def marker(look: Look, size: float = 4.5) -> dict[str, Any]:
    """Options of a line of markers."""
    scale = 1.5 if look.marker == "*" else 1.0
    return line_marker(look, size * scale) | {"markeredgewidth": 0.8}


def setting_key(settings: Sequence[str]) -> list[Line2D]:
    """Named markers of settings."""
    looks = {SETTINGS[setting]: marker(look_of(setting)) for setting in settings}
    return key_of({label: {"linestyle": "", **look} for label, look in looks.items()})


def retention_axis(
    ax: Axes, values: Sequence[float] | np.ndarray, which: Literal["x", "y"], *, shade: bool = True
) -> None:
    """Set up an axis of retention: logarithmic below -1, the region of collapse shaded."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low = min(-0.1, float(known.min()) * (1.15 if known.min() < 0 else 1.0))
    high = max(1.1, float(known.max()) + 0.05)
    ticks = [-1.0, -0.5, 0.0, 0.5, 1.0]
    if low < -1.5:
        scale = {"linthresh": 1.0, "linscale": 0.9}
        (ax.set_xscale if which == "x" else ax.set_yscale)("symlog", **scale)
        ticks = [-100.0, -30.0, -10.0, -3.0, -1.0, 0.0, 0.5, 1.0]
        if low > -4:
            ticks.insert(4, -2.0)
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xlim if which == "x" else ax.set_ylim)(low, high)
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    axis.set_ticks([], minor=True)
    span = ax.axvspan if which == "x" else ax.axhspan
    line = ax.axvline if which == "x" else ax.axhline
    if shade:
        span(low, COLLAPSE, color=SHADE, linewidth=0, zorder=0)
    line(COLLAPSE, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    for at in (0.0, 1.0):
        line(at, color=FAINT, linewidth=0.8, zorder=1)


def retention_bar(image: Any, axes: Sequence[Axes]) -> Colorbar:
    """The bar that explains the colours of retention."""
    ticks = [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
    options: dict[str, Any] = {"extend": "min", "pad": 0.015, "aspect": 24, "ticks": ticks}
    bar = figure_of(axes[0]).colorbar(image, ax=list(axes), **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.ax.set_yticks(ticks, [number(tick) for tick in ticks])
    bar.set_label("retention", color=LABEL)
    return bar
