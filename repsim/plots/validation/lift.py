"""How much better the predictor is than each baseline, per split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from repsim.core.formatting import number
from repsim.plots.appearance import ACCENT, GREY, ROLES, Size, darkened, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import INTERVALS, Row, by_split, numbers_of

#: Most baselines that a figure has.
MAX_BASELINES = 30
#: Inches for names of baselines, which take two lines, and for one baseline.
_LABELS, _LINE = 2.0, 0.235
#: Outcome -> colour, marker, filled.
LOOKS: dict[str, tuple[str, str, bool]] = {
    "better": (ROLES["merged"][0], "o", True),
    "not told apart": (GREY, "o", False),
    "worse": (darkened(ACCENT, 3.0), "v", True),
    "no interval": (GREY, "x", True),
}


def _outcome(low: float, high: float) -> str:
    """Which of the two is better, as far as the interval tells: a key of `LOOKS`."""
    if low != low or high != high:
        return "no interval"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "not told apart"


def _point(name: str, value: float, low: float, high: float) -> Numbers:
    return Numbers(baseline=name, value=value, low=low, high=high, outcome=_outcome(low, high))


def _caption(info: Numbers) -> str:
    said = []
    for panel in info.panels:
        outcomes = [point.outcome for point in panel.points]
        words = f"{panel.title}: better than {outcomes.count('better')} of {len(outcomes)}"
        if lost := outcomes.count("worse"):
            words += f", worse than {lost}"
        if valued := [point for point in panel.points if point.value == point.value]:
            closest = min(valued, key=lambda point: point.value)
            words += f", closest {closest.baseline} ({number(closest.value, 3)})"
        said.append(words)
    cut = ""
    if info.tested != len(info.baselines):
        cut = f"; shown are the {len(info.baselines)} strongest of {info.tested} baselines"
    return (
        f"{info.axis[0].upper()}{info.axis[1:]}, for each baseline fitted in the same folds. "
        "Right of 0 the predictor is better; it counts as better where the whole interval "
        f"lies there{cut}. {'; '.join(said)}."
    )


def lift_info(
    rows: Iterable[Row],
    *,
    axis: str,
    labels: Mapping[str, str] | None = None,
    most: int = MAX_BASELINES,
    note: Sequence[str] = (INTERVALS,),
) -> Numbers:
    """Lift over baselines by split."""
    groups = by_split(rows, ("baseline", "lift", "low", "high"), "comparisons with baselines")
    found: dict[str, dict[str, Numbers]] = {}
    for split, group in groups.items():
        for row in group:
            name = str(row["baseline"])
            numbers = numbers_of(row, "lift", "low", "high").values()
            point = _point((labels or {}).get(name, name), *numbers)
            found.setdefault(split, {})[name] = point
    order = _strongest_first(found)
    pieces, tested = list(note), len(order)
    if len(order) > most:
        pieces.append(f"the {most} strongest of {len(order)} baselines")
        order = order[:most]
    shown = {name: (labels or {}).get(name, name) for name in order}
    return Numbers(
        _caption,
        panels=tuple(
            Numbers(
                title=split,
                points=tuple(
                    points.get(name, _point(shown[name], *[math.nan] * 3)) for name in order
                ),
            )
            for split, points in found.items()
        ),
        baselines=tuple(shown.values()),
        tested=tested,
        axis=axis,
        title="Better than the baselines?",
        note=tuple(pieces),
    )


def _strongest_first(found: Mapping[str, Mapping[str, Numbers]]) -> list[str]:
    """Baselines by their mean lift over splits; those without any come last."""
    names = dict.fromkeys(name for points in found.values() for name in points)

    def mean(name: str) -> float:
        values = [points[name].value for points in found.values() if name in points]
        defined = [value for value in values if value == value]
        return sum(defined) / len(defined) if defined else float("inf")

    return sorted(names, key=mean)


def draw_lift(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A line per baseline, a frame per split."""
    count, width = len(info.panels), width_of(size)
    columns = fig.columns_of(count, size)
    present = {point.outcome for panel in info.panels for point in panel.points}
    key = fig.key_of({
        name if name == "no interval" else f"predictor {name}": {"linestyle": "", **_marker(name)}
        for name in LOOKS if name in present
    })  # fmt: skip
    labelled = min(_LABELS, 0.33 * width)
    height = -(-count // columns) * (0.65 + _LINE * len(info.baselines))
    shared = {"sharey": True, "sharex": True}
    axes = fig.frames(info, ax, count, columns, size, height, key=key, **shared)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, info, labelled)
        fig.title_panel(frame, panel.title, (width - labelled - 0.1) / columns - 0.1)
    fig.name_axes(axes, info.axis, "", height)
    return fig.finish(axes)


def _marker(outcome: str) -> dict[str, Any]:
    colour, shape, filled = LOOKS[outcome]
    return {
        "marker": shape,
        "markersize": 4.2,
        "color": colour,
        "markeredgecolor": colour,
        "markerfacecolor": colour if filled else "white",
    }


def _draw_panel(ax: Axes, panel: Numbers, info: Numbers, labelled: float) -> None:
    ax.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    ax.grid(visible=True, axis="y")
    for place, point in enumerate(panel.points):
        draw_point(ax, place, point.value, (point.low, point.high), _marker(point.outcome))
    name_rows(ax, info.baselines, labelled, size=7)
    ax.tick_params(labelbottom=True)


ROWS = "One per split and baseline: split, baseline, lift (above 0: better than it), low, high."
LIFT = Figure("validation_lift", "rows", lift_info, draw_lift, {"rows": ROWS})
