"""Drawing of retention against the share of training in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.formatting import percent
from repsim.plots.appearance import FAINT, GREY, Look, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.drawing.study.axes import RETENTION, marker, retention_axis
from repsim.plots.study.forks import ForksData, ForkSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Decades between 0 and the least fraction.
GAP = 0.45


def draw_forks(data: ForksData, *, size: Size = "wide") -> Figure:
    """Draw prepared retention of forks: by pair on the left, by recipe on the right.

    Raises:
        UsageError: The size is unknown.
    """
    width = width_of(size)
    beside = size == "wide"
    with style():
        figure = fig.new_figure(width, 3.1 if beside else 5.8, data.title, data.note)
        axes = fig.panel_axes(figure, 2, 2 if beside else 1)
        everything = [*data.pairs, *data.mono, *data.recipes]
        fractions = np.unique(np.round(np.concatenate([s.fractions for s in everything]), 4))
        ends = [s.values for s in everything] + [s.low for s in data.recipes] + [
            s.high for s in data.recipes]  # fmt: skip
        for ax in axes:
            retention_axis(ax, np.concatenate(ends), "y")
            _fraction_axis(ax, fractions)
        for one in data.mono:
            look = Look(FAINT, GREY, GREY, "v", filled=False)
            _draw_series(axes[0], one, fractions, look)
        _draw_all(axes[0], data.pairs, fractions, usual=data.usual, labels=data.mono)
        _draw_all(axes[1], data.recipes, fractions)
        axes[0].set_title("plain mean, by pair of languages")
        axes[1].set_title(f"median over {_complete(data)} pairs, by method")
        axes[0].set_ylabel(RETENTION)
        fig.freeze(figure)
        for ax in axes:
            spread_end_labels(ax)
    return figure


def place_of(fractions: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where fractions stand: at their logarithm, and 0 a little left of the least one.

    Args:
        fractions: To be placed.
        known: All fractions of the figure.

    Example:
        >>> place_of(np.array([0.0, 0.01, 0.1]), np.array([0.0, 0.01, 0.1])).tolist()
        [-2.45, -2.0, -1.0]
    """
    least = float(np.log10(known[known > 0].min()))
    positive = np.where(fractions > 0, fractions, 1.0)
    return np.where(fractions > 0, np.log10(positive), least - GAP)


def _fraction_axis(ax: Axes, fractions: np.ndarray) -> None:
    places = place_of(fractions, fractions)
    shown: list[str] = []
    kept: list[float] = []
    for place, fraction in zip(places, fractions, strict=True):
        if not kept or place - kept[-1] > 0.12:
            kept.append(float(place))
            shown.append(percent(float(fraction)).replace(" %", ""))
    ax.set_xticks(kept, shown)
    ax.tick_params(axis="x", labelsize=6.5)
    ax.set_xlim(places[0] - 0.12, 0.06)
    ax.set_xlabel("share of training in common, % (log)")


def _complete(data: ForksData) -> int:
    """How many pairs were merged at every fraction that three pairs were merged at."""
    core = set(data.core.tolist())
    return sum(core <= set(one.fractions.tolist()) for one in data.pairs)


def _draw_all(
    ax: Axes,
    series: Sequence[ForkSeries],
    fractions: np.ndarray,
    *,
    usual: np.ndarray | None = None,
    labels: Sequence[ForkSeries] = (),
) -> None:
    found = looks(["other"] * len(series))
    ends = []
    for one, look in zip(series, found, strict=True):
        _draw_series(ax, one, fractions, look, usual)
        ends.append(EndLabel(float(one.values[-1]), one.label, look.text))
    ends += [EndLabel(float(one.values[-1]), one.label, GREY, bold=False) for one in labels]
    write_end_labels(ax, ends, size=7.0)


def _draw_series(
    ax: Axes, one: ForkSeries, fractions: np.ndarray, look: Look, usual: np.ndarray | None = None
) -> None:
    """Markers joined by lines; dotted where other pairs were merged in between."""
    places = place_of(one.fractions, fractions)
    if np.isfinite(one.low).any():
        ax.fill_between(
            places, one.low, one.high, color=look.fill, alpha=0.12, linewidth=0, zorder=1.5
        )
    ax.plot(places, one.values, linestyle="", zorder=2.6, **marker(look, 3.8))
    for i in range(len(places) - 1):
        left, right = one.fractions[i], one.fractions[i + 1]
        skipped = usual is not None and bool(np.any((usual > left) & (usual < right)))
        ax.plot(
            places[i : i + 2], one.values[i : i + 2], color=look.line, zorder=2.5,
            linestyle=(0, (1, 2)) if skipped else "-", linewidth=0.8 if skipped else 1.2,
        )  # fmt: skip
