"""The tables of a study's report, as rows for the page, CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.plots.study.outcomes import (
    ALIGNMENTS,
    METHODS,
    SETTINGS,
    Outcome,
    outcomes_of,
    settings_of,
)
from repsim.reports.blocks import Row, TableBlock
from repsim.stats.bootstrap import estimate


def study_tables(atlas: Atlas) -> list[TableBlock]:
    """All tables that an atlas supports.

    Args:
        atlas: What a study found.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [table.name for table in study_tables(planted_atlas())]
        ['outcomes', 'strength', 'crossings', 'alignment', 'barriers', 'controls']
    """
    tables = []
    for make in (_outcomes, _strength, _crossings, _alignment, _barriers, _controls):
        try:
            tables.append(make(atlas))
        except UsageError:  # the atlas lacks what the table is about; its figure says so
            continue
    return tables


def _outcomes(atlas: Atlas) -> TableBlock:
    headings = {
        "setting": "origin of the parents", "k": "k", "method": "method", "alignment": "parents",
        "merges": "merges", "median": "median retention", "low": "95 % low", "high": "95 % high",
        "least": "least", "most": "most", "collapsed": "collapsed", "useful": "useful",
    }  # fmt: skip
    outcomes = outcomes_of(atlas)
    groups: dict[tuple[str, int, str, str], list[Outcome]] = {}
    for setting in settings_of(outcomes):
        for outcome in sorted((o for o in outcomes if o.setting == setting), key=lambda o: o.k):
            groups.setdefault((setting, outcome.k, *outcome.recipe), []).append(outcome)
    return TableBlock(
        "outcomes", "Outcomes by origin, number of parents and method", headings,
        tuple(_summary(key, those) for key, those in groups.items()),
    )  # fmt: skip


def _summary(key: tuple[str, int, str, str], those: Sequence[Outcome]) -> Row:
    worst = [outcome.worst for outcome in those]
    middle = estimate(worst, [outcome.parents for outcome in those])
    return {
        "setting": SETTINGS[key[0]], "k": key[1], "method": METHODS.get(key[2], key[2]),
        "alignment": ALIGNMENTS.get(key[3], key[3]), "merges": len(those),
        "median": middle.value, "low": _known(middle.low), "high": _known(middle.high),
        "least": min(worst), "most": max(worst),
        "collapsed": sum(outcome.collapsed for outcome in those),
        "useful": sum(outcome.useful for outcome in those),
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _strength(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.strength import strength_info

    data = strength_info(atlas)
    rows = [
        {"kind": row.label, "language": language, "model": model.name, "bits": model.bits,
         "low": _known(model.low), "high": _known(model.high), "floor": data.floors[language]}
        for row in data.rows
        for language, models in row.models.items()
        for model in models
    ]  # fmt: skip
    headings = {"kind": "kind", "language": "language", "model": "model", "bits": "bits per byte",
                "low": "95 % low", "high": "95 % high", "floor": "unigrams"}  # fmt: skip
    return TableBlock("strength", "Strength in each language", headings, tuple(rows))


def _crossings(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.forks import forks_info

    rows = [
        {"recipe": found.recipe, "at": found.at.value, "low": _known(found.at.low),
         "high": _known(found.at.high), "least": _known(found.least), "most": _known(found.most),
         "pairs": found.pairs, "coarse": found.coarse, "from": _known(found.bracket[0]),
         "to": _known(found.bracket[1])}
        for found in forks_info(atlas).crossings
    ]  # fmt: skip
    headings = {"recipe": "method", "at": "share in common", "low": "95 % low",
                "high": "95 % high", "least": "least pair", "most": "most", "pairs": "pairs",
                "coarse": "other pairs", "from": "between", "to": "and"}  # fmt: skip
    title = "Share of training in common from which on merges live"
    return TableBlock("crossings", title, headings, tuple(rows))


def _alignment(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.alignment import alignment_info

    headings = {"alignment": "alignment", "setting": "origin of the parents", "groups": "groups",
                "collapsed": "collapse as they are", "rescued": "rescued", "lost": "lost",
                "gain": "median gain", "low": "95 % low", "high": "95 % high"}  # fmt: skip
    rows = [
        {"alignment": panel.alignment, "setting": SETTINGS[found.setting],
         "groups": found.gain.merges, "collapsed": found.collapsed, "rescued": found.rescued,
         "lost": found.lost, "gain": found.gain.value, "low": _known(found.gain.low),
         "high": _known(found.gain.high)}
        for panel in alignment_info(atlas).panels
        for found in panel.settings
    ]  # fmt: skip
    return TableBlock("alignment", "What alignment changes", headings, tuple(rows))


def _barriers(atlas: Atlas) -> TableBlock:
    from repsim.plots.study.paths import paths_info

    headings = {"setting": "origin of the parents", "alignment": "parents", "pairs": "pairs",
                "barrier": "median barrier, bits per byte", "low": "95 % low",
                "high": "95 % high", "least": "least", "most": "most"}  # fmt: skip
    rows = [
        {"setting": SETTINGS[panel.setting], "alignment": group.label, "pairs": group.pairs,
         "barrier": group.barrier.value, "low": _known(group.barrier.low),
         "high": _known(group.barrier.high), "least": float(group.above.max(axis=1).min()),
         "most": float(group.above.max())}
        for panel in paths_info(atlas).panels
        for group in panel.groups
    ]  # fmt: skip
    return TableBlock("barriers", "Barriers on the path between two parents", headings, tuple(rows))


def _controls(atlas: Atlas) -> TableBlock:
    headings = {"control": "control", "language": "language", "expected": "expected",
                "retention": "found", "met": "as expected"}  # fmt: skip
    return TableBlock("controls", "Controls with known answers", headings,
                      tuple(_control_rows(atlas)))  # fmt: skip


def _control_rows(atlas: Atlas) -> Iterator[Row]:
    from repsim.plots.study.controls import controls_info

    for row in controls_info(atlas).rows:
        for point in row.points:
            yield {
                "control": row.label, "language": point.language, "expected": row.expectation,
                "retention": point.retention, "met": "yes" if point.met else "no",
            }  # fmt: skip
