"""Predictors side by side: what each further tier of features adds, and what regressors reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots.appearance import GREY, Look, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.rows import draw_point, name_rows
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.validation.rows import Row, grouped, numbers_of

MAX_CANDIDATES = 40


def _caption(info: Numbers) -> str:
    said = [f"{c.name} {number(c.value, 3)} [{number(c.low, 3)}, {number(c.high, 3)}]"
            for c in info.candidates]  # fmt: skip
    chosen = [c.name for c in info.candidates if c.chosen]
    words = f" The predictor that is judged here: {chosen[0]} (dashed)." if chosen else ""
    return f"{info.axis[0].upper()}{info.axis[1:]}: {'; '.join(said)}.{words}"


def candidates_info(rows: Iterable[Row], *, axis: str, note: Sequence[str] = ()) -> Numbers:
    """Predictors with one number each."""
    needed = ("candidate", "value", "low", "high", "chosen")
    kinds = grouped(rows, "kind", needed, "predictors")
    found = [
        Numbers(name=str(row["candidate"]), kind=kind, chosen=bool(row["chosen"]),
                **numbers_of(row, "value", "low", "high"))
        for kind, group in kinds.items() for row in group
    ]  # fmt: skip
    if len(found) > MAX_CANDIDATES:
        raise UsageError(f"{len(found)} predictors are more than {MAX_CANDIDATES} lines")
    return Numbers(
        _caption,
        candidates=found,
        kinds=tuple(kinds),
        axis=axis,
        title="What further features and other regressors give",
        note=tuple(note),
    )


def draw_candidates(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A line per predictor, the chosen one dashed."""
    width = width_of(size)
    found = dict(zip(info.kinds, looks(["other"] * len(info.kinds)), strict=True))
    key = {kind: {"linestyle": "", **line_marker(look)} for kind, look in found.items()}
    height = 0.65 + 0.22 * len(info.candidates)
    (frame,) = axes = fig.frames(info, ax, 1, 1, size, height, key=fig.key_of(key))
    frame.grid(visible=True, axis="x")
    for place, candidate in enumerate(info.candidates):
        _draw_line(frame, candidate, place, found[candidate.kind])
    _name_lines(frame, info, min(2.2, width * 0.4))
    frame.set_xlabel(fig.fitted(fig.figure_of(frame), info.axis, width * 0.55))
    return fig.finish(axes)


def _draw_line(ax: Axes, candidate: Numbers, place: int, look: Look) -> None:
    if candidate.chosen:
        ax.axvline(candidate.value, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)), zorder=1)
    draw_point(ax, place, candidate.value, (candidate.low, candidate.high), line_marker(look))


def _name_lines(ax: Axes, info: Numbers, room: float) -> None:
    name_rows(ax, [candidate.name for candidate in info.candidates], room)
    for label, candidate in zip(ax.get_yticklabels(), info.candidates, strict=True):
        label.set_fontweight("bold" if candidate.chosen else "normal")


ROWS = "One per predictor: candidate, kind, value, low, high, chosen."
CANDIDATES = Figure(
    "validation_candidates", "rows", candidates_info, draw_candidates, {"rows": ROWS}
)
