"""Loss along the straight path between two models, with the barrier of each language."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.plots.appearance import Size
from repsim.plots.names import number, short_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most panels that a figure has.
MAX_PANELS = 12
#: Alignment -> (label, role that decides colour and marker).
PATHS = {
    "none": ("naive", "null"),
    "permutation": ("permutation-aligned", "merged"),
    "orthogonal": ("rotation-aligned", "monolingual"),
}


@dataclasses.dataclass(frozen=True)
class PathCurve:
    """One path.

    Attributes:
        label: "naive" or how it was aligned.
        role: Role that decides colour and marker.
        t: `[k]` share of the second model, from 0 to 1.
        value: `[k]` bits per byte.
        low: `[k]` lower ends of the intervals, NaN where there are none.
        high: `[k]` upper ends.
        barrier: Bits per byte over the chord at the highest point.
        at: The t of that point.
    """

    label: str
    role: str
    t: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    barrier: float
    at: float

    def chord(self, t: float) -> float:
        """Height of the straight line between the ends."""
        return float((1 - t) * self.value[0] + t * self.value[-1])


@dataclasses.dataclass(frozen=True)
class BarrierPanel:
    """Paths in one language; the first is the naive one."""

    title: str
    curves: tuple[PathCurve, ...]


@dataclasses.dataclass(frozen=True)
class BarrierData:
    """Everything that the figure shows.

    Attributes:
        panels: One per language.
        ends: Names of the models at t = 0 and t = 1.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[BarrierPanel, ...]
    ends: tuple[str, str]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and every barrier."""
        said = []
        for panel in self.panels:
            numbers = [f"{number(curve.barrier)} {curve.label}" for curve in panel.curves]
            said.append(f"{panel.title}: {', '.join(numbers)}")
        return (
            f"Bits per byte on held-out text along the straight path from {self.ends[0]} (t = 0) "
            f"to {self.ends[1]} (t = 1). The barrier is the largest height over the dashed chord, "
            f"in bits per byte. {'; '.join(said)}."
        )


def prepare_barrier(table: Table, *, title: str | None = None) -> BarrierData:
    """Curves of a table of barriers, a panel per language.

    Args:
        table: What `repsim.evaluation.barrier` returned.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Nothing to draw, more than one pair of models, or too many languages.

    Example:
        >>> from repsim.testing.evaluation_tables import barrier_table
        >>> data = prepare_barrier(barrier_table())
        >>> [panel.title for panel in data.panels], data.panels[0].curves[0].label
        (['eng', 'deu'], 'naive')
    """
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
        BarrierPanel(codes[language], _curves(table.where(language=language)))
        for language in languages
    )
    note = ["held-out text", f"{len(panels[0].curves[0].t)} points"]
    if any(np.isfinite(curve.low).any() for panel in panels for curve in panel.curves):
        note.append("band: 95 % interval over documents")
    return BarrierData(
        panels=panels,
        ends=(str(firsts[0]), str(seconds[0])),
        title=title if title is not None else "Loss along the merge path",
        note=tuple(note),
    )


def _curves(table: Table) -> tuple[PathCurve, ...]:
    curves = []
    for alignment in table.unique("alignment"):
        mine = table.where(alignment=alignment)
        path, top = mine.where(metric="bits_per_byte"), mine.where(metric="barrier")
        order = np.argsort(path.column("t"), kind="stable")
        label, role = PATHS.get(alignment, (alignment, "other"))
        curves.append(
            PathCurve(
                label=label,
                role=role,
                t=path.column("t")[order],
                value=path.column("value")[order],
                low=path.column("ci_low")[order],
                high=path.column("ci_high")[order],
                barrier=float(top.column("value")[0]),
                at=float(top.column("t")[0]),
            )
        )
    return tuple(curves)


def plot_barrier(table: Table, *, size: Size = "wide", title: str | None = None) -> Figure:
    """Draw loss along the path; arguments as for `prepare_barrier`."""
    from repsim.plots.drawing.barrier import draw_barrier

    return draw_barrier(prepare_barrier(table, title=title), size=size)
