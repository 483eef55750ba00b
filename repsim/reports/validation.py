"""The report of a predictor's validation: how good its forecasts are, and on what that rests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.formatting import number
from repsim.reports.blocks import (
    Block,
    Details,
    Entries,
    Entry,
    Page,
    Section,
    Text,
    said_of,
    software,
)
from repsim.reports.glossary import definitions, note
from repsim.reports.page import write_page
from repsim.reports.validation_figures import validation_figures
from repsim.reports.validation_findings import headline, validation_findings
from repsim.reports.validation_rows import Reported, Validation, verdicts
from repsim.reports.validation_tables import goal_table, validation_tables


def write_validation_report(
    report: Reported,
    folder: str | Path,
    *,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a validation into a folder."""
    return write_page(validation_page(Validation(report, labels), environment or {}), folder)


def validation_page(found: Validation, environment: Mapping[str, Any]) -> Page:
    """The report of a validation, as blocks."""
    info = found.info
    count, stored = len(info["splits"]), info.get("stored")
    lead = [f"{info['merges']:,} merges of {info['models']} models (copies and near copies "
            f"counted once) in {info['groups']} groups of parents",
            f"features at hand: {info['predictor']}",
            f"forecast by {stored} as it is" if stored else f"{count} splits",
            headline(found)]  # fmt: skip
    _, said = said_of(validation_findings(found))
    goals, about = goal_table(found), note("goals", predictor=info["predictor"])
    judged = [Entry(f"{row['hypothesis']}. {row['claim']}", row["sentence"], row["verdict"],
                    source=f"n = {row['n']}") for row in verdicts(found)]  # fmt: skip
    return Page(
        "How good are forecasts of merges?" if found.outcome == "retention" else
        f"How good are forecasts of the {found.outcome} by merges?",
        [
            Section("Goals", [goals, about] if goals.rows else []),
            Section("What was found", said),
            Section("Hypotheses", [note("hypotheses"), Entries(judged)] if judged else []),
            Section("Figures", validation_figures(found)),
            Section("Tables", [*validation_tables(found), note("validation tables")]),
            Section("How it was tested", [definitions("validation", draws=info["draws"])]),
            Section("Where it comes from", _provenance(found, environment)),
        ],
        kicker="repsim · validation of forecasts",
        lead=" · ".join(filter(None, lead)),
        beside={f"all-{name}": table for name, table in found.tables.items() if len(table)},
        facts={"info": dict(info), "environment": dict(environment)},
    )  # fmt: skip


def _provenance(found: Validation, environment: Mapping[str, Any]) -> list[Block]:
    info = found.info
    blocks: list[Block] = [
        Text(
            f"Regressor: {info['regressor']}. Features at hand: {info['predictor']}. Seed "
            f"{info['seed']}, {info['blocks']} blocks of models, {info['rows']:,} rows of evidence."
        )
    ]
    if "clipped" in info:
        blocks.append(Text(
            f"{100 * info['clipped']:.0f} % of outcomes are −1 or worse; they count as −1. Merges "
            f"come from {info['origins']} runs that began from scratch, in {info['histories']} "
            "combinations: so many units stand behind the intervals, not as many as there are rows."
        ))  # fmt: skip
    difference, rows = info.get("alike", (None, 0))
    if rows:
        blocks.append(Text(
            f"Merges of one study that were made alike (method, parameters, what parents state of "
            f"their training), by other parents, differ from their mean by {number(difference)} on "
            f"average ({rows:,} rows): so much is open to one who knows everything but the parents."
        ))  # fmt: skip
    features = [found.label(name) for name in info.get("features", [])]
    if features:
        blocks.append(Details(f"{len(features)} features", [Text(" · ".join(features))]))
    return [*blocks, *software(environment)]
