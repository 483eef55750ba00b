"""The invariance ladder between parents: the same text, read by each of them, rung by rung.

High similarity that is blind to coordinates (L2) beside low similarity that is not (L0) is a
mismatch of coordinates: the average is destroyed, an aligned one may live. Low L2 is a mismatch of
content, which nothing rescues. Scores are the *calibrated* ones: 0 is what one shuffle of the
sentences in twenty reaches, 1 is identical activations, whatever the measure and the width.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core import Activations
from repsim.mergeability.features.base import FeatureSpec, FeatureValue, declare

if TYPE_CHECKING:
    from repsim.measures import FeatureCache, Statistics, SweepUnit

#: Measure -> its rung and how it is called in definitions.
MEASURES: dict[str, tuple[str, str]] = {
    "unit_correlation": ("L0", "unit-wise correlation"),
    "identity_match": ("L0", "share of units matched with themselves"),
    "permutation": ("L1", "permutation Procrustes similarity"),
    "cka": ("L2", "debiased CKA"),
    "procrustes": ("L2", "angular Procrustes, turned into a similarity"),
    "svcca": ("L3", "SVCCA"),
    "mutual_knn": ("L4", "mutual k-NN"),
}
#: Measures that are defined only where unit i of one model can be unit i of the other.
UNIT_BY_UNIT = ("unit_correlation", "identity_match", "permutation")
#: What is compared between the hidden units of the feed-forward parts. Their order can differ while
#: that of the residual stream does not: the average is destroyed, and the stream shows nothing.
HIDDEN = ("unit_correlation", "cka")
HIDDEN_POINT = "mlp_hidden"
#: What is compared across translations, where units mean nothing: blind to coordinates, and cheap.
ACROSS = ("cka", "mutual_knn")
#: Gap -> the measures whose calibrated scores are subtracted, and what it says.
GAPS: dict[str, tuple[str, str, str]] = {
    "gap_l2_l0": ("cka", "unit_correlation", "same geometry in other coordinates"),
    "gap_l1_l0": ("permutation", "unit_correlation", "what re-ordering the units would bring"),
    "gap_l3_l2": ("svcca", "cka", "same information in another geometry"),
}
#: Parts of the depth: the embedding, and the blocks by thirds.
SECTIONS = ("embed", "early", "middle", "late")
_CENTRES = {"early": 1 / 6, "middle": 1 / 2, "late": 5 / 6}
#: Points of the depth that are compared; deeper models are thinned out to so many.
MOST_LAYERS = 13

LADDER_SOURCE = "Williams et al. 2021 (arXiv 2110.14739) for the nesting of the rungs"
CALIBRATION = "calibrated: 0 = 95 % quantile under shuffled sentences, 1 = identical"


def _register() -> None:
    for section, (name, (rung, label)) in itertools.product(SECTIONS, MEASURES.items()):
        where = "the embedding" if section == "embed" else f"{section} blocks"
        _add(f"{name}_{section}", f"{rung} {label}, {section}",
             f"{label} of the parents on the same text in {where}, {CALIBRATION}", +1)  # fmt: skip
        if name == "cka":
            _add(f"cka_partial_{section}", f"L2 {label} without length, {section}",
                 f"{label} in {where} after log sentence length was regressed out", +1)  # fmt: skip
    for section, name in itertools.product(SECTIONS[1:], HIDDEN):
        rung, label = MEASURES[name]
        _add(f"hidden_{name}_{section}", f"{rung} {label} of hidden units, {section}",
             f"{label} of the hidden units of the feed-forward parts on the same text in {section} "
             f"blocks, {CALIBRATION}", +1)  # fmt: skip
    for section, (name, (more, less, meaning)) in itertools.product(SECTIONS, GAPS.items()):
        _add(f"{name}_{section}", f"{more} - {less}, {section}",
             f"calibrated {more} minus calibrated {less}: {meaning}", 0, worst=False)  # fmt: skip
    for name in ACROSS:
        label = MEASURES[name][1]
        _add(f"parallel_{name}", f"{label} across translations",
             f"{label} of one parent in one language and another in another, middle layer, mean "
             f"over ordered pairs of languages, {CALIBRATION}", +1, per_language=False)  # fmt: skip
        _add(f"own_{name}", f"{label}, each in its own language",
             f"{label} at the middle layer, each parent reading the language it knows best, "
             f"{CALIBRATION}", +1, per_language=False)  # fmt: skip


def _add(
    name: str,
    label: str,
    definition: str,
    direction: int,
    *,
    per_language: bool = True,
    worst: bool = True,
) -> None:
    """Register a feature, and its least similar pair of parents beside the mean over pairs."""
    forms = {"": "mean over pairs of parents", "_worst": "the least similar pair of parents"}
    for suffix, which in forms.items():
        if suffix and not worst:
            continue
        spec = FeatureSpec(
            name=name + suffix, tier="T2", label=label + suffix.replace("_", ", "),
            definition=f"{definition}; {which}", per_language=per_language, scale_free=True,
            direction=direction, source=LADDER_SOURCE,
        )  # fmt: skip
        declare(spec)


_register()


def chosen_layers(depth: int, layers: str) -> list[int] | None:
    """Layers to extract: all of a shallow model, evenly spaced ones of a deep one.

    Args:
        depth: Number of blocks.
        layers: "auto", or "all".

    Returns:
        Layer numbers, 0 and `depth` among them; None for all.

    Example:
        >>> chosen_layers(4, "auto"), chosen_layers(32, "auto")[:4], chosen_layers(32, "all")
        (None, [0, 3, 5, 8], None)
    """
    if layers == "all" or depth < MOST_LAYERS:
        return None
    return sorted({round(point) for point in np.linspace(0, depth, MOST_LAYERS)})


def by_section(layers: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Mean over the embedding and over each third of the blocks.

    Block i of L lies at (i - 1/2) / L of the depth. A third without a block takes those nearest to
    its centre.

    Args:
        layers: Layer numbers, 0 = embedding; the largest is the depth.
        values: One per layer.

    Example:
        >>> by_section([0, 1, 2, 3, 4], [0.1, 1.0, 2.0, 4.0, 5.0])
        {'embed': 0.1, 'early': 1.0, 'middle': 3.0, 'late': 5.0}
    """
    numbers, array = np.asarray(layers), np.asarray(values, dtype=np.float64)
    embed, blocks = array[numbers == 0], numbers > 0
    found = {"embed": float(embed[0]) if len(embed) else math.nan}
    depth = max(int(numbers.max()), 1)
    place, inner = (numbers[blocks] - 0.5) / depth, array[blocks]
    for name, centre in _CENTRES.items():
        away = np.abs(place - centre)
        if len(away) == 0:
            found[name] = math.nan
            continue
        within = away <= 1 / 6 + 1e-9
        chosen = within if within.any() else away <= away.min() + 1e-9
        found[name] = float(inner[chosen].mean())
    return found


def ladder_features(
    activations: Sequence[Activations],
    *,
    statistics: Statistics,
    cache: FeatureCache,
) -> list[FeatureValue]:
    """The ladder of all pairs of models on the same text, language by language.

    Args:
        activations: One per model and language, same sentences; at least two models.
        statistics: Shuffles and covariates; intervals are not used.
        cache: Factorisations, shared with what else is computed on the same activations.

    Returns:
        Mean over pairs and the worst pair of each measure, section and language; gaps; where
        `mlp_hidden` was extracted of all models, `hidden_*` of its units.
    """
    scores: dict[tuple[str, str, str], list[float]] = {}
    for unit in _same_text(activations, statistics):
        widths = {
            side.array(unit.point, layers[0]).shape[1]
            for side, layers in ((unit.a, unit.layers_a), (unit.b, unit.layers_b))
        }
        kind = "hidden_" if unit.point == HIDDEN_POINT else ""
        for (measure, column), cells in _columns(unit, cache).items():
            name = kind + (measure if column == "calibrated" else f"{measure}_partial")
            if measure in UNIT_BY_UNIT and len(widths) > 1:
                cells = dict.fromkeys(cells, math.nan)
            for section, value in by_section(list(cells), list(cells.values())).items():
                if section != "embed" or not kind:
                    scores.setdefault((name, section, unit.a.language), []).append(value)
    values = [
        FeatureValue(f"{name}_{section}{suffix}", summary, language)
        for (name, section, language), pairs in scores.items()
        for suffix, summary in _mean_and_worst(pairs)
    ]
    known = {(value.feature, value.language): value.value for value in values}
    languages = dict.fromkeys(acts.language for acts in activations)
    for gap, section, language in itertools.product(GAPS, SECTIONS, languages):
        more, less, _ = GAPS[gap]
        gained = known[f"{more}_{section}", language] - known[f"{less}_{section}", language]
        values.append(FeatureValue(f"{gap}_{section}", gained, language))
    return values


def _mean_and_worst(pairs: Sequence[float]) -> Iterator[tuple[str, float]]:
    """A pair without a value leaves the group without one."""
    yield "", float(np.mean(pairs))
    yield "_worst", float(np.min(pairs))


def _same_text(activations: Sequence[Activations], statistics: Statistics) -> Iterator[SweepUnit]:
    """Pairs at matched depth: all measures, CKA without covariates, and hidden units."""
    from repsim.measures import plan_sweep

    plain = dataclasses.replace(statistics, groups=0, covariates=())
    free = dataclasses.replace(statistics, groups=0, permutations=0)
    jobs = [("resid", tuple(MEASURES), plain)]
    if statistics.covariates:
        jobs.append(("resid", ("cka",), free))
    if all(HIDDEN_POINT in acts.layers for acts in activations):
        jobs.append((HIDDEN_POINT, HIDDEN, plain))
    for point, measures, wanted in jobs:
        yield from plan_sweep(
            activations, measures, pairings=("same text",), layers="matched", point=point,
            statistics=wanted,
        )  # fmt: skip


def _columns(unit: SweepUnit, cache: FeatureCache) -> dict[tuple[str, str], dict[int, float]]:
    """(measure, column) -> layer of the shallower side -> value."""
    from repsim.measures import unit_rows

    shallow = "layer_a" if max(unit.layers_a) <= max(unit.layers_b) else "layer_b"
    column = "partial" if unit.statistics.covariates else "calibrated"
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in unit_rows(unit, cache):
        value = row.get(column)
        cells = found.setdefault((row["measure"], column), {})
        cells[row[shallow]] = math.nan if value is None else float(value)
    return found


# -- across translations --------------------------------------------------------------------------


def parallel_features(
    activations: Sequence[Activations],
    own: Mapping[str, str],
    *,
    statistics: Statistics,
    cache: FeatureCache,
) -> list[FeatureValue]:
    """Models against each other on translations, at the middle of the depth.

    Args:
        activations: As for `ladder_features`.
        own: Model -> the language that it knows best; may lack models.
        statistics: Shuffles.
        cache: Factorisations.

    Returns:
        `parallel_*` over all ordered pairs of languages (NaN with one language), `own_*` with each
        model in its own language (NaN where a model has none).
    """
    from repsim.measures import plan_sweep, unit_rows

    plain = dataclasses.replace(statistics, groups=0, covariates=())
    middles = [_middle(acts) for acts in activations]
    units = plan_sweep(
        middles, ACROSS, pairings=("same text", "parallel text across models"),
        layers="matched", statistics=plain,
    )  # fmt: skip
    across: dict[tuple[str, frozenset[str]], list[float]] = {}
    at_home: dict[tuple[str, frozenset[str]], float] = {}
    for unit in units:
        sides = (unit.a, unit.b)
        pair = frozenset(side.model.name for side in sides)
        home = all(own.get(side.model.name) == side.language for side in sides)
        for row in unit_rows(unit, cache):
            value = float(row.get("calibrated", math.nan))
            if unit.a.language != unit.b.language:
                across.setdefault((row["measure"], pair), []).append(value)
            if home:
                at_home[row["measure"], pair] = value
    names = dict.fromkeys(acts.model.name for acts in activations)
    pairs = [frozenset(pair) for pair in itertools.combinations(names, 2)]
    values = []
    for name in ACROSS:
        over = [float(np.mean(across.get((name, pair), [math.nan]))) for pair in pairs]
        home_values = [at_home.get((name, pair), math.nan) for pair in pairs]
        for kind, scores in (("parallel", over), ("own", home_values)):
            values += [
                FeatureValue(f"{kind}_{name}{suffix}", summary)
                for suffix, summary in _mean_and_worst(scores)
            ]
    return values


def _middle(acts: Activations) -> Activations:
    """The same activations with the layer nearest to half the depth only."""
    layers = acts.layers["resid"]
    nearest: Any = min(layers, key=lambda layer: abs(layer - max(layers) / 2))
    return dataclasses.replace(acts, layers={"resid": (nearest,)})
