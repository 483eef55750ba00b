"""How much memory a unit of a sweep takes at most, and a refusal where the machine has less.

From shapes: layers as stored, centred and without covariates, and for its most demanding measure
bases, tiles or matrices over pairs of rows, of which a null by shuffles holds whole ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from repsim.core import Measure, ResourceError, Rung
from repsim.core.machine import memory_left
from repsim.measures.algebra import TEMPORARY_NUMBERS
from repsim.measures.distance_grids import COLLECTED
from repsim.measures.layer_blocks import OPEN_BYTES, open_bytes
from repsim.measures.limits import held_bytes, share
from repsim.measures.pair_matrices import CHUNK_BYTES
from repsim.measures.pair_tiles import COLUMNS, KEPT_BYTES, ROWS
from repsim.measures.statistics import Statistics

#: Up to so many rows everything is computed in float64.
FLOAT64_ROWS = 1000


def is_paged(n: int, widths: Sequence[int]) -> bool:
    """Whether the float32 layers of both sides, and their centered rows, are more than is held."""
    return 8 * n * sum(widths) > held_bytes()


def unit_bytes(
    n: int,
    widths: Sequence[int],
    measures: Sequence[Measure],
    statistics: Statistics,
    *,
    documents: bool = False,
) -> tuple[int, str]:
    """Bytes that a unit takes at most, and the measure that takes them."""
    sizes = _Sizes(n, widths, 8 if n <= FLOAT64_ROWS else 4, statistics)
    needs = {m.name: sizes.rows(m) + sizes.beside(m, documents=documents) for m in measures}
    most = max(needs, key=lambda name: needs[name])
    return needs[most], most


class _Sizes(NamedTuple):
    """Shape and precision of a unit's layers, and the statistics that are wanted of them."""

    n: int
    widths: Sequence[int]
    number: int  # bytes
    statistics: Statistics

    def rows(self, measure: Measure) -> int:
        """Layers, opened ones if they are paged, and what one of them takes while it is read."""
        n, widths, number, statistics = self
        # Rows without covariates in float64; bases and points for neighbours twice more.
        reading = (24 if measure.rung in (Rung.L3, Rung.L4) else 16) * n * max(widths)
        derived = statistics.left_out(measure) > 0 and not _has_closed_form(measure)
        if is_paged(n, widths):
            opened = sum(open_bytes(measure, n, d, number) for d in widths)
            return reading + min(opened, share(OPEN_BYTES)) * (1 + derived)
        free = 8 + number if statistics.covariates else 0
        return reading + n * sum(widths) * (4 + number + free + derived * (4 + number))

    def beside(self, measure: Measure, *, documents: bool) -> int:
        """What is computed from all layers at once, beside their rows."""
        n, widths, number, statistics = self
        pairs = n * n
        tiles = len(widths) * ROWS * COLUMNS * number
        value = measure.holds_pairs * pairs * number
        if measure.rung is Rung.L3 and not is_paged(n, widths):
            value += 8 * n * sum(widths)  # an orthonormal basis of every layer stays
        elif measure.rung is Rung.L4:
            value += 4 * min(pairs, share(TEMPORARY_NUMBERS))
        elif measure.matrix is not None:
            value += 2 * tiles + min(share(KEPT_BYTES), len(widths) * pairs // 2 * number)
            value += len(widths) * min(pairs // 2, COLLECTED) * number
        null = 0
        drawn = measure.by_document if documents else measure.moments
        if statistics.shuffles(measure) and measure.matrix is not None and drawn is None:
            at_once = min(max(1, share(CHUNK_BYTES) // (4 * pairs)), len(widths))
            null = pairs * (12 * at_once + 8 * number)
        # Replicates and their parts by row, of all pairs of layers.
        closed = statistics.left_out(measure) > 0 and _has_closed_form(measure)
        return max(value, null) + closed * 32 * n * (len(widths) // 2) ** 2


def _has_closed_form(measure: Measure) -> bool:
    return measure.left_out is not None or measure.by_row is not None


def require_memory(
    n: int,
    widths: Sequence[int],
    measures: Sequence[Measure],
    statistics: Statistics,
    *,
    documents: bool = False,
) -> int:
    """Bytes that a unit takes; a ResourceError with both numbers where the machine has fewer."""
    needed, most = unit_bytes(n, widths, measures, statistics, documents=documents)
    left = memory_left()
    if needed <= left:
        return needed
    plain = unit_bytes(n, widths, measures, Statistics.off())[0]
    less = f"values alone take {plain / 1e9:.1f} GB: --permutations 0 (permutations=0), " * (
        plain <= left
    )
    raise ResourceError(
        f"'{most}' at {n:,} rows and {len(widths)} layers takes about {needed / 1e9:.1f} GB of "
        f"memory, {left / 1e9:.1f} GB are left",
        hint=f"{less}fewer sentences: --limit, or leave out '{most}'",
    )
