"""Figures as files: whole or not there, and the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.aside import written_aside
from repsim.core.errors import unknown_name
from repsim.plots.appearance import style
from repsim.plots.drawing.dark import following_the_reader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Format -> metadata that would make two files of one figure differ, switched off.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save_figure(
    figure: Figure,
    path_stem: str | Path,
    formats: Sequence[str] = ("png", "svg"),
    *,
    dpi: float = 200,
) -> list[Path]:
    """Write a figure in one or more formats; an SVG turns dark where its reader's page is.

    Args:
        figure: What a plot function returned.
        path_stem: Path without suffix; a dot in its name is kept.
        formats: Out of "png", "svg", "pdf"; the paths come back in this order.
        dpi: Resolution of PNG files.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> [p.name for p in save_figure(Figure(), tempfile.mkdtemp() + "/a", ("svg",))]
        ['a.svg']
    """
    for name in formats:
        if name not in METADATA:
            raise unknown_name("figure format", name, METADATA)
    stem = Path(path_stem)
    written = []
    for name in formats:
        path = stem.with_name(f"{stem.name}.{name}")
        with style(), written_aside(path) as aside:
            _write(figure, aside, name, dpi)
        written.append(path)
    return written


def _write(figure: Figure, path: Path, name: str, dpi: float) -> None:
    """One file; PNG and SVG by their canvas, since `savefig` draws everything twice."""
    if name == "pdf":
        figure.savefig(path, format=name, dpi=dpi, metadata=METADATA[name])
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas, before = figure.canvas, figure.dpi
    try:
        figure.dpi = dpi
        if name == "png":
            FigureCanvasAgg(figure).print_png(path, metadata=METADATA[name])
            return
        with path.open("w", encoding="utf-8") as file:
            text = io.StringIO()
            FigureCanvasSVG(figure).print_svg(text, metadata=METADATA[name])
            file.write(following_the_reader(text.getvalue()))
    finally:
        figure.dpi = before
        figure.set_canvas(canvas)
