"""Build the report of a study: one page that renders its atlas, and beside it all that is in it.

`report.html` is a single file: it opens from disk, needs no network and no JavaScript, prints, and
stays under 3 MB. `report.md`, `tables/` and `figures/` hold the same for papers and programs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.atlas import Atlas
from repsim.core.files import write_json, write_text
from repsim.reports.page import Prepared, Wanted, draw_pictures, filled, write_page
from repsim.reports.study_claims import SOURCE, claims
from repsim.reports.study_findings import further_findings
from repsim.reports.study_limits import limits
from repsim.reports.study_tables import study_tables
from repsim.reports.table import ReportTable, cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Kind of figure -> heading, and whether the page holds it as SVG (curves) or PNG (many points).
FIGURES: dict[str, tuple[str, bool]] = {
    "strength": ("Monolingual, mixed and merged models in each language", True),
    "methods": ("Collapse by method, origin and number of parents", True),
    "combinations": ("Which pairs of languages survive", True),
    "forks": ("Where merging begins to live", True),
    "depth": ("Similarity of pairs that live and of pairs that collapse, by depth", False),
    "plane": ("The invariance ladder", False),
    "alignment": ("What alignment rescues", False),
    "paths": ("The barrier between two parents", False),
    "distance": ("Distance of weights, inside shared initial weights", False),
    "controls": ("Controls with known answers", True),
}


def write_study_report(atlas: Atlas, folder: str | Path) -> Path:
    """Write the report of an atlas into a folder.

    Args:
        atlas: What a study found; it may be incomplete, and what it lacks is named.
        folder: Where to write; made if missing.

    Returns:
        Path of `report.html`.

    Raises:
        UsageError: The atlas holds no merge with a defined outcome.

    Example:
        >>> write_study_report.__name__  # see `repsim study report DIR`
        'write_study_report'
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    found = [dataclasses.asdict(claim) for claim in claims(atlas)]
    tables = study_tables(atlas)
    for table in tables:
        table.write(target / "tables")
    pictures, missing = draw_pictures(study_figures(atlas), target / "figures")
    content = {
        "title": f"Study “{atlas.info.get('study', {}).get('name', 'unnamed')}”",
        "source": SOURCE,
        "claims": found,
        "findings": further_findings(atlas),
        "limits": limits(atlas),
        "missing": missing,
        **_provenance(atlas),
    }
    write_json(target / "report.json", content)
    shown = {**content, "pictures": pictures, "tables": tables, "cell": cell,
             "visible": _visible_rows(tables)}  # fmt: skip
    write_text(target / "report.md", filled("study.md.j2", shown, escape=False))
    return write_page(target / "report.html", "study.html.j2", shown)


def study_figures(atlas: Atlas) -> list[Wanted]:
    """Every figure of a study, in the order of the page.

    Args:
        atlas: What a study found.
    """
    import repsim.plots.study as figures

    def make(kind: str) -> tuple[Prepared, Figure]:
        return getattr(figures, f"prepare_{kind}")(atlas), getattr(figures, f"plot_{kind}")(atlas)

    return [
        Wanted(kind, title, vector, functools.partial(make, kind))
        for kind, (title, vector) in FIGURES.items()
    ]


def _visible_rows(tables: list[ReportTable]) -> dict[str, int]:
    """How many rows of a table the page shows before it is opened: all of short ones."""
    return {table.name: len(table.rows) if len(table.rows) <= 16 else 0 for table in tables}


def _provenance(atlas: Atlas) -> dict[str, Any]:
    """What the study was, and on what it rests."""
    info = atlas.info
    models = {row["model"]: row for row in atlas.models.rows()}
    seconds = [value for value in atlas.merges.column("seconds") if not math.isnan(value)]
    merges = len(atlas.merges.unique("merge"))
    arms = {
        arm: sum(row["arm"] == arm for row in models.values())
        for arm in sorted({row["arm"] for row in models.values()})
    }
    tiers: dict[str, float] = {}
    for row in atlas.costs.rows():
        tiers[row["tier"]] = tiers.get(row["tier"], 0.0) + (row["seconds"] or 0.0)
    return {
        "models": len(models),
        "merges": merges,
        "groups": len(atlas.merges.unique("parents")),
        "measured": len(atlas.features.unique("parents")),
        "arms": arms,
        "languages": atlas.info.get("study", {}).get("languages", []),
        "units": info.get("units"),
        "units_done": info.get("units_done"),
        "study": _as_yaml(info.get("study", {})),
        "study_hash": info.get("study_hash", ""),
        "environment": info.get("environment", {}),
        "merge_seconds": sum(seconds),
        "tier_seconds": tiers,
        "notes": info.get("notes", {}),
    }


def _as_yaml(study: Mapping[str, Any]) -> str:
    """The study as a file that can be run again; short lists on one line."""
    import yaml

    return yaml.safe_dump(
        dict(study), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
    )
