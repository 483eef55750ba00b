"""The report of a study: what its atlas says, shows and rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.atlas import Atlas
from repsim.reports.blocks import (
    Block,
    Details,
    FigureBlock,
    Items,
    Page,
    Section,
    Text,
    said_of,
    software,
)
from repsim.reports.glossary import definitions, note
from repsim.reports.page import write_page
from repsim.studies.findings import study_findings
from repsim.studies.report_tables import study_tables

#: Kind of figure -> heading, in the order of the page.
FIGURES: dict[str, str] = {
    "strength": "Monolingual, mixed and merged models in each language",
    "methods": "Collapse by method, origin and number of parents",
    "combinations": "Which pairs of languages survive",
    "forks": "Where merges begin to survive",
    "depth": "Similarity of pairs that survive and of pairs that collapse, by depth",
    "plane": "The invariance ladder",
    "alignment": "What alignment rescues",
    "paths": "The barrier between two parents",
    "distance": "Distance of weights, inside shared initial weights",
    "controls": "Controls with known answers",
}


def write_study_report(atlas: Atlas, folder: str | Path) -> Path:
    """Write the report of an atlas into a folder."""
    return write_page(study_page(atlas), folder)


def study_page(atlas: Atlas) -> Page:
    """The report of an atlas, as blocks."""
    info = atlas.info
    study = info.get("study", {})
    counts = {
        "models": len(atlas.models.unique("model")),
        "merges": len(atlas.merges.unique("merge")),
        "groups": len(atlas.merges.unique("parents")),
        "measured": len(atlas.features.unique("parents")),
    }
    lead = (
        f"{counts['models']} models · {counts['merges']:,} merges of {counts['groups']} groups of "
        f"parents · {len(study.get('languages', ()))} languages"
    )
    lead += f" · {counts['measured']} groups measured" if counts["measured"] else ""
    claims, rest = said_of(study_findings(atlas))
    return Page(
        f"Study “{study.get('name', 'unnamed')}”",
        [
            Section("Findings of the source paper, held against this study",
                    [note("source paper"), claims]),
            Section("What else was found", rest),
            Section("Figures", study_figures(atlas)),
            Section("Tables", [*study_tables(atlas), note("study tables")]),
            Section("How it was measured", [definitions("study")]),
            Section("Where it comes from", _provenance(atlas)),
        ],
        kicker="repsim · study report",
        lead=lead,
        facts={**counts, "study": _as_yaml(study), "environment": info.get("environment", {})},
    )  # fmt: skip


def study_figures(atlas: Atlas) -> list[FigureBlock]:
    """Every figure of a study, in the order of the page."""
    return [FigureBlock(kind, title, f"atlas_{kind}", atlas) for kind, title in FIGURES.items()]


def _provenance(atlas: Atlas) -> list[Block]:
    """What the study was, and on what it rests."""
    info = atlas.info
    first = {row["model"]: row["arm"] for row in atlas.models.rows()}
    arms = [f"{arm} {list(first.values()).count(arm)}" for arm in sorted(set(first.values()))]
    seconds = [value for value in atlas.merges.column("seconds") if not math.isnan(value)]
    tiers: dict[str, float] = {}
    for row in atlas.costs.rows():
        tiers[row["tier"]] = tiers.get(row["tier"], 0.0) + (row["seconds"] or 0.0)
    spent = [f"Merging and scoring took {sum(seconds):.0f} s"]
    spent += [f"features of tier {tier} {value:.0f} s" for tier, value in tiers.items()]
    text = f"Models by the arm that made them first: {', '.join(arms)}. {'; '.join(spent)}."
    if info.get("units"):
        text += f" {info.get('units_done')} of {info['units']} units of work are done."
    blocks: list[Block] = [Text(text)]
    if notes := info.get("notes"):
        said = [f"{words} ({count})" for words, count in notes.items()]
        blocks.append(Details("Notes of the measurement", [Items(said, "note")]))
    hashed = f", hash {info['study_hash'][:12]}" if info.get("study_hash") else ""
    listing = Text(_as_yaml(info.get("study", {})), "listing")
    blocks.append(Details(f"The study file{hashed}", [listing]))
    return [*blocks, *software(info.get("environment", {}))]


def _as_yaml(study: Mapping[str, Any]) -> str:
    """The study as a file that can be run again; short lists on one line."""
    import yaml

    return yaml.safe_dump(
        dict(study), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
    )
