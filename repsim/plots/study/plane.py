"""The invariance ladder by setting, and every pair in the plane of its rungs L0 and L2."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import listed, number
from repsim.plots.appearance import FAINT, GREY, Look, Size
from repsim.plots.drawing import figure as fig
from repsim.plots.names import wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import COLLAPSES, SURVIVES, marker
from repsim.plots.study.features import CALIBRATED, RUNGS, measured_pairs
from repsim.plots.study.outcomes import SETTINGS, settings_of
from repsim.stats import auroc

#: One measure per rung, for the profile over rungs.
OF_RUNG = {
    "L0": "unit_correlation",
    "L1": "permutation",
    "L2": "cka",
    "L3": "svcca",
    "L4": "mutual_knn",
}


def _caption(info: Numbers) -> str:
    words = []
    for rung, name in (("L0", "identity"), ("L2", "rotation")):
        values = np.array([getattr(point, name) for point in info.points])
        survives = np.array([point.retention >= COLLAPSE for point in info.points])
        if survives.any() and not survives.all():
            words.append(f"{rung} {number(auroc(values, survives))}")
    told = f"Probability that a pair that survives is the more similar one: {listed(words)}. "
    return (
        "Left: calibrated similarity in the middle blocks on each rung of the ladder, of pairs "
        "whose plain mean survives and of pairs whose plain mean collapses: median, and band "
        "of the middle half. Right: every pair by its similarity in the same coordinates (L0) "
        "and up to rotation (L2). "
        + (told if words else "")
        + "High L2 with low L0 is a mismatch of coordinates. Survivors by setting: "
        + "; ".join(f"{SETTINGS[p.setting]} {p.survive} of {p.pairs}" for p in info.profiles)
        + "."
    )


def plane_info(atlas: Atlas) -> Numbers:
    """The ladder by setting, and the plane of L0 and L2."""
    pairs = measured_pairs(atlas, "unit_correlation_middle", "cka_middle")
    rungs = [rung for rung, name in OF_RUNG.items()
             if all(f"{name}_middle" in pair.values for pair in pairs)]  # fmt: skip
    profiles = []
    for setting in settings_of([pair.outcome for pair in pairs]):
        those = [pair for pair in pairs if pair.outcome.setting == setting]
        medians = [float(np.median([p.values[f"{OF_RUNG[rung]}_middle"] for p in those]))
                   for rung in rungs]  # fmt: skip
        survive = sum(not pair.outcome.collapsed for pair in those)
        profiles.append(
            Numbers(setting=setting, values=tuple(medians), survive=survive, pairs=len(those))
        )
    courses = []
    for survives in (True, False):
        those = [pair for pair in pairs if pair.outcome.collapsed != survives]
        if those:
            values = [[p.values[f"{OF_RUNG[rung]}_middle"] for rung in rungs] for p in those]
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
            label = f"{'survives' if survives else 'collapses'} ({len(those)} pairs)"
            courses.append(Numbers(
                survives=survives, low=low, middle=middle, high=high, pairs=len(those), label=label
            ))  # fmt: skip
    points = [
        Numbers(setting=pair.outcome.setting, identity=pair.values["unit_correlation_middle"],
                   rotation=pair.values["cka_middle"], retention=pair.outcome.worst)
        for pair in pairs
    ]  # fmt: skip
    return Numbers(
        _caption,
        rungs=tuple(rungs),
        courses=tuple(courses),
        profiles=tuple(profiles),
        points=tuple(points),
        title="The invariance ladder between parents, and what became of their mean",
        note=(f"{len(pairs)} pairs", "both models read the same text", "middle blocks"),
    )


#: Whether the plain mean survives -> look; one is filled and the other is not, for grey.
_LOOKS = {
    True: Look(SURVIVES, SURVIVES, SURVIVES, "o", True),
    False: Look(COLLAPSES, COLLAPSES, COLLAPSES, "s", False),
}


def draw_plane(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """Similarity by rung on the left, the plane of L0 and L2 on the right."""
    beside = size == "wide"
    key = fig.key_of({course.label: marker(_LOOKS[course.survives]) for course in info.courses})
    axes = fig.frames(info, ax, 2, 2 if beside else 1, size, 3.3 if beside else 6.2, key=key)
    _draw_courses(axes[0], info, named=size != "single")
    _draw_points(axes[1], info)
    return fig.finish(axes)


def _draw_courses(ax: Axes, info: Numbers, *, named: bool) -> None:
    places = np.arange(len(info.rungs))
    for course in info.courses:
        look = _LOOKS[course.survives]
        ax.fill_between(places, course.low, course.high, color=look.fill, alpha=0.18, linewidth=0)
        dashes: Any = "-" if course.survives else (0, (4, 1.5))
        ax.plot(places, course.middle, linewidth=1.8, linestyle=dashes, zorder=3, **marker(look))
    ax.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xticks(places, [f"{rung}\n{RUNGS[rung]}" if named else rung for rung in info.rungs])
    ax.set_ylabel(wrapped(CALIBRATED, 26))
    ax.set_title("on each rung: median and middle half")


def _draw_points(ax: Axes, info: Numbers) -> None:
    for survives, look in _LOOKS.items():
        those = [p for p in info.points if (p.retention >= COLLAPSE) == survives]
        ax.plot([point.identity for point in those], [point.rotation for point in those],
                linestyle="", alpha=0.75, zorder=3 if survives else 2,
                **marker(look, 3.8))  # fmt: skip
    ends = [value for point in info.points for value in (point.identity, point.rotation)]
    low, high = min(-0.05, min(ends) - 0.03), max(1.03, max(ends))
    ax.plot([low, high], [low, high], color=FAINT, linewidth=0.8, zorder=1)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.text(0.03, 0.975, "coordinates differ", transform=ax.transAxes, color=GREY, fontsize=7.5,
            va="top")  # fmt: skip
    ax.set_xlabel("L0, same coordinates: unit-wise correlation")
    ax.set_ylabel("L2, up to rotation: debiased CKA")
    ax.set_title("every pair")


PLANE = Figure("atlas_plane", "atlas", plane_info, draw_plane)
