"""Which figures the report of a comparison shows."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from repsim.core import SimilarityTable
from repsim.reports.comparison_findings import label_of, main_measure
from repsim.reports.page import Wanted

#: At most this many measures get layer curves of their own.
MAX_MEASURES = 8


def comparison_figures(table: SimilarityTable) -> list[Wanted]:
    """Every figure of a comparison, in the order of the page.

    Args:
        table: What was measured.
    """
    return [
        Wanted("-".join([kind, *(str(v).replace(" ", "-") for v in options.values())]), title,
               vector, functools.partial(_draw, table, kind, options))
        for title, kind, options, vector in _kinds(table)
    ]  # fmt: skip


def _kinds(table: SimilarityTable) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
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
    """The numbers of one figure, and its drawing."""
    from repsim.plots import FIGURES

    info = FIGURES[kind].info(table, **options)
    return info, FIGURES[kind].draw(info)
