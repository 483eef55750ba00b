"""What the figures of a study share: looks, axes of retention, shaded collapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number
from repsim.plots.appearance import FAINT, GREY, LABEL, Look, darkened, line_marker
from repsim.plots.colours import ColourScale
from repsim.plots.drawing.figure import figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

SHADE = "#F7EBE4"
SURVIVES, COLLAPSES = "#1F5FA8", "#C8601A"
RETENTION = "retention, worst language"
#: Dark collapses, bright survives, in grey too; the colours jump at the threshold.
RETENTION_SCALE = ColourScale("cividis", 0.0, 1.0, "min", "")
#: Retention at the dark and at the bright end of the colours.
_DARKEST, _BRIGHTEST = -5.0, 1.25
#: Settings of one kind share a look where a figure is not about settings: name, settings, look.
KINDS: dict[str, tuple[tuple[str, ...], Look]] = {
    "forks": (
        ("same-init", "early-forks", "late-forks", "with-trunk", "mono-trunk", "data-order"),
        Look("#0072B2", "#0072B2", "#0072B2", "^", True),
    ),
    "fine-tuned from one mixed model": (
        ("doses",), Look("#E69F00", darkened("#E69F00", 3.0), "#7A5400", "D", True),
    ),
    "other": (
        ("tokenizers", "bytes", "derived", "independent", "one-language", "control"),
        Look(GREY, GREY, GREY, "o", False),
    ),
}  # fmt: skip


def marker(look: Look, size: float = 4.5) -> dict[str, Any]:
    """Options of a line of markers."""
    scale = 1.5 if look.marker == "*" else 1.0
    return line_marker(look, size * scale) | {"markeredgewidth": 0.8}


def straightened(values: Any) -> np.ndarray:
    """Retention as axes and colours show it: as it is down to -1, logarithmic below."""
    known = np.asarray(values, dtype=np.float64)
    return np.where(known < -1, -1 - np.log(np.maximum(-known, 1)), known)


def _bent(places: Any) -> np.ndarray:
    """The inverse of `straightened`."""
    known = np.asarray(places, dtype=np.float64)
    return np.where(known < -1, -np.exp(np.minimum(-1 - known, 700)), known)


def retention_place(values: Any) -> np.ndarray:
    """Where retention lies on the colours, 0 to 1; they jump at the threshold of collapse."""
    known, least = np.asarray(values, dtype=np.float64), float(straightened(_DARKEST))
    below = 0.43 * (straightened(known) - least) / (COLLAPSE - least)
    above = 0.57 + 0.43 * (known - COLLAPSE) / (_BRIGHTEST - COLLAPSE)
    return np.where(known < COLLAPSE, below, above)


def retention_axis(
    ax: Axes, values: Sequence[float] | np.ndarray, which: Literal["x", "y"], *, shade: bool = True
) -> None:
    """Set up an axis of retention: logarithmic below -1 (it says so), collapse shaded."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    low = min(-0.1, float(known.min()) * (1.15 if known.min() < 0 else 1.0))
    high = max(1.1, float(known.max()) + 0.05)
    ticks = [-1.0, -0.5, 0.0, 0.5, 1.0]
    if low < -1.5:
        set_scale = ax.set_xscale if which == "x" else ax.set_yscale
        set_scale("function", functions=(straightened, _bent))
        words: dict[str, Any] = {"fontsize": 6, "color": GREY, "zorder": 1}
        if which == "x":
            ax.text(-1.06, 0.01, "log below −1", ha="right", va="bottom",
                    transform=ax.get_xaxis_transform(), **words)  # fmt: skip
        else:
            ax.text(1.01, -1.0, "log below −1", ha="left", va="top", rotation=90,
                    transform=ax.get_yaxis_transform(), **words)  # fmt: skip
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
    values = [-5.0, -2.0, -1.0, 0.0, 0.5, 1.0]
    ticks = retention_place(values).tolist()
    options: dict[str, Any] = {"extend": "min", "pad": 0.015, "aspect": 24, "ticks": ticks}
    bar = figure_of(axes[0]).colorbar(image, ax=list(axes), **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.ax.set_yticks(ticks, [number(value, 1) for value in values])
    bar.set_label("retention (log below −1)", color=LABEL)
    return bar
