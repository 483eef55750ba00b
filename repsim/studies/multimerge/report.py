"""The report of the source paper's published pairs, as blocks."""

from __future__ import annotations

from pathlib import Path

from repsim.core.atlas import Atlas
from repsim.core.pair_table import PairTable
from repsim.core.provenance import environment
from repsim.plots.study.published import leverage_of
from repsim.reports.blocks import (
    ENDS,
    FigureBlock,
    Page,
    Row,
    Section,
    TableBlock,
    Text,
    declared,
    said_of,
    software,
)
from repsim.reports.glossary import definitions
from repsim.reports.page import write_page
from repsim.studies.multimerge.files import Multimerge, read_multimerge
from repsim.studies.multimerge.findings import CHOSEN, multimerge_findings, relations_of


def write_multimerge_report(
    source: str | Path | Multimerge, folder: str | Path, *, atlas: Atlas | None = None
) -> Path:
    """Write the report of the published pairs into a folder."""
    from repsim.studies.atlases import load_atlas

    study = source if isinstance(source, Multimerge) else read_multimerge(source)
    return write_page(multimerge_page(study, atlas or load_atlas("cpu_atlas")), folder)


def multimerge_page(study: Multimerge, atlas: Atlas) -> Page:
    """The report as blocks."""
    claims, rest = said_of(multimerge_findings(study, atlas))
    models = {name for pair in study.pairs.pairs for name in pair}
    options = {"blocks": study.blocks if len(study.blocks) else None, "atlas": atlas,
               "chosen": CHOSEN}  # fmt: skip
    figure = FigureBlock("pairs", "The pairs, and ours beside them", "published_pairs", study.pairs,
                         options)  # fmt: skip
    return Page(
        "The source paper's own pairs",
        [
            Section("Claims of the paper, held against its own pairs", [claims]),
            Section("What else they show", rest),
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


_RELATIONS = {
    "measure": ("string", "similarity"), "rho": ("float", "rank correlation with the loss", "rho"),
    **ENDS,
    "p": ("float", "p by relabelling models", "p"),
    "partial": ("float", "Pearson correlation after effects of languages", "r after languages"),
    **{f"partial_{end}": column for end, column in ENDS.items()},
    "partial_p": ("float", "p by relabelling models", "p"),
    "corrected": ("float", "p corrected for the number of similarities", "p, corrected"),
    "without": ("float", f"rank correlation without {CHOSEN}", f"rho without {CHOSEN}"),
}  # fmt: skip
_LEVERAGE = {
    "language": ("string", "language left out"), "pairs": ("int", "pairs left"),
    "rho": ("float", "rank correlation of CKA on English and loss", "rho"),
}  # fmt: skip
_PAIRS = {
    "pair": ("string", "pair"),
    "retention_a": ("float", "retention in the language of the first", "retention, first"),
    "retention_b": ("float", "in that of the second", "second"),
    "loss": ("float", "score of the merge minus that of the parents", "loss"),
    "cka_english": ("float", "CKA on English"),
    "cka_in_language": ("float", "CKA in-language"), "weight_cosine": ("float", "weight cosine"),
}  # fmt: skip


def _relation_table(pairs: PairTable) -> TableBlock:
    rows: list[Row] = []
    for one in relations_of(pairs):
        without = {lever.language: lever.without for lever in one["without"]}
        rank, part = one["rank"], one["partial"]
        rows.append({
            "measure": one["label"], "rho": rank.value, "low": rank.low, "high": rank.high,
            "p": rank.p, "partial": part.value, "partial_low": part.low, "partial_high": part.high,
            "partial_p": part.p, "corrected": one["corrected"], "without": without.get(CHOSEN),
        })  # fmt: skip
    return TableBlock("similarity", "Similarity and loss", declared(_RELATIONS, rows))


def _leverage_table(pairs: PairTable) -> TableBlock:
    found = leverage_of(pairs["cka_english"], pairs.loss, pairs.pairs)
    rows = [{"language": one.language, "pairs": one.pairs, "rho": one.without} for one in found]
    return TableBlock("leverage", "What one language does", declared(_LEVERAGE, rows))


def _pair_table(pairs: PairTable) -> TableBlock:
    both, loss = pairs.both, pairs.loss
    values = {name: pairs[name] for name in ("cka_english", "cka_in_language", "weight_cosine")}
    rows = [
        {"pair": f"{a} + {b}", "retention_a": both[n, 0], "retention_b": both[n, 1],
         "loss": loss[n], **{name: column[n] for name, column in values.items()}}
        for n, (a, b) in enumerate(pairs.pairs)
    ]  # fmt: skip
    return TableBlock("pairs", "Every pair", declared(_PAIRS, rows))
