"""Merges whose outcome is known beforehand: what was predicted, and whether it is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import UsageError
from repsim.core.formatting import listed, number
from repsim.plots.appearance import ACCENT, FAINT, GREY, INK, ROLES, Size, darkened, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import Row, grouped, numbers_of

MAX_CONTROLS = 40
Judgement = Literal["right", "wrong", "refused"]
#: Judgement -> colour of line and word.
COLOURS: dict[Judgement, str] = {
    "right": darkened(ROLES["merged"][0], 4.5),
    "wrong": darkened(ACCENT, 4.5),
    "refused": GREY,
}
#: Values below this are drawn there.
_LOWEST = -1.0


def _caption(info: Numbers) -> str:
    merges = [merge for line in info.lines for merge in line.merges]
    right = sum(merge["judgement"] == "right" for merge in merges)
    said = [f"{right} of {len(merges)} merges are right"]
    for judgement in ("wrong", "refused"):
        names = [f"{line.name} ({line.counts[judgement]})"
                 for line in info.lines if line.counts[judgement]]  # fmt: skip
        said += [f"{judgement}: {listed(names)}"] if names else []
    return (
        "Merges whose answer is known beforehand, in their worst language: predicted retention "
        "with its 90 % interval, and observed retention. A forecast is right if it stands on "
        f"the true side of collapse (shaded). {'; '.join(said)}."
    )


def controls_info(rows: Iterable[Row]) -> Numbers:
    """Controls with predicted and observed retention."""
    numbers = ("predicted", "low", "high", "observed")
    found = grouped(rows, "control", (*numbers, "right"), "controls")
    if len(found) > MAX_CONTROLS:
        raise UsageError(f"{len(found)} controls are more than {MAX_CONTROLS} lines")
    lines = []
    for name, group in found.items():
        merges = [numbers_of(row, *numbers) | {"judgement": _judged(row["right"])}
                  for row in group]  # fmt: skip
        counts = {j: sum(merge["judgement"] == j for merge in merges) for j in COLOURS}
        said = [f"{count} {judgement}" for judgement, count in counts.items() if count]
        words = said[0].split()[1] if len(merges) == 1 else ", ".join(said)
        lines.append(Numbers(name=name, merges=merges, counts=counts, words=words))
    note = ("bars: 90 % intervals", "shaded: collapse")
    return Numbers(_caption, lines=lines, title="Controls with a known answer", note=note)


def _judged(right: Any) -> Judgement:
    if right is None:
        return "refused"
    return "right" if right else "wrong"


def draw_controls(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A line per control, predicted beside observed."""
    width = width_of(size)
    key = fig.key_of({"predicted": {"linestyle": "", **_predicted(INK)},
                      "observed": {"linestyle": "", **_observed(INK)}})  # fmt: skip
    tall = [max(1.0, 0.5 * len(line.merges)) for line in info.lines]
    (frame,) = axes = fig.frames(info, ax, 1, 1, size, 0.6 + 0.22 * sum(tall), key=key)
    merges = [merge for line in info.lines for merge in line.merges]
    ends = [merge[n] for merge in merges for n in ("predicted", "low", "observed")]
    least = min([0.0, *(max(v, _LOWEST) for v in ends if v == v)]) - 0.06
    frame.axvspan(least, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
    for at in (0.0, 1.0):
        frame.axvline(at, color=FAINT, linewidth=0.8, zorder=1)
    frame.set_xlim(least, 1.26)
    tops = np.concatenate([[0.0], np.cumsum(tall)])
    frame.set_ylim(float(tops[-1]), 0.0)
    for line, top, room in zip(info.lines, tops, tall, strict=False):
        _draw_line(frame, line, float(top), room)
    figure = fig.figure_of(frame)
    names = [fig.fitted(figure, line.name, min(2.2, width * 0.4), size=7.5) for line in info.lines]
    frame.set_yticks((tops[:-1] + tops[1:]) / 2, names)
    frame.tick_params(axis="y", length=0)
    wanted = (-1.0, 0.0, 0.5, 1.0) if width < 4 else (-1.0, -0.5, 0.0, 0.5, 1.0)
    ticks = [at for at in wanted if at >= least]
    frame.set_xticks(ticks, [number(at, 1) for at in ticks])
    frame.set_xlabel(fig.fitted(figure, "retention of the worst language", width * 0.45))
    return fig.finish(axes)


def _predicted(colour: str) -> dict[str, Any]:
    return {"marker": "o", "markersize": 4, "color": colour, "markerfacecolor": "white"}


def _observed(colour: str) -> dict[str, Any]:
    return {"marker": "D", "markersize": 3.4, "color": colour, "markeredgecolor": "white",
            "markeredgewidth": 0.4}  # fmt: skip


def _draw_line(ax: Axes, line: Numbers, top: float, room: float) -> None:
    """Merges of one control one below the other, and their judgements at the end."""
    if top:
        ax.axhline(top, color="#E6E9ED", linewidth=0.8, zorder=1)
    step = room / len(line.merges)
    for place, merge in enumerate(line.merges):
        _draw_merge(ax, merge, top + (place + 0.5) * step)
    judgements: tuple[Judgement, ...] = ("wrong", "refused", "right")
    worst = next(j for j in judgements if line.counts[j])
    ax.annotate(
        line.words, (1.0, top + room / 2), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=7.5, color=COLOURS[worst],
    )  # fmt: skip


def _draw_merge(ax: Axes, merge: dict[str, Any], at: float) -> None:
    colour = COLOURS[merge["judgement"]]
    predicted, low, high, observed = (
        max(merge[n], _LOWEST) if merge[n] == merge[n] else np.nan
        for n in ("predicted", "low", "high", "observed")
    )
    ax.plot([low, high], [at, at], color=colour, linewidth=1.0, alpha=0.6, zorder=2)
    ax.plot([predicted], [at], linestyle="", zorder=3, **_predicted(colour))
    ax.plot([observed], [at], linestyle="", zorder=3.5, **_observed(colour))


ROWS = "One per merge: control, predicted, low, high, observed, right (0, 1, or null if refused)."
CONTROLS = Figure("validation_controls", "rows", controls_info, draw_controls, {"rows": ROWS})
