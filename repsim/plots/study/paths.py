"""Loss along the straight path between parents, by their origin: how high the barrier is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repsim.core.atlas import Atlas, split_parents
from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots.appearance import FAINT, LABEL, Look, Size, looks, style, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Figure
from repsim.plots.study.outcomes import SETTINGS, Outcome, outcomes_of, value_words
from repsim.stats.bootstrap import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: Alignment -> (label, role that decides its colour), in the order of drawing.
PATHS: dict[str, tuple[str, str]] = {
    "none": ("as they are", "null"),
    "permutation": ("permuted", "merged"),
    "orthogonal": ("rotated", "monolingual"),
}
#: Up to this height the axis is straight, above it logarithmic: barriers span three decades.
STRAIGHT = 0.1


class PathGroup(NamedTuple):
    """Paths of one setting under one alignment: `[curves, points]` bits per byte over the chord."""

    alignment: str
    t: np.ndarray
    above: np.ndarray
    barrier: Estimate
    pairs: int

    @property
    def label(self) -> str:
        """For people."""
        return PATHS[self.alignment][0]


class PathPanel(NamedTuple):
    """One setting, a group per alignment."""

    setting: str
    groups: tuple[PathGroup, ...]

    def words(self) -> str:
        """The barriers of a setting in words."""
        return ", ".join(f"{value_words(group.barrier)} {group.label}" for group in self.groups)


@dataclasses.dataclass(frozen=True)
class PathsInfo:
    """A panel per setting."""

    panels: tuple[PathPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and every median barrier."""
        words = "; ".join(f"{SETTINGS[panel.setting]} {panel.words()}" for panel in self.panels)
        return (
            "Held-out bits per byte above the straight line between the losses of two parents, "
            "along the straight path between their weights, as they are and after the second was "
            "brought to the first. Thin: one pair and language; thick: median. Median barrier "
            f"(highest point, with its 95 % interval over models): {words}."
        )


def paths_info(atlas: Atlas) -> PathsInfo:
    """Paths of an atlas, by setting and alignment; controls have their own figure.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No path was followed.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [panel.setting for panel in paths_info(planted_atlas()).panels][:2]
        ['independent', 'one-language']
    """
    origin = {o.parents: o for o in outcomes_of(atlas) if not o.control}
    found: dict[tuple[str, str], list[tuple[Outcome, np.ndarray, np.ndarray]]] = {}
    for outcome, alignment, t, above in _curves(atlas, origin):
        found.setdefault((outcome.setting, alignment), []).append((outcome, t, above))
    if not found:
        raise UsageError("the atlas follows no path", hint="give the study file a section 'paths'")
    panels = []
    for setting in SETTINGS:
        groups = [_group(name, found[setting, name]) for name in PATHS if (setting, name) in found]
        if groups:
            panels.append(PathPanel(setting, tuple(groups)))
    parents = {outcome.parents for those in found.values() for outcome, _, _ in those}
    points = len(panels[0].groups[0].t)
    return PathsInfo(
        panels=tuple(panels),
        title="Loss along the path between two parents",
        note=(f"{len(parents)} pairs", f"{points} points", "held-out text"),
    )


def _curves(
    atlas: Atlas, origin: dict[tuple[str, ...], Outcome]
) -> list[tuple[Outcome, str, np.ndarray, np.ndarray]]:
    """Pair, alignment, t and height of every path and language of pairs that are not controls."""
    rows: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in atlas.paths.rows():
        key = (row["parents"], row["alignment"], row["language"])
        rows.setdefault(key, []).append((row["t"], row["above_chord"]))
    curves = []
    for (parents, alignment, _), points in rows.items():
        outcome = origin.get(split_parents(parents))
        if outcome is not None:
            t, above = np.array(sorted(points)).T
            curves.append((outcome, alignment, t, above))
    return curves


def _group(alignment: str, curves: Sequence[tuple[Outcome, np.ndarray, np.ndarray]]) -> PathGroup:
    above = np.stack([height for _, _, height in curves])
    parents = [outcome.parents for outcome, _, _ in curves]
    barrier = estimate(above.max(axis=1).tolist(), parents)
    return PathGroup(alignment, curves[0][1], above, barrier, len(set(parents)))


@style()
def draw_paths(info: PathsInfo, *, ax: Axes | None = None, size: Size = "wide") -> Drawing:
    """A panel per setting."""
    count = len(info.panels)
    columns = min(count, 4 if size == "wide" else 2)
    found = dict(zip(PATHS, looks([role for _, role in PATHS.values()]), strict=True))
    present = {group.alignment for panel in info.panels for group in panel.groups}
    key = fig.key_of({PATHS[name][0]: {"color": found[name].line, "linewidth": 1.8}
                      for name in PATHS if name in present})  # fmt: skip
    height = 1.9 * -(-count // columns)
    shared = {"sharey": True, "sharex": True}
    axes = fig.frames(info, ax, count, columns, size, height + 0.2, key=key, **shared)
    room = (width_of(size) - 0.6) / columns - 0.2
    _height_axis(axes[0], info)
    for place, (frame, panel) in enumerate(zip(axes, info.panels, strict=True)):
        _draw_panel(frame, panel, found)
        fig.title_panel(frame, SETTINGS[panel.setting], room)
        frame.tick_params(labelbottom=place + columns >= count)
    x, y = "share of the second parent", "bits per byte over the chord"
    if ax is None:
        fig.name_outer_axes(fig.figure_of(axes[0]), x, y, height)
    return fig.finish(axes, ax)


def _height_axis(ax: Axes, info: PathsInfo) -> None:
    heights = np.concatenate([group.above.ravel() for panel in info.panels
                              for group in panel.groups])  # fmt: skip
    ax.set_yscale("symlog", linthresh=STRAIGHT, linscale=0.5)
    ticks = [-1.0, -0.1, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
    low, high = min(-0.02, float(heights.min()) * 1.2), float(heights.max())
    ax.set_ylim(low, high * 6)  # room for the numbers
    shown = [tick for tick in ticks if low <= tick <= high * 1.5]
    ax.set_yticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    ax.set_yticks([], minor=True)


def _draw_panel(ax: Axes, panel: PathPanel, found: dict[str, Look]) -> None:
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    for place, group in enumerate(panel.groups):
        look = found[group.alignment]
        ax.plot(group.t, group.above.T, color=look.line, linewidth=0.4, alpha=0.3, zorder=2)
        ax.plot(group.t, np.median(group.above, axis=0), color=look.line, linewidth=1.8, zorder=3)
        ax.text(0.97, 0.965 - 0.105 * place, number(group.barrier.value),
                transform=ax.transAxes, ha="right", va="top", fontsize=7.5,
                color=look.text)  # fmt: skip
    ax.text(0.03, 0.965, "barrier", transform=ax.transAxes, ha="left", va="top", fontsize=7.5,
            color=LABEL)  # fmt: skip
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])


PATH_FIGURE = Figure("atlas_paths", "atlas", paths_info, draw_paths, vector=False)
