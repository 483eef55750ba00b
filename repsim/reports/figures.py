"""Which figures a report shows, drawn once and kept both as files and as text for the page."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repsim.core import SimilarityTable, UsageError
from repsim.reports.findings import label_of, main_measure

#: At most this many measures get layer curves of their own.
MAX_MEASURES = 8


@dataclasses.dataclass(frozen=True)
class Picture:
    """One figure of a report.

    Attributes:
        title: Heading in the page.
        caption: What, n, interval, how to read it; also the alternative text.
        paths: The files that were written, PNG first.
        data_uri: The picture itself for the single-file page: SVG for curves, PNG for heatmaps.
    """

    title: str
    caption: str
    paths: tuple[Path, ...]
    data_uri: str


def draw_figures(table: SimilarityTable, folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw every figure that the table supports and save it as PNG and SVG.

    Returns:
        The pictures, and for each kind that the table cannot fill (one language has no language
        matrix) a sentence that says why it is not there.
    """
    from repsim.plots import save_figure

    pictures, missing = [], []
    for title, kind, options, vector in _wanted(table):
        try:
            data, figure = _draw(table, kind, options)
        except UsageError as reason:
            missing.append(f"{title}: {reason.what}.")
            continue
        name = "-".join([kind, *(str(v).replace(" ", "-") for v in options.values())])
        paths = tuple(save_figure(figure, folder / name, ("png", "svg")))
        chosen = paths[1] if vector else paths[0]
        pictures.append(Picture(title, data.caption(), paths, _data_uri(chosen)))
    return pictures, missing


def _wanted(table: SimilarityTable) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """(title, kind, options, vector?) in the order of the page."""
    main = main_measure(table)
    pairings = table.unique("pairing")
    yield "The invariance ladder", "ladder", {}, True
    for pairing in pairings:
        title = f"{label_of(table, main)} by layer, {pairing}"
        yield title, "layers", {"measure": main, "pairing": pairing}, True
    if "same text" in pairings:
        yield f"{label_of(table, main)}, layer by layer", "heatmap", {"measure": main}, False
    if "parallel text" in pairings:
        yield f"{label_of(table, main)} between languages", "languages", {"measure": main}, False
    yield "Models and languages as a map", "space", {"measure": main}, True
    for measure in table.unique("measure")[:MAX_MEASURES]:
        if measure != main:
            for pairing in pairings:
                title = f"{label_of(table, measure)} by layer, {pairing}"
                yield title, "layers", {"measure": measure, "pairing": pairing}, True


def _draw(table: SimilarityTable, kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Prepared data and drawn figure of one kind."""
    import importlib

    module = importlib.import_module(f"repsim.plots.{kind}")
    data = getattr(module, f"prepare_{kind}")(table, **options)
    return data, getattr(table.plot, kind)(size="wide", **options)


def _data_uri(path: Path) -> str:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
