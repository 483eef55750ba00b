"""What alignment before merging rescues, and what it does not."""

from __future__ import annotations

from typing import Any

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.errors import UsageError
from repsim.plots.appearance import FAINT, GREY, Look, Size, line_marker
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import COLLAPSES, SURVIVES, retention_axis
from repsim.plots.study.outcomes import ALIGNMENTS, SETTINGS, outcomes_of, settings_of
from repsim.stats.bootstrap import estimate

_RESCUED = "#E3EDF7"
#: What becomes of a group of parents -> its marker, the exceptions last and large.
_FATES: dict[str, dict[str, Any]] = {
    "collapses both ways": line_marker(
        Look(FAINT, GREY, GREY, "o", False), 3.2, markeredgewidth=0.5
    ),
    "survives both ways": line_marker(Look(GREY, GREY, GREY, "o", True), 3.2, markeredgewidth=0.5),
    "lost by alignment": line_marker(Look(COLLAPSES, COLLAPSES, COLLAPSES, "X", True), 5.0),
    "rescued": line_marker(Look(SURVIVES, SURVIVES, SURVIVES, "D", True), 4.6),
}


def _fate(naive: float, aligned: float) -> str:
    """What became of a group of parents, a key of `_FATES`."""
    if naive < COLLAPSE:
        return "rescued" if aligned >= COLLAPSE else "collapses both ways"
    return "survives both ways" if aligned >= COLLAPSE else "lost by alignment"


def _caption(info: Numbers) -> str:
    words = []
    for panel in info.panels:
        rescued = sum(s.rescued for s in panel.settings)
        collapsed = sum(s.collapsed for s in panel.settings)
        told = "; ".join(f"{SETTINGS[s.setting]} {s.rescued} of {s.collapsed}"
                         for s in panel.settings if s.rescued)  # fmt: skip
        where = f" ({told})" if told else ""
        words.append(f"{ALIGNMENTS[panel.alignment]} {rescued} of {collapsed}{where}")
    return (
        "Retention of the worst language of the mean of the same parents as they are (across) "
        "and after one was brought into the coordinates of the other (upwards). Above the "
        "diagonal alignment helps; top left it rescues. Rescued of those that collapse as they "
        "are: " + "; ".join(words) + "."
    )


def alignment_info(atlas: Atlas) -> Numbers:
    """What alignment changes, group by group."""
    means = [o for o in outcomes_of(atlas) if o.method == "linear"]
    naive = {(o.parents, o.control): o.worst for o in means if o.alignment == "none"}
    panels = []
    for alignment in ALIGNMENTS:
        those = [o for o in means if o.alignment == alignment != "none"]
        groups = [
            Numbers(parents=o.parents, setting=o.setting, naive=before, aligned=o.worst,
                    fate=_fate(before, o.worst))
            for o in those if (before := naive.get((o.parents, o.control))) is not None
        ]  # fmt: skip
        if groups:
            settings = tuple(
                _by_setting(setting, [group for group in groups if group.setting == setting])
                for setting in settings_of(those)
            )
            panels.append(Numbers(alignment=alignment, groups=tuple(groups), settings=settings))
    if not panels:
        raise UsageError("the atlas holds no group of parents merged both as they are and aligned")
    count = len({group.parents for panel in panels for group in panel.groups})
    return Numbers(
        _caption,
        panels=tuple(panels),
        title="What alignment rescues",
        note=(f"plain mean of {count} groups of parents", "stars: twins of one model"),
    )


def _by_setting(setting: str, those: list[Numbers]) -> Numbers:
    gains = [group.aligned - group.naive for group in those]
    return Numbers(
        setting=setting,
        gain=estimate(gains, [group.parents for group in those]),
        collapsed=sum(group.naive < COLLAPSE for group in those),
        rescued=sum(group.fate == "rescued" for group in those),
        lost=sum(group.fate == "lost by alignment" for group in those),
    )


def draw_alignment(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A panel per alignment, a point per group of parents."""
    count = len(info.panels)
    columns = count if size == "wide" else 1
    key = fig.key_of({name: {"linestyle": "", **look} for name, look in _FATES.items()})
    axes = fig.frames(info, ax, count, columns, size, 3.3 * -(-count // columns), key=key)
    values = [v for panel in info.panels for g in panel.groups for v in (g.naive, g.aligned)]
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, values)
    axes[0].set_ylabel("retention after alignment")
    return fig.finish(axes)


def _draw_panel(ax: Axes, panel: Numbers, values: list[float]) -> None:
    retention_axis(ax, values, "x", shade=False)
    retention_axis(ax, values, "y", shade=False)
    ends, high = ax.get_xlim(), ax.get_ylim()[1]
    corner = [ends[0], COLLAPSE, COLLAPSE, ends[0]]
    ax.fill(corner, [COLLAPSE, COLLAPSE, high, high], color=_RESCUED, linewidth=0, zorder=0)
    ax.plot(ends, ends, color=FAINT, linewidth=0.9, zorder=1, scalex=False, scaley=False)
    for place, (fate, look) in enumerate(_FATES.items()):
        for twins in (False, True):
            those = [group for group in panel.groups
                     if group.fate == fate and (group.setting == "control") == twins]  # fmt: skip
            shape = {"marker": "*", "markersize": 8.0} if twins else {}
            ax.plot([group.naive for group in those], [group.aligned for group in those],
                    linestyle="", zorder=2 + place, **(look | shape))  # fmt: skip
    collapsed = sum(group.naive < COLLAPSE for group in panel.groups)
    rescued = sum(group.fate == "rescued" for group in panel.groups)
    words = f"rescued: {rescued} of {collapsed}"
    ax.text(0.03, 0.97, words, transform=ax.transAxes, color=SURVIVES, fontsize=8, va="top",
            fontweight="bold")  # fmt: skip
    ax.set_title(f"{panel.alignment}: parents {ALIGNMENTS[panel.alignment]}")
    ax.set_xlabel("retention, worst language, as they are")


ALIGNMENT = Figure("atlas_alignment", "atlas", alignment_info, draw_alignment)
