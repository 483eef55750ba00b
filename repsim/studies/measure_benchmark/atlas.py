"""The tests on the tables of an atlas: no model is read, and only its measures are judged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas, split_parents
from repsim.measures import get_measure
from repsim.mergeability.features.catalogue import LADDER, SECTIONS
from repsim.studies.measure_benchmark.comparisons import (
    Comparison,
    Known,
    Level,
    Pair,
    comparisons,
    outcome,
    rows_of,
)

#: Sections of the depth that hold blocks; the embedding is no layer of the tests.
DEPTHS = tuple(section for section in SECTIONS if section != "embed")
#: Arms whose pairs differ in what they share: forks of one trunk, and independent seeds.
ARMS = ("A", "B")


class _Merge(NamedTuple):
    level: Level
    arm: str
    worst: float


def atlas_rows(atlas: Atlas, name: str) -> list[dict[str, Any]]:
    """Tests of seeds, forks and merging from calibrated similarities of an atlas."""
    merges, models = _merges(atlas), _models(atlas)
    values = _values(atlas)
    wanted = [*_seeds(models, merges), *_forks(models, merges), *_merging(merges, values)]
    rows: list[dict[str, Any]] = []
    for measure in map(get_measure, LADDER):
        # Calibrated values are similarities whatever the measure.
        similarity = get_measure("cka")
        found: dict[tuple[str, str, str, int], list[float]] = {}
        for comparison in wanted:
            for depth, section in enumerate(DEPTHS):
                feature = f"{measure.name}_{section}"
                near, far = (
                    values.get((feature, comparison.language, pair))
                    for pair in (comparison.near, comparison.far)
                )
                if near is not None and far is not None:
                    key = (comparison.test, comparison.unit, comparison.language, depth)
                    found.setdefault(key, []).append(outcome(near, far, similarity))
        rows += [{**row, "source": name} for row in rows_of(found, measure)]
    return rows


def _ordered(parents: str) -> Pair | None:
    names = sorted(split_parents(parents))
    return (names[0], names[1]) if len(names) == 2 else None


def _merges(atlas: Atlas) -> dict[Pair, _Merge]:
    """Pairs without a planted outcome, with what became of their plain average."""
    plain = atlas.merges.where(method="linear", alignment="none", k=2)
    found = {}
    for row in plain.rows():
        pair = _ordered(row["parents"])
        if pair and not row["control"] and row["fork_fraction"] is not None:
            level = (float(row["shared_init"]), round(float(row["fork_fraction"]), 2))
            found[pair] = _Merge(level, row["arm"], float(row["worst_retention"]))
    return found


def _models(atlas: Atlas) -> dict[str, Known]:
    return {
        row["model"]: Known(
            row["model"],
            frozenset((row["trained_on"] or "").split("+")),
            frozenset((row["history"] or "").split("+")),
        )
        for row in atlas.models.rows()
    }


def _values(atlas: Atlas) -> dict[tuple[str, str, Pair], float]:
    """Calibrated similarity by feature, language and pair; under language "" the mean of them."""
    features = [f"{measure}_{section}" for measure in LADDER for section in DEPTHS]
    found: dict[tuple[str, str, Pair], float] = {}
    means: dict[tuple[str, str, Pair], list[float]] = {}
    for row in atlas.features.where(tier="T2", feature=features).rows():
        pair = _ordered(row["parents"])
        if pair and row["value"] is not None:
            found[row["feature"], row["language"] or "", pair] = float(row["value"])
            means.setdefault((row["feature"], "", pair), []).append(float(row["value"]))
    return found | {key: float(np.mean(list(of))) for key, of in means.items()}


def _seeds(models: dict[str, Known], merges: dict[Pair, _Merge]) -> Iterator[Comparison]:
    """The comparisons of seeds among pairs that were measured."""

    def level(a: str, b: str) -> Level | None:
        merge = merges.get((min(a, b), max(a, b)))
        return merge.level if merge else None

    named = sorted({name for pair in merges for name in pair})
    languages = sorted({language for name in named for language in models[name].languages})
    for found in comparisons([models[name] for name in named], level, languages):
        if found.test == "seeds":
            near, far = ((min(pair), max(pair)) for pair in (found.near, found.far))
            yield found._replace(test="atlas_seeds", near=near, far=far)


def _forks(models: dict[str, Known], merges: dict[Pair, _Merge]) -> Iterator[Comparison]:
    """Pairs of the same two languages: the one that shares more must be more alike."""
    groups: dict[tuple[frozenset[str], frozenset[str]], list[Pair]] = {}
    for pair, merge in merges.items():
        first, second = sorted((models[name].languages for name in pair), key=sorted)
        if merge.arm in ARMS and len(first) == len(second) == 1 and first != second:
            groups.setdefault((first, second), []).append(pair)
    for (first, second), pairs in groups.items():
        languages = sorted(first | second)
        for far, near in itertools.permutations(pairs, 2):
            if merges[near].level > merges[far].level:
                for language in languages:
                    yield Comparison("atlas_forks", " + ".join(languages), language, near, far)


def _merging(merges: dict[Pair, _Merge], values: Any) -> Iterator[Comparison]:
    """A pair that survives must be more alike, over its languages, than one that collapses."""
    for near, survivor in merges.items():
        for far, other in merges.items():
            if survivor.worst >= COLLAPSE > other.worst:
                yield Comparison("atlas_merging", " + ".join(near), "", near, far)
