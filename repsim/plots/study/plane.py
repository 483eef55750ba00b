"""The invariance ladder by setting, and every pair in the plane of its rungs L0 and L2."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import listed, number
from repsim.plots.appearance import FAINT, GREY, Size, darkened, style
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.names import wrapped
from repsim.plots.spec import Figure
from repsim.plots.study.axes import COLLAPSES, SURVIVES, look_of, marker, setting_key
from repsim.plots.study.features import CALIBRATED, RUNGS, measured_pairs
from repsim.plots.study.outcomes import settings_of
from repsim.stats import auroc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

#: One measure per rung, for the profile over rungs.
OF_RUNG = {
    "L0": "unit_correlation",
    "L1": "permutation",
    "L2": "cka",
    "L3": "svcca",
    "L4": "mutual_knn",
}


class Profile(NamedTuple):
    """A setting: its name, median similarity at each rung, and how many of its pairs survive."""

    setting: str
    values: tuple[float, ...]
    survive: int
    pairs: int


class PlanePoint(NamedTuple):
    """A pair in the plane of L0 and L2: setting, both similarities, retention."""

    setting: str
    identity: float
    rotation: float
    retention: float


@dataclasses.dataclass(frozen=True)
class PlaneInfo:
    """Rungs that were measured, a profile per setting, a point per pair."""

    rungs: tuple[str, ...]
    profiles: tuple[Profile, ...]
    points: tuple[PlanePoint, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and how L0 and L2 tell pairs that survive from pairs that collapse."""
        words = []
        for rung, name in (("L0", "identity"), ("L2", "rotation")):
            values = np.array([getattr(point, name) for point in self.points])
            survives = np.array([point.retention >= COLLAPSE for point in self.points])
            if survives.any() and not survives.all():
                words.append(f"{rung} {number(auroc(values, survives))}")
        told = f"Probability that a pair that survives is the more similar one: {listed(words)}. "
        return (
            "Left: calibrated similarity in the middle blocks on each rung of the ladder, median "
            "over the pairs of a setting, coloured by the share of pairs whose plain mean "
            "survives. Right: every pair by its similarity in the same coordinates (L0) and up to "
            "rotation (L2). "
            + (told if words else "")
            + "High L2 with low L0 is a mismatch of coordinates."
        )


def plane_info(atlas: Atlas) -> PlaneInfo:
    """The ladder by setting, and the plane of L0 and L2.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No pair has an outcome, L0 and L2.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> plane_info(planted_atlas()).rungs
        ('L0', 'L1', 'L2', 'L3', 'L4')
    """
    pairs = measured_pairs(atlas, "unit_correlation_middle", "cka_middle")
    rungs = [rung for rung, name in OF_RUNG.items()
             if all(f"{name}_middle" in pair.values for pair in pairs)]  # fmt: skip
    profiles = []
    for setting in settings_of([pair.outcome for pair in pairs]):
        those = [pair for pair in pairs if pair.outcome.setting == setting]
        medians = [float(np.median([p.values[f"{OF_RUNG[rung]}_middle"] for p in those]))
                   for rung in rungs]  # fmt: skip
        survive = sum(not pair.outcome.collapsed for pair in those)
        profiles.append(Profile(setting, tuple(medians), survive, len(those)))
    points = [
        PlanePoint(pair.outcome.setting, pair.values["unit_correlation_middle"],
                   pair.values["cka_middle"], pair.outcome.worst)
        for pair in pairs
    ]  # fmt: skip
    return PlaneInfo(
        rungs=tuple(rungs),
        profiles=tuple(profiles),
        points=tuple(points),
        title="The invariance ladder between parents, and what became of their mean",
        note=(f"{len(pairs)} pairs", "both models read the same text", "middle blocks"),
    )


@style()
def draw_plane(info: PlaneInfo, *, ax: Axes | None = None, size: Size = "wide") -> Drawing:
    """Profiles on the left, the plane of L0 and L2 on the right."""
    beside = size == "wide"
    key = setting_key([profile.setting for profile in info.profiles])
    axes = fig.frames(info, ax, 2, 2 if beside else 1, size, 3.3 if beside else 6.2, key=key)
    _draw_profiles(axes[0], info, named=size != "single")
    _draw_points(axes[1], info)
    figure = fig.finish(axes, ax)
    spread_end_labels(axes[0])
    return figure


def _draw_profiles(ax: Axes, info: PlaneInfo, *, named: bool) -> None:
    places = np.arange(len(info.rungs))
    labels = []
    for profile in info.profiles:
        colour = SURVIVES if profile.survive / profile.pairs >= 0.5 else COLLAPSES
        options = marker(look_of(profile.setting), 4.0)
        ax.plot(places, profile.values, linewidth=1.2, zorder=2, **{**options, "color": colour})
        text = f"{profile.survive}/{profile.pairs}"
        labels.append(EndLabel(profile.values[-1], text, darkened(colour, 4.5), bold=False))
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xticks(places, [f"{rung}\n{RUNGS[rung]}" if named else rung for rung in info.rungs])
    ax.set_ylabel(wrapped(CALIBRATED, 26))
    ax.set_title("by setting (right: pairs that survive)")
    write_end_labels(ax, labels, size=7.0)


def _draw_points(ax: Axes, info: PlaneInfo) -> None:
    for profile in info.profiles:
        for survives in (False, True):
            those = [point for point in info.points
                     if point.setting == profile.setting
                     and (point.retention >= COLLAPSE) == survives]  # fmt: skip
            look, colour = look_of(profile.setting), SURVIVES if survives else COLLAPSES
            options = marker(look, 4.2)
            options |= {"markeredgecolor": darkened(colour, 4.5), "color": colour,
                        "markerfacecolor": colour if look.filled else "white"}  # fmt: skip
            ax.plot([point.identity for point in those], [point.rotation for point in those],
                    linestyle="", alpha=0.75, zorder=3 if survives else 2, **options)  # fmt: skip
    ends = [value for point in info.points for value in (point.identity, point.rotation)]
    low, high = min(-0.05, min(ends) - 0.03), max(1.03, max(ends))
    ax.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.text(0.03, 0.975, "coordinates differ", transform=ax.transAxes, color=GREY, fontsize=7.5,
            va="top")  # fmt: skip
    ax.text(0.97, 0.03, "blue survives, orange collapses", transform=ax.transAxes, color=GREY,
            fontsize=7.5, ha="right", va="bottom")  # fmt: skip
    ax.set_xlabel("L0, same coordinates: unit-wise correlation")
    ax.set_ylabel("L2, up to rotation: debiased CKA")
    ax.set_title("every pair")


PLANE = Figure("atlas_plane", "atlas", plane_info, draw_plane, vector=False)
