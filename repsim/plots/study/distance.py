"""How far parents moved apart against what their merge kept, where they share initial weights."""

from __future__ import annotations

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.plots.appearance import GREY, Size
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import KINDS, RETENTION, marker, retention_axis
from repsim.plots.study.features import WEIGHTS, measured_pairs
from repsim.plots.study.outcomes import value_words
from repsim.stats.bootstrap import spearman_estimate

#: With fewer pairs than this no correlation is stated.
LEAST_PAIRS = 8


def _caption(info: Numbers) -> str:
    words = [f"{WEIGHTS[panel.feature]}: {panel.words} over {len(panel.values)} pairs"
             for panel in info.panels if panel.correlation is not None]  # fmt: skip
    return (
        "Retention of the worst language of the plain mean of two models that share initial "
        "weights, against how far their weights lie apart. Rank correlation with its 95 % "
        f"interval over models: {'; '.join(words) or 'too few pairs'}."
    )


def distance_info(
    atlas: Atlas, *, features: tuple[str, ...] = ("weight_distance", "update_size")
) -> Numbers:
    """Distance of weights against retention, inside shared initial weights."""
    everything, panels = measured_pairs(atlas), []
    for feature in features:
        pairs = [pair for pair in everything
                 if pair.outcome.shared_init and feature in pair.values]  # fmt: skip
        if pairs:
            values = np.array([pair.values[feature] for pair in pairs])
            retention = np.array([pair.outcome.worst for pair in pairs])
            parents = [pair.outcome.parents for pair in pairs]
            enough = len(pairs) >= LEAST_PAIRS
            correlation = spearman_estimate(values, retention, parents) if enough else None
            settings = tuple(pair.outcome.setting for pair in pairs)
            words = "too few pairs" if correlation is None else f"ρ = {value_words(correlation)}"
            panels.append(Numbers(
                feature=feature, settings=settings, values=values, retention=retention,
                correlation=correlation, words=words,
            ))  # fmt: skip
    if not panels:
        raise UsageError("no pair of shared initial weights has features of its weights")
    return Numbers(
        _caption,
        panels=tuple(panels),
        title="How far models moved apart, and what their mean keeps",
        note=("pairs that share initial weights",),
    )


def draw_distance(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A panel per feature, a point per pair."""
    count = len(info.panels)
    columns = count if size == "wide" else 1
    present = {setting for panel in info.panels for setting in panel.settings}
    key = fig.key_of({
        name: {"linestyle": "", **marker(look)}
        for name, (settings, look) in KINDS.items() if present & set(settings)
    })  # fmt: skip
    axes = fig.frames(info, ax, count, columns, size, 3.0 * -(-count // columns), key=key)
    retention = np.concatenate([panel.retention for panel in info.panels])
    for frame, panel in zip(axes, info.panels, strict=True):
        retention_axis(frame, retention, "y")
        _draw_panel(frame, panel)
    axes[0].set_ylabel(RETENTION)
    return fig.finish(axes)


def _draw_panel(ax: Axes, panel: Numbers) -> None:
    known = np.array(panel.settings)
    for settings, look in KINDS.values():
        those = np.isin(known, settings)
        if those.any():
            ax.plot(panel.values[those], panel.retention[those], linestyle="", alpha=0.8, zorder=3,
                    **marker(look, 4.2))  # fmt: skip
    if panel.correlation is not None:
        ax.text(0.97, 0.96, panel.words, transform=ax.transAxes, color=GREY, fontsize=7.5,
                ha="right", va="top")  # fmt: skip
    ax.set_xlim(min(0.0, float(panel.values.min()) * 1.05), float(panel.values.max()) * 1.06)
    ax.set_xlabel(WEIGHTS[panel.feature])


DISTANCE = Figure("atlas_distance", "atlas", distance_info, draw_distance)
