"""How high the barrier on the straight path between parents is, by their origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repsim.core.atlas import Atlas, split_parents
from repsim.core.errors import UsageError
from repsim.plots.appearance import FAINT, Look, Size, darkened
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.names import wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import marker
from repsim.plots.study.outcomes import ALIGNMENTS, SETTINGS, Outcome, outcomes_of, value_words
from repsim.stats.bootstrap import estimate

#: Alignment -> label, in the order of drawing.
PATHS = ALIGNMENTS


def _caption(info: Numbers) -> str:
    words = "; ".join(f"{SETTINGS[panel.setting]} {panel.words}" for panel in info.panels)
    return (
        "Barrier of two parents: the highest point of the held-out bits per byte over the "
        "straight line between their losses, along the straight path between their weights, as "
        "they are and after the second was brought to the first. Small: one pair and language; "
        f"large: median, with its 95 % interval over models where there is one: {words}."
    )


def paths_info(atlas: Atlas) -> Numbers:
    """Paths of an atlas, by setting and alignment; controls have their own figure."""
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
            words = ", ".join(f"{value_words(group.barrier)} {group.label}" for group in groups)
            panels.append(Numbers(setting=setting, groups=groups, words=words))
    parents = {outcome.parents for those in found.values() for outcome, _, _ in those}
    points = len(panels[0].groups[0].t)
    return Numbers(
        _caption,
        panels=tuple(panels),
        title="Barriers on the path between two parents",
        note=(
            f"{len(parents)} pairs",
            f"paths of {points} points",
            "held-out text",
            "bars: 95 % interval of the median over models",
        ),
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


def _group(alignment: str, curves: Sequence[tuple[Outcome, np.ndarray, np.ndarray]]) -> Numbers:
    above = np.stack([height for _, _, height in curves])
    parents = [outcome.parents for outcome, _, _ in curves]
    barrier = estimate(above.max(axis=1).tolist(), parents)
    return Numbers(
        alignment=alignment, label=PATHS[alignment], t=curves[0][1], above=above, barrier=barrier,
        pairs=len(set(parents)),
    )  # fmt: skip


#: Alignment -> look; lightness and marker differ, for grey.
_LOOKS = {
    "none": Look("#1F2733", "#1F2733", "#1F2733", "o", True),
    "permutation": Look("#E69F00", darkened("#E69F00", 3.0), "#7A5400", "s", True),
    "orthogonal": Look("#0072B2", "#0072B2", "#0072B2", "D", False),
}


def draw_paths(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A row per setting, in it a line per alignment."""
    present = {group.alignment for panel in info.panels for group in panel.groups}
    key = fig.key_of({PATHS[name]: {"linestyle": "", **marker(_LOOKS[name])}
                      for name in PATHS if name in present})  # fmt: skip
    (frame,) = axes = fig.frames(info, ax, 1, 1, size, 0.55 + 0.5 * len(info.panels), key=key)
    for place, panel in enumerate(info.panels):
        if place % 2 == 0:
            frame.axhspan(place - 0.5, place + 0.5, color="#F4F5F7", linewidth=0, zorder=0)
        for line, group in enumerate(panel.groups):
            y = place + (line - (len(panel.groups) - 1) / 2) * 0.25
            _draw_barriers(frame, group, y)
    name_rows(frame, [wrapped(SETTINGS[panel.setting], 20) for panel in info.panels])
    frame.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    frame.set_xlabel("barrier (bits per byte over the chord)")
    return fig.finish(axes)


def _draw_barriers(ax: Axes, group: Numbers, y: float) -> None:
    look, highest = _LOOKS[group.alignment], group.above.max(axis=1)
    ax.plot(highest, np.full(len(highest), y), linestyle="", marker="|", markersize=4.5,
            markeredgewidth=0.7, color=look.line, alpha=0.35, zorder=2)  # fmt: skip
    ends = group.barrier.low, group.barrier.high
    draw_point(ax, y, group.barrier.value, ends, marker(look, 5.0) | {"zorder": 4}, width=1.3)


PATH_FIGURE = Figure("atlas_paths", "atlas", paths_info, draw_paths)
