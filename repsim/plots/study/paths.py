"""Loss along the straight path between parents, by their origin: how high the barrier is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import Atlas, split_parents
from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.study.outcomes import SETTINGS, Outcome, outcomes_of
from repsim.stats.bootstrap import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Alignment -> (label, role that decides its colour), in the order of drawing.
PATHS: dict[str, tuple[str, str]] = {
    "none": ("as they are", "null"),
    "permutation": ("permuted", "merged"),
    "orthogonal": ("rotated", "monolingual"),
}


@dataclasses.dataclass(frozen=True)
class PathGroup:
    """Paths of one setting under one alignment.

    Attributes:
        alignment: Key of `PATHS`.
        t: `[points]` share of the second parent.
        above: `[curves, points]` bits per byte above the chord; one curve per pair and language.
        barrier: Median over curves of the highest point, with its interval over models.
        pairs: How many pairs of parents.
    """

    alignment: str
    t: np.ndarray
    above: np.ndarray
    barrier: Estimate
    pairs: int

    @property
    def label(self) -> str:
        """For people."""
        return PATHS[self.alignment][0]


@dataclasses.dataclass(frozen=True)
class PathPanel:
    """One setting.

    Attributes:
        setting: Key of `SETTINGS`.
        groups: One per alignment.
    """

    setting: str
    groups: tuple[PathGroup, ...]


@dataclasses.dataclass(frozen=True)
class PathsData:
    """Everything that the figure shows.

    Attributes:
        panels: One per setting.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[PathPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and every median barrier."""
        words = "; ".join(f"{SETTINGS[panel.setting]} {panel_words(panel)}"
                          for panel in self.panels)  # fmt: skip
        return (
            "Held-out bits per byte above the straight line between the losses of two parents, "
            "along the straight path between their weights, as they are and after the second was "
            "brought to the first. Thin: one pair and language; thick: median. Median barrier "
            f"(highest point, with its 95 % interval over models): {words}."
        )


def panel_words(panel: PathPanel) -> str:
    """The barriers of a setting in words."""
    return ", ".join(f"{barrier_words(group.barrier)} {group.label}" for group in panel.groups)


def barrier_words(found: Estimate) -> str:
    """A barrier in words.

    Example:
        >>> barrier_words(Estimate(1.234, 0.9, 1.5, 9, 30))
        '1.23 [0.90, 1.50]'
    """
    ends = f" [{number(found.low)}, {number(found.high)}]" if found.low == found.low else ""
    return f"{number(found.value)}{ends}"


def prepare_paths(atlas: Atlas) -> PathsData:
    """Paths of an atlas, by setting and alignment; controls have their own figure.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No path was followed.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> data = prepare_paths(planted_atlas())
        >>> [panel.setting for panel in data.panels][:2]
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
    return PathsData(
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
    return PathGroup(
        alignment=alignment,
        t=curves[0][1],
        above=above,
        barrier=estimate(above.max(axis=1).tolist(), parents),
        pairs=len(set(parents)),
    )


def plot_paths(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw loss along paths; see `prepare_paths`."""
    from repsim.plots.drawing.study.paths import draw_paths

    return draw_paths(prepare_paths(atlas), size=size)
