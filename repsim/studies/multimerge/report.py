"""The report of the source paper's published pairs, as blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from repsim.core.atlas import Atlas
from repsim.core.pair_table import PairTable
from repsim.core.provenance import environment
from repsim.plots.study.published import leverage_of
from repsim.reports.blocks import (
    Entries,
    Entry,
    FigureBlock,
    Items,
    Page,
    Row,
    Section,
    TableBlock,
    Text,
    software,
)
from repsim.reports.glossary import definitions
from repsim.reports.page import write_page
from repsim.studies.multimerge.files import Multimerge, read_multimerge
from repsim.studies.multimerge.findings import CHOSEN, multimerge_findings, relations_of


def write_multimerge_report(
    source: str | Path | Multimerge, folder: str | Path, *, atlas: Atlas | None = None
) -> Path:
    """Write the report of the published pairs into a folder.

    Args:
        source: A checkout of the paper's repository, the pairs as CSV, or what was read of them.
        folder: Where to write; made if missing.
        atlas: Ours, to stand beside them; the one that ships with the package if None.

    Returns:
        Path of `report.html`.

    Raises:
        InputError: A file is missing or damaged.
        UsageError: The pairs lack outcomes or similarities.
    """
    from repsim.studies.atlases import load_atlas

    study = source if isinstance(source, Multimerge) else read_multimerge(source)
    return write_page(multimerge_page(study, atlas or load_atlas("cpu_atlas")), folder)


def multimerge_page(study: Multimerge, atlas: Atlas) -> Page:
    """The report as blocks."""
    said = multimerge_findings(study, atlas)
    claims = [Entry(s.claim, s.text, s.verdict) for s in said if s.claim]
    results = [s.text for s in said if s.kind == "result" and not s.claim]
    limits = [s.text for s in said if s.kind == "warning"]
    models = {name for pair in study.pairs.pairs for name in pair}
    options = {"blocks": study.blocks if len(study.blocks) else None, "atlas": atlas,
               "chosen": CHOSEN}  # fmt: skip
    figure = FigureBlock("pairs", "The pairs, and ours beside them", "published_pairs", study.pairs,
                         options)  # fmt: skip
    return Page(
        "The source paper's own pairs",
        [
            Section("Claims of the paper, held against its own pairs", [Entries(claims)]),
            Section("What else they show", [Items(results), Items(limits, "warnings")]),
            Section("Figure", [figure]),
            Section("Tables", [_relation_table(study.pairs), _leverage_table(study.pairs),
                               _pair_table(study.pairs)]),
            Section("How it was computed", [definitions("published pairs")]),
            Section("Where it comes from", [
                Text(f"Numbers: {study.source} (On the Limits of Model Merging for Multilinguality "
                     "in Pre-Training, arXiv 2605.25846). They are not part of this package."),
                *software(environment()),
            ]),
        ],
        kicker="repsim · published pairs",
        lead=f"{len(study.pairs)} pairs of {len(models)} monolingual models, plain mean",
        facts={"source": study.source, "pairs": len(study.pairs), "models": sorted(models)},
    )  # fmt: skip


def _relation_table(pairs: PairTable) -> TableBlock:
    headings = {"measure": "similarity", "rho": "rho with the loss", "low": "95 % low",
                "high": "95 % high", "p": "p", "partial": "r after languages",
                "partial_low": "95 % low", "partial_high": "95 % high", "partial_p": "p",
                "corrected": "p, corrected", "without": f"rho without {CHOSEN}"}  # fmt: skip
    rows: list[Row] = []
    for one in relations_of(pairs):
        without = {lever.language: lever.without for lever in one["without"]}
        rank, part = one["rank"], one["partial"]
        numbers = {
            "rho": rank.value, "low": rank.low, "high": rank.high, "p": rank.p,
            "partial": part.value, "partial_low": part.low, "partial_high": part.high,
            "partial_p": part.p, "corrected": one["corrected"],
            "without": without.get(CHOSEN, math.nan),
        }  # fmt: skip
        rows.append({"measure": one["label"], **{k: _known(v) for k, v in numbers.items()}})
    return TableBlock("similarity", "Similarity and loss", headings, tuple(rows))


def _leverage_table(pairs: PairTable) -> TableBlock:
    found = leverage_of(pairs["cka_english"], pairs.loss, pairs.pairs)
    rows = tuple({"language": one.language, "pairs": one.pairs, "rho": _known(one.without)}
                 for one in found)  # fmt: skip
    headings = {"language": "language left out", "pairs": "pairs left",
                "rho": "rho of CKA on English and loss"}  # fmt: skip
    return TableBlock("leverage", "What one language does", headings, rows)


def _pair_table(pairs: PairTable) -> TableBlock:
    both = pairs.both
    shown: Sequence[str] = ("cka_english", "cka_in_language", "weight_cosine")
    values = {name: pairs[name] for name in shown}
    loss = pairs.loss
    rows = tuple(
        {"pair": f"{a} + {b}", "retention_a": _known(both[n, 0]), "retention_b": _known(both[n, 1]),
         "loss": _known(loss[n]), **{name: _known(values[name][n]) for name in shown}}
        for n, (a, b) in enumerate(pairs.pairs)
    )  # fmt: skip
    headings = {"pair": "pair", "retention_a": "retention, first", "retention_b": "second",
                "loss": "loss of score", "cka_english": "CKA on English",
                "cka_in_language": "CKA in-language", "weight_cosine": "weight cosine"}  # fmt: skip
    return TableBlock("pairs", "Every pair", headings, rows)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
