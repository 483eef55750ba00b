"""Names as figures show them: short, wrapped at natural breaks, never ambiguous."""

from __future__ import annotations

import re
from collections.abc import Sequence

from repsim.core.formatting import listed, number

__all__ = ["listed", "number", "short_codes", "shortened", "wrapped"]


def short_codes(codes: Sequence[str]) -> dict[str, str]:
    """Language codes without their script, wherever that leaves them distinct."""
    distinct = list(dict.fromkeys(codes))
    stems = [code.split("_")[0] for code in distinct]
    return {
        code: stem if stems.count(stem) == 1 else code
        for code, stem in zip(distinct, stems, strict=True)
    }


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the middle left out: both ends of a model name tell it apart."""
    if len(text) <= width:
        return text
    head = width // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Break a name after spaces, hyphens, slashes and underscores into at most `lines` lines."""
    pieces = re.findall(r"[^\s\-_/]*[\s\-_/]*", text)
    rows = [""]
    for i, piece in enumerate(pieces):
        if rows[-1] and len((rows[-1] + piece).rstrip()) > width and len(rows) < lines:
            rows.append("")
        rows[-1] += piece
        if len(rows) == lines:
            rows[-1] += "".join(pieces[i + 1 :])
            break
    return "\n".join(shortened(row.rstrip(), width) for row in rows)
