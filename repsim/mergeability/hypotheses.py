"""Theory in the open: five claims, the numbers that speak to them, and a verdict.

H1, H3 and H5 are stated of naive merges or of alignment in general, H2 and H4 inside one
initialisation, where the provenance bit has nothing left to tell. Controls are left out: their
outcome is a matter of construction. Thresholds of verdicts stand here, beside the tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE
from repsim.core.formatting import number, percent
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, direction_of
from repsim.mergeability.part import least_by_merge
from repsim.mergeability.regressors import cross_fit, outcome
from repsim.mergeability.splits import incidence, leave_models_out
from repsim.stats import auroc, bootstrap, interval_of, partial_spearman, spearman

#: Fewest merges, or rows, that a claim is tested on.
LEAST = 20
#: Fewest models out of which some can be held out.
LEAST_MODELS = 8
#: A gain of alignment below this is none: about what a retention is measured to.
GAIN = 0.05
SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "open"

#: From values of cases, some of them repeated, to a number.
Statistic = Callable[[Mapping[str, np.ndarray]], float]


@dataclasses.dataclass(frozen=True)
class Cases:
    """What a claim is tested on.

    Attributes:
        members: `[cases, models]`: which models a case has.
        values: Name -> `[cases]`.
    """

    members: np.ndarray
    values: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.members)


@dataclasses.dataclass(frozen=True)
class Number:
    """A number with the ends of its 95 % interval; NaN where they are not known."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> str:
        """The interval in words."""
        return f"{number(self.low)} to {number(self.high)}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and how it is tested.

    Attributes:
        name: H1 to H5.
        text: The claim.
        needs: Features without which it cannot be tested.
        select: From the evidence, and the seed of dealing models, to cases.
        statistics: From all cases to the quantities that are computed of them.
        conclude: From the numbers, in the order of the quantities, to a verdict and a sentence.
    """

    name: str
    text: str
    needs: tuple[str, ...]
    select: Callable[[EvidenceTable, int], Cases]
    statistics: Callable[[Cases], dict[str, Statistic]]
    conclude: Callable[[Sequence[Number]], tuple[str, str]]


def examine_hypotheses(
    table: EvidenceTable, *, draws: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Test every claim for which a table has the features.

    Args:
        table: Evidence, with features as merged.
        draws: Draws of models for intervals.
        seed: Of the draws, and of the dealing of models.

    Returns:
        Rows of a `HypothesisTable`.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> examine_hypotheses(planted_evidence(models=6))  # it has none of the features
        []
    """
    kept = table.take(table["control"] == "")
    rows: list[dict[str, Any]] = []
    for claim in CLAIMS:
        if set(claim.needs) <= set(table.features) and len(kept):
            rows += _examine(claim, kept, draws, seed)
    return rows


def _examine(claim: Claim, table: EvidenceTable, draws: int, seed: int) -> list[dict[str, Any]]:
    cases = claim.select(table, seed)
    if len(cases) < LEAST:
        numbers = {"cases": Number(len(cases), float("nan"), float("nan"))}
        verdict, sentence = UNDECIDED, f"{len(cases)} cases are too few to tell."
    else:
        numbers = _with_intervals(cases, claim.statistics(cases), draws, seed)
        verdict, sentence = claim.conclude(list(numbers.values()))
    return [
        {"hypothesis": claim.name, "claim": claim.text, "n": len(cases), "verdict": verdict,
         "sentence": sentence, "quantity": quantity, "value": number.value,
         "ci_low": number.low, "ci_high": number.high}
        for quantity, number in numbers.items()
    ]  # fmt: skip


def _with_intervals(
    cases: Cases, statistics: Mapping[str, Statistic], draws: int, seed: int
) -> dict[str, Number]:
    """Statistics of all cases, with intervals by drawing models with replacement."""

    def values_of(rows: np.ndarray) -> dict[str, float]:
        values = {name: array[rows] for name, array in cases.values.items()}
        return {name: statistic(values) for name, statistic in statistics.items()}

    drawn = bootstrap(values_of, cases.members, draws=draws, seed=seed, least=LEAST // 2)
    whole = values_of(np.arange(len(cases)))
    return {name: Number(value, *interval_of(drawn[name])) for name, value in whole.items()}


def _merges(table: EvidenceTable, mask: np.ndarray, features: Mapping[str, str]) -> Cases:
    """Merges, each with the least value over its languages.

    Args:
        table: Evidence.
        mask: Rows that count.
        features: Name of the value -> feature; "worst", the least retention, is always there.
    """
    picked = table.take(mask)
    number, first = picked.merges()
    members = incidence(picked)[0][first] if len(picked) else np.zeros((0, 0), dtype=bool)
    columns = {name: picked[feature] for name, feature in features.items()}
    columns["worst"] = outcome(picked)
    return Cases(
        members, {name: least_by_merge(v, number, len(first)) for name, v in columns.items()}
    )


def _known(table: EvidenceTable, *features: str) -> np.ndarray:
    """Rows of merges as they are that have all of some features."""
    finite = [np.isfinite(table[name]) for name in features]
    return (table["alignment"] == "none") & np.all(finite, axis=0)


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _correlation(a: str, b: str, given: str = "") -> Statistic:
    """Rank correlation of two values, a third held fixed if there is one."""
    if given:
        return lambda v: partial_spearman(v[a], v[b], v[given])
    return lambda v: spearman(v[a], v[b])


# -- H1: necessary and not sufficient -------------------------------------------------------------


def _naive(table: EvidenceTable, seed: int) -> Cases:
    return _merges(
        table, _known(table, "cka_middle"), {"l2": "cka_middle", "l0": "unit_correlation_middle"}
    )


def _life_by_similarity(cases: Cases) -> dict[str, Statistic]:
    low, high = np.quantile(cases.values["l2"], [1 / 3, 2 / 3])

    def by_l0(v: Mapping[str, np.ndarray]) -> float:
        known = np.isfinite(v["l0"])  # undefined between models of different widths
        return auroc(v["l0"][known], v["worst"][known] >= COLLAPSE)

    return {
        "share that lives, least similar third (L2)": lambda v: _share(
            v["worst"][v["l2"] <= low] >= COLLAPSE
        ),
        "share that lives, most similar third (L2)": lambda v: _share(
            v["worst"][v["l2"] >= high] >= COLLAPSE
        ),
        "AUROC of life by L2 (debiased CKA)": lambda v: auroc(v["l2"], v["worst"] >= COLLAPSE),
        "AUROC of life by L0 (unit-wise correlation)": by_l0,
    }


def _necessary_not_sufficient(numbers: Sequence[Number]) -> tuple[str, str]:
    least, most, l2, l0 = numbers
    verdict = SUPPORTED if least.high < 0.1 and most.high < 0.9 else UNDECIDED
    if most.low > 0.9 or least.low > 0.1:
        verdict = REFUTED
    return verdict, (
        f"Of the third of naive merges with the least L2 similarity {percent(least.value)} live, "
        f"of the third with the most {percent(most.value)}; L2 tells life from collapse with an "
        f"AUROC of {number(l2.value)}, L0 with {number(l0.value)}."
    )


# -- H2: inside one initialisation ----------------------------------------------------------------


def _foretold_inside_shared(table: EvidenceTable, seed: int) -> Cases:
    """Merges foretold from two features by laws that know none of their models."""
    picked = table.take(_known(table) & (table["shared_init"] == 1))
    predicted = np.full(len(picked), np.nan)
    if len(picked.merges()[1]) >= LEAST and len(incidence(picked)[1]) >= LEAST_MODELS:
        folds = leave_models_out(picked, blocks=6, seed=seed, least=LEAST_MODELS).folds
        two = ("unit_correlation_middle", "update_size")
        uses = [FeatureUse(name, direction_of(name)) for name in two]
        if folds:
            predicted = cross_fit("additive", picked, uses, folds).predicted
    foretold = picked.with_features({"foretold": predicted}, {})
    return _merges(foretold, np.isfinite(predicted), {"foretold": "foretold"})


def _skill_of_two(cases: Cases) -> dict[str, Statistic]:
    return {
        "AUROC of collapse by L0 and update size": lambda v: auroc(
            -v["foretold"], v["worst"] < COLLAPSE
        ),
        "rank correlation with least retention": _correlation("foretold", "worst"),
        "mean absolute error": lambda v: float(np.abs(v["foretold"] - v["worst"]).mean()),
    }


def _two_explain(numbers: Sequence[Number]) -> tuple[str, str]:
    area, rank, error = numbers
    verdict = SUPPORTED if area.low >= 0.9 else REFUTED if area.high < 0.9 else UNDECIDED
    return verdict, (
        "Inside shared initialisation L0 and update size alone tell collapse with an AUROC of "
        f"{number(area.value)} ({area.ends}) on models never seen (rank correlation "
        f"{number(rank.value)}, mean absolute error {number(error.value)})."
    )


# -- H3: alignment and the gap between rungs ------------------------------------------------------


def _gains(table: EvidenceTable, seed: int) -> Cases:
    """Gap between rungs and gain in retention, for each merge that was made with and without."""
    retention = outcome(table)
    keys = list(zip(table["source"], table["parents"], table["method"], table["language"],
                    strict=True))  # fmt: skip
    naive = {key: row for row, key in enumerate(keys) if table["alignment"][row] == "none"}
    feature = {"permutation": "gap_l1_l0_middle", "orthogonal": "gap_l2_l0_middle"}
    gap, gain, rows = [], [], []
    for row, key in enumerate(keys):
        name = feature.get(str(table["alignment"][row]))
        if name is not None and key in naive and np.isfinite(table[name][row]):
            gap.append(table[name][row])
            gain.append(retention[row] - retention[naive[key]])
            rows.append(row)
    members = incidence(table)[0][np.array(rows, dtype=int)]
    return Cases(members, {"gap": np.array(gap), "gain": np.array(gain)})


def _help_by_gap(cases: Cases) -> dict[str, Statistic]:
    low, high = np.quantile(cases.values["gap"], [1 / 3, 2 / 3])
    return {
        "share helped, smallest third of gaps": lambda v: _share(v["gain"][v["gap"] <= low] > GAIN),
        "share helped, largest third of gaps": lambda v: _share(v["gain"][v["gap"] >= high] > GAIN),
        "rank correlation of gap and gain": _correlation("gap", "gain"),
        "AUROC of help by gap": lambda v: auroc(v["gap"], v["gain"] > GAIN),
    }


def _if_and_only_if(numbers: Sequence[Number]) -> tuple[str, str]:
    small, large, rank, area = numbers
    both = small.high < 0.1 and large.low > 0.9
    neither = rank.high < 0.1
    verdict = SUPPORTED if both else REFUTED if neither or large.high < 0.9 else UNDECIDED
    return verdict, (
        f"Alignment helps (by more than {GAIN}) {percent(small.value)} of merges where the gap "
        f"between the rungs is small and {percent(large.value)} where it is large (rank "
        f"correlation of gap and gain {number(rank.value)}, AUROC {number(area.value)})."
    )


# -- H4: conflict of signs ------------------------------------------------------------------------


def _signs(table: EvidenceTable, seed: int) -> Cases:
    needed = {"signs": "sign_agreement", "size": "update_size"}
    inside = _known(table, *needed.values()) & (table["shared_init"] == 1)
    return _merges(table, inside, needed)


def _by_signs(cases: Cases) -> dict[str, Statistic]:
    return {
        "rank correlation of sign agreement and retention": _correlation("signs", "worst"),
        "the same, update size held fixed": _correlation("signs", "worst", "size"),
        "rank correlation of update size and retention": _correlation("size", "worst"),
    }


def _signs_say_nothing(numbers: Sequence[Number]) -> tuple[str, str]:
    alone, fixed, size = numbers
    nothing = fixed.low <= 0 <= fixed.high or abs(fixed.value) < 0.1
    tail = "adds nothing that can be told" if nothing else "still tells something"
    return SUPPORTED if nothing else REFUTED, (
        f"Agreement of signs goes with retention (rank correlation {number(alone.value)}) as "
        f"update size does ({number(size.value)}); with update size held fixed it {tail} "
        f"({number(fixed.value)}, {fixed.ends})."
    )


# -- H5: CKA after calibration and without confounds ----------------------------------------------


def _calibrated(table: EvidenceTable, seed: int) -> Cases:
    """CKA in the two forms that are kept of it: calibrated, and without sentence length."""
    needed = {"calibrated": "cka_middle", "free": "cka_partial_middle"}
    history = {"shared": table.columns["shared_init"], "fork": table.columns["fork_fraction"]}
    mask = _known(table, *needed.values()) & np.all(
        [np.isfinite(values) for values in history.values()], axis=0
    )
    return _merges(
        table.with_features(history, {}), mask, {**needed, "shared": "shared", "fork": "fork"}
    )


def _by_cka(cases: Cases) -> dict[str, Statistic]:
    forms = {"calibrated": "calibrated CKA", "free": "CKA without length"}
    fixed = {"": "", "shared": ", provenance bit fixed", "fork": ", fork fraction fixed"}
    return {
        f"ρ, {form}{held}": _correlation(name, "worst", given)
        for given, held in fixed.items()
        for name, form in forms.items()
    }


def _cka_survives(numbers: Sequence[Number]) -> tuple[str, str]:
    calibrated, free, *fixed = numbers
    verdict = UNDECIDED
    if all(number.low > 0 for number in fixed):
        verdict = SUPPORTED
    elif any(number.high < 0.1 for number in fixed):
        verdict = REFUTED
    *_, first, second = fixed
    return verdict, (
        f"The rank correlation ρ of CKA with retention is {number(calibrated.value)} after "
        f"calibration and {number(free.value)} where sentence length is regressed out; with the "
        f"share of training in common held fixed as well {number(first.value)} ({first.ends}) and "
        f"{number(second.value)} ({second.ends}). Each step is tested by itself: the evidence "
        "holds neither raw CKA nor CKA that is both calibrated and free of length, so that it "
        "tells what remains after either, and not how much was taken away."
    )


#: The claims, as they were stated before the evidence was there.
CLAIMS: Sequence[Claim] = (
    Claim("H1", "Similarity up to rotation (L2) is necessary for a naive merge and not sufficient.",
          ("cka_middle", "unit_correlation_middle"),
          _naive, _life_by_similarity, _necessary_not_sufficient),
    Claim("H2", "Inside one initialisation, identity-level similarity and update size explain "
          "collapse.", ("unit_correlation_middle", "update_size"),
          _foretold_inside_shared, _skill_of_two, _two_explain),
    Claim("H3", "Alignment helps if and only if the gap between the rungs is large.",
          ("gap_l1_l0_middle", "gap_l2_l0_middle"), _gains, _help_by_gap, _if_and_only_if),
    Claim("H4", "Conflict of signs predicts nothing.", ("sign_agreement", "update_size"),
          _signs, _by_signs, _signs_say_nothing),
    Claim("H5", "What CKA says of merges survives calibration and the removal of sentence length.",
          ("cka_middle", "cka_partial_middle"), _calibrated, _by_cka, _cka_survives),
)  # fmt: skip
