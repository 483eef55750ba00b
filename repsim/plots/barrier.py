"""Loss along the straight path between two models, with the barrier of each language."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import GREY, LABEL, Look, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number, short_codes, wrapped
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

MAX_PANELS = 12
#: Alignment -> (label, role that decides colour and marker).
PATHS = {
    "none": ("naive", "null"),
    "permutation": ("permutation-aligned", "merged"),
    "orthogonal": ("rotation-aligned", "monolingual"),
}
#: Barriers below this (bits per byte) are said and have no arrow: it would have no length.
_LEAST_ARROW = 0.05


def _caption(info: Numbers) -> str:
    said = []
    for panel in info.panels:
        numbers = [f"{number(curve.barrier)} {curve.label}" for curve in panel.curves]
        said.append(f"{panel.title}: {', '.join(numbers)}")
    return (
        f"Bits per byte on held-out text along the straight path from {info.ends[0]} (t = 0) "
        f"to {info.ends[1]} (t = 1). The barrier is the largest height over the dashed chord, "
        f"in bits per byte. {'; '.join(said)}."
    )


def barrier_info(table: Table) -> Numbers:
    """Loss along the merge path, a panel per language."""
    languages = [str(name) for name in table.unique("language")]
    firsts, seconds = table.unique("model_a"), table.unique("model_b")
    if not languages or len(firsts) != 1 or len(seconds) != 1:
        raise UsageError(
            f"a barrier is drawn of one pair of models, the table has {len(firsts) * len(seconds)}"
        )
    if len(languages) > MAX_PANELS:
        raise UsageError(
            f"{len(languages)} languages are more than {MAX_PANELS} panels",
            hint="choose some: table.where(language=[...])",
        )
    codes = short_codes(languages)
    panels = tuple(
        Numbers(title=codes[language], curves=_curves(table.where(language=language)))
        for language in languages
    )
    note = ["held-out text", f"{len(panels[0].curves[0].t)} points"]
    if any(np.isfinite(curve.low).any() for panel in panels for curve in panel.curves):
        note.append("band: 95 % interval over documents")
    made = "Loss along the merge path"
    return Numbers(
        _caption,
        panels=panels,
        ends=(str(firsts[0]), str(seconds[0])),
        title=made,
        note=tuple(note),
    )


def _curves(table: Table) -> tuple[Numbers, ...]:
    curves = []
    for alignment in table.unique("alignment"):
        mine = table.where(alignment=alignment)
        path, top = mine.where(metric="bits_per_byte"), mine.where(metric="barrier")
        order = np.argsort(path.column("t"), kind="stable")
        names = ("t", "value", "ci_low", "ci_high")
        t, value, low, high = (path.column(name)[order] for name in names)
        label, role = PATHS.get(alignment, (alignment, "other"))
        barrier, at = float(top.column("value")[0]), float(top.column("t")[0])
        curves.append(Numbers(
            label=label, role=role, t=t, value=value, low=low, high=high, barrier=barrier, at=at
        ))  # fmt: skip
    return tuple(curves)


def draw_barrier(
    info: Numbers,
    *,
    ax: Where = None,
    size: Size = "wide",
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """One frame per language, a double arrow at its highest barrier."""
    count = len(info.panels)
    columns = fig.columns_of(count, size)
    room = width_of(size) / columns
    height = -(-count // columns) * min(max(room * 0.85, 2.3), 3.2)
    roles = {curve.label: curve.role for panel in info.panels for curve in panel.curves}
    found = dict(zip(roles, looks(list(roles.values())), strict=True))
    lines = {label: line_marker(look, 3.2, linewidth=1.4) for label, look in found.items()}
    key = fig.key_of(lines | {"chord": _CHORD})
    axes = fig.frames(info, ax, count, columns, size, height, key=key, sharex=True)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, found)
        _name_ends(frame, info.ends, narrow=columns > 1)
        if limits is not None:
            frame.set_ylim(*limits)
        fig.title_panel(frame, panel.title, room)
    fig.name_axes(axes, "interpolation t", "held-out bits per byte", height)
    return fig.finish(axes)


_CHORD: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (3.5, 2))}


def _draw_panel(ax: Axes, panel: Numbers, found: dict[str, Look]) -> None:
    ax.grid(visible=True, axis="y")
    for curve in panel.curves:
        look = found[curve.label]
        if np.isfinite(curve.low).any():
            ax.fill_between(
                curve.t, curve.low, curve.high, color=look.fill, alpha=0.18, linewidth=0
            )
        ax.plot(
            curve.t, curve.value, label=curve.label, zorder=3,
            **line_marker(look, 3.2, linewidth=1.4),
        )  # fmt: skip
    naive = panel.curves[0].value
    ax.plot([0, 1], [float(naive[0]), float(naive[-1])], zorder=2, label="chord", **_CHORD)
    _leave_room(ax, panel)
    _mark_barriers(ax, panel, found)


def _leave_room(ax: Axes, panel: Numbers) -> None:
    """Room above for the number of each path's barrier."""
    values = np.concatenate([np.r_[c.value, c.low, c.high] for c in panel.curves])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = high - low or max(abs(high), 1.0) * 0.1
    ax.set_ylim(low - 0.06 * span, high + (0.16 + 0.1 * len(panel.curves)) * span)
    ax.set_xlim(-0.04, 1.04)


def _mark_barriers(ax: Axes, panel: Numbers, found: dict[str, Look]) -> None:
    """A double arrow from the chord to the highest path, and all numbers with their unit."""
    highest = max(panel.curves, key=lambda curve: curve.barrier)
    if highest.barrier >= _LEAST_ARROW:
        foot = float((1 - highest.at) * highest.value[0] + highest.at * highest.value[-1])
        arrow = {
            "arrowstyle": "<->", "color": GREY, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0,
            "mutation_scale": 9,
        }  # fmt: skip
        top = foot + highest.barrier
        ax.annotate("", (highest.at, top), (highest.at, foot), arrowprops=arrow, zorder=4)
    for i, curve in enumerate(panel.curves):
        colour = found[curve.label].text if len(panel.curves) > 1 else LABEL
        ax.text(
            0.5, 0.985 - 0.085 * i, f"barrier {number(curve.barrier)} bits/byte",
            transform=ax.transAxes, ha="center", va="top", fontsize=7.5, color=colour,
        )  # fmt: skip


def _name_ends(ax: Axes, ends: tuple[str, str], *, narrow: bool) -> None:
    first, second = (wrapped(name, 10 if narrow else 16) for name in ends)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], [f"A\n{first}", "¼", "½", "¾", f"B\n{second}"])
    ax.tick_params(labelbottom=True)


BARRIER = Figure("barrier", "barrier", barrier_info, draw_barrier)
