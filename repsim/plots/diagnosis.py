"""A broken merge block by block: scale and similarity of its activations, and what comes back."""

from __future__ import annotations

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import GREY, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.names import number, short_codes
from repsim.plots.spec import Drawing, Figure, Numbers, Where

#: Reading of a table -> name of the panel, its y axis.
_PANELS = {
    "scale": ("Activation scale", "times the parents' mean"),
    "similarity": ("Similarity to parents", "debiased CKA"),
    "restored": ("Loss that comes back", "share, block of parent"),
}


def _caption(info: Numbers) -> str:
    worst = []
    for curves in info.panels.values():
        for curve in curves:
            at = int(curve.place[np.nanargmin(curve.value)])
            where = "the embedding" if at < 0 else f"block {at}"
            least = number(float(np.nanmin(curve.value)))
            worst.append(f"{curve.label} at {where} ({least})")
    return (
        f"A merge beside its parents on held-out text of {info.language}, block by block. Norm "
        "and variance are those of sentence vectors over the parents' mean, similarity is "
        "debiased CKA with each parent; the last panel is the share of the lost bits per byte "
        f"that returns with the parent's block. Least: {'; '.join(worst)}."
    )


def diagnosis_info(table: Table, *, language: str | None = None) -> Numbers:
    """Readings of a merge block by block, in one language."""
    kept = table.where(reading="retention")
    if language is None and len(kept):
        language = str(kept.column("language")[int(np.argmin(kept.column("value")))])
    mine = table.where(language=language or "")
    panels = {
        "scale": (*_curves(mine, "norm", "norm"), *_curves(mine, "variance", "variance")),
        "similarity": tuple(
            curve for parent in mine.where(reading="similarity").unique("parent")
            for curve in _curves(mine.where(parent=parent), "similarity", f"CKA with {parent}")
        ),
        "restored": _curves(mine, "restored", "restored"),
    }  # fmt: skip
    panels = {name: curves for name, curves in panels.items() if curves}
    if not panels or language is None:
        raise UsageError("the table holds no readings by block", hint="a whole merge has none")
    made = "Where a merge breaks, block by block"
    return Numbers(
        _caption,
        panels=panels,
        language=short_codes([language])[language],
        title=made,
        note=(language,),
    )


def _curves(table: Table, reading: str, label: str) -> tuple[Numbers, ...]:
    rows = [row for row in table.where(reading=reading).rows()
            if row["part"] == "embedding" or str(row["part"]).isdigit()]  # fmt: skip
    if reading == "restored":
        rows = [row for row in rows if row["part"] != "embedding"]
    if not rows:
        return ()
    found = sorted((-1 if row["part"] == "embedding" else int(row["part"]), row["value"])
                   for row in rows if row["value"] is not None)  # fmt: skip
    place, value = zip(*found, strict=True)
    return (Numbers(label=label, place=np.array(place), value=np.array(value, float)),)


def draw_diagnosis(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """One frame per kind of reading over the blocks."""
    count = len(info.panels)
    columns = fig.columns_of(count, size, wide=count)
    labels = list(dict.fromkeys(c.label for curves in info.panels.values() for c in curves))
    found = dict(zip(labels, looks(["series"] * len(labels)), strict=True))
    lines = {label: line_marker(look, 3.2, linewidth=1.4) for label, look in found.items()}
    room = width_of(size) / columns
    height = -(-count // columns) * min(max(room * 0.85, 2.2), 2.8)
    axes = fig.frames(info, ax, count, columns, size, height, key=fig.key_of(lines))
    for frame, (name, curves) in zip(axes, info.panels.items(), strict=True):
        frame.grid(visible=True, axis="y")
        for curve in curves:
            frame.plot(curve.place, curve.value, label=curve.label, **lines[curve.label])
        if name == "scale":
            frame.set_yscale("log")
        frame.axhline(0.0 if name == "restored" else 1.0, color=GREY, linewidth=0.8, zorder=1)
        frame.set(xlabel="after block (−1: embedding)", ylabel=_PANELS[name][1])
        fig.title_panel(frame, _PANELS[name][0], room)
    return fig.finish(axes)


DIAGNOSIS = Figure("diagnosis", "diagnosis", diagnosis_info, draw_diagnosis)
