"""The tables of a study's report, as rows for the page, CSV, Markdown and LaTeX."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from repsim.core.atlas import Atlas, split_parents
from repsim.core.errors import UsageError
from repsim.plots.study.outcomes import (
    ALIGNMENTS,
    METHODS,
    SETTINGS,
    Outcome,
    outcomes_of,
    settings_of,
)
from repsim.reports.blocks import Row, TableBlock, declared
from repsim.stats.bootstrap import estimate


def study_tables(atlas: Atlas) -> list[TableBlock]:
    """All tables that an atlas supports."""
    tables = []
    for make in (_outcomes, _gains, _strength, _crossings, _alignment, _barriers, _controls):
        try:
            tables.append(make(atlas))
        except UsageError:  # the atlas lacks what the table is about; its figure says so
            continue
    return tables


_ENDS = {"low": ("float", "lower end of the 95 % interval, bootstrap over models", "95 % low"),
         "high": ("float", "upper end", "95 % high")}  # fmt: skip
_RANGE = {"least": ("float", "least"), "most": ("float", "most")}
_OUTCOMES = {
    "setting": ("string", "origin of the parents"), "k": ("int", "number of parents", "k"),
    "method": ("string", "method"), "alignment": ("string", "parents"),
    "merges": ("int", "merges"), "median": ("float", "median retention"), **_ENDS, **_RANGE,
    "collapsed": ("int", "collapsed"), "useful": ("int", "useful"),
}  # fmt: skip
_GAINS = {
    "method": ("string", "method"), "parameters": ("string", "parameters"),
    "training": ("string", "how the parents were fine-tuned", "parents"),
    "merges": ("int", "merges"), "median": ("float", "median gain kept of the worse language",
                                            "median gain kept"), **_RANGE,
    "useful": ("int", "better than each parent alone", "useful"),
}  # fmt: skip
_STRENGTH = {
    "kind": ("string", "kind"), "language": ("string", "language"), "model": ("string", "model"),
    "bits": ("float", "bits per byte"), **_ENDS,
    "floor": ("float", "bits per byte of a unigram model", "unigrams"),
}  # fmt: skip
_CROSSINGS = {
    "recipe": ("string", "method"), "at": ("float", "share in common"), **_ENDS,
    "least": ("float", "least pair"), "most": ("float", "most"), "pairs": ("int", "pairs"),
    "coarse": ("int", "pairs whose steps are too coarse to tell", "other pairs"),
    "from": ("float", "lower end of what those leave open", "between"),
    "to": ("float", "upper end", "and"),
}  # fmt: skip
_ALIGNMENT = {
    "alignment": ("string", "alignment"), "setting": ("string", "origin of the parents"),
    "groups": ("int", "groups"), "collapsed": ("int", "collapse as they are"),
    "rescued": ("int", "rescued"), "lost": ("int", "lost"), "gain": ("float", "median gain"),
    **_ENDS,
}  # fmt: skip
_BARRIERS = {
    "setting": ("string", "origin of the parents"), "alignment": ("string", "parents"),
    "pairs": ("int", "pairs"), "barrier": ("float", "median barrier, bits per byte"), **_ENDS,
    **_RANGE,
}  # fmt: skip
_CONTROLS = {
    "control": ("string", "control"), "language": ("string", "language"),
    "expected": ("string", "expected"), "retention": ("float", "retention", "found"),
    "met": ("int", "1 if it came as theory says", "as expected", "yes or no"),
}  # fmt: skip


def _outcomes(atlas: Atlas) -> TableBlock:
    outcomes = outcomes_of(atlas)
    groups: dict[tuple[str, int, str, str], list[Outcome]] = {}
    for setting in settings_of(outcomes):
        for outcome in sorted((o for o in outcomes if o.setting == setting), key=lambda o: o.k):
            groups.setdefault((setting, outcome.k, *outcome.recipe), []).append(outcome)
    rows = [_summary(key, those) for key, those in groups.items()]
    title = "Outcomes by origin, number of parents and method"
    return TableBlock("outcomes", title, declared(_OUTCOMES, rows))


def _summary(key: tuple[str, int, str, str], those: Sequence[Outcome]) -> Row:
    worst = [outcome.worst for outcome in those]
    middle = estimate(worst, [outcome.parents for outcome in those])
    return {
        "setting": SETTINGS[key[0]], "k": key[1], "method": METHODS.get(key[2], key[2]),
        "alignment": ALIGNMENTS.get(key[3], key[3]), "merges": len(those),
        "median": middle.value, "low": middle.low, "high": middle.high,
        "least": min(worst), "most": max(worst),
        "collapsed": sum(outcome.collapsed for outcome in those),
        "useful": sum(outcome.useful for outcome in those),
    }  # fmt: skip


def _gains(atlas: Atlas) -> TableBlock:
    """Gain kept over the common base, by method and by how the parents were fine-tuned."""
    worst: dict[str, Mapping[str, Any]] = {}
    for row in atlas.merges.rows():
        if row["gain_kept"] is not None and not row["control"]:
            known = worst.setdefault(row["merge"], row)
            if row["gain_kept"] < known["gain_kept"]:
                worst[row["merge"]] = row
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for least in worst.values():
        told = {
            name.rpartition("/")[2].partition("-")[2] for name in split_parents(least["parents"])
        }
        method = METHODS.get(least["method"], least["method"])
        values = json.loads(least["parameters"] or "{}")
        parameters = ", ".join(f"{name} {value:g}" for name, value in values.items())
        groups.setdefault((method, parameters, " + ".join(sorted(told))), []).append(least)
    if not groups:
        raise UsageError("no merge has a base over which its parents gained")
    rows = [
        {"method": key[0], "parameters": key[1], "training": key[2], "merges": len(those),
         "median": statistics.median(kept), "least": min(kept), "most": max(kept),
         "useful": sum(bool(row["useful"]) for row in those)}
        for key, those in groups.items() for kept in [[row["gain_kept"] for row in those]]
    ]  # fmt: skip
    title = "What merges keep of the gain over their common base"
    return TableBlock("gains", title, declared(_GAINS, rows))


def _strength(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.strength import strength_info

    data = strength_info(atlas)
    rows = [
        {"kind": row.label, "language": language, "model": model.name, "bits": model.bits,
         "low": model.low, "high": model.high, "floor": data.floors[language]}
        for row in data.rows
        for language, models in row.models.items()
        for model in models
    ]  # fmt: skip
    return TableBlock("strength", "Strength in each language", declared(_STRENGTH, rows))


def _crossings(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.forks import forks_info

    rows = [
        {"recipe": found.recipe, "at": found.at.value, "low": found.at.low,
         "high": found.at.high, "least": found.least, "most": found.most,
         "pairs": found.pairs, "coarse": found.coarse, "from": found.bracket[0],
         "to": found.bracket[1]}
        for found in forks_info(atlas).crossings
    ]  # fmt: skip
    title = "Share of training in common from which on merges live"
    return TableBlock("crossings", title, declared(_CROSSINGS, rows))


def _alignment(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.alignment import alignment_info

    rows = [
        {"alignment": panel.alignment, "setting": SETTINGS[found.setting],
         "groups": found.gain.merges, "collapsed": found.collapsed, "rescued": found.rescued,
         "lost": found.lost, "gain": found.gain.value, "low": found.gain.low,
         "high": found.gain.high}
        for panel in alignment_info(atlas).panels
        for found in panel.settings
    ]  # fmt: skip
    return TableBlock("alignment", "What alignment changes", declared(_ALIGNMENT, rows))


def _barriers(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.paths import paths_info

    rows = [
        {"setting": SETTINGS[panel.setting], "alignment": group.label, "pairs": group.pairs,
         "barrier": group.barrier.value, "low": group.barrier.low,
         "high": group.barrier.high, "least": float(group.above.max(axis=1).min()),
         "most": float(group.above.max())}
        for panel in paths_info(atlas).panels
        for group in panel.groups
    ]  # fmt: skip
    title = "Barriers on the path between two parents"
    return TableBlock("barriers", title, declared(_BARRIERS, rows))


def _controls(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.controls import controls_info

    rows = [
        {"control": row.label, "language": point.language, "expected": row.expectation,
         "retention": point.retention, "met": int(point.met)}
        for row in controls_info(atlas).rows
        for point in row.points
    ]  # fmt: skip
    return TableBlock("controls", "Controls with known answers", declared(_CONTROLS, rows))
