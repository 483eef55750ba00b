"""Theory in the open: five claims, the numbers that speak to them, and a verdict.

H1, H3 and H5 are stated of naive merges or of alignment in general, H2 and H4 inside one
initialisation, where the provenance bit has nothing left to tell. Controls are left out: their
outcome is a matter of construction. Thresholds of verdicts stand here, beside the tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repsim.mergeability.crossfit import cross_fit
from repsim.mergeability.evidence import COLLAPSE, EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse, direction_of
from repsim.mergeability.metrics import auroc, interval_of, ranks, spearman
from repsim.mergeability.models.base import MODELS, outcome
from repsim.mergeability.part import least_by_merge
from repsim.mergeability.splits import incidence, leave_models_out

#: Fewest merges, or rows, that a claim is tested on.
LEAST = 20
#: A gain of alignment below this is none: about what a retention is measured to.
GAIN = 0.05
SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "open"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and how it is tested.

    Attributes:
        name: H1 to H5.
        text: The claim.
        needs: Features without which it cannot be tested.
        examine: From the evidence to numbers, verdict and sentence.
    """

    name: str
    text: str
    needs: tuple[str, ...]
    examine: Callable[[EvidenceTable, int, int], Finding]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a test found.

    Attributes:
        numbers: Quantity -> value, lower end, upper end.
        n: Merges or rows behind it.
        verdict: supported, refuted or open.
        sentence: The verdict in words.
    """

    numbers: dict[str, tuple[float, float, float]]
    n: int
    verdict: str
    sentence: str


def examine_hypotheses(
    table: EvidenceTable, *, draws: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Test every claim for which a table has the features.

    Args:
        table: Evidence, with features as merged.
        draws: Draws of models for intervals.
        seed: Of the draws.

    Returns:
        Rows of a `HypothesisTable`.
    """
    rows = []
    kept = table.take(table["control"] == "")
    for claim in CLAIMS:
        if not set(claim.needs) <= set(table.features) or not len(kept):
            continue
        found = claim.examine(kept, draws, seed)
        about = {"hypothesis": claim.name, "claim": claim.text, "n": found.n,
                 "verdict": found.verdict, "sentence": found.sentence}  # fmt: skip
        rows += [
            {**about, "quantity": quantity, "value": value, "ci_low": low, "ci_high": high}
            for quantity, (value, low, high) in found.numbers.items()
        ]
    return rows


def _too_few(n: int) -> Finding:
    return Finding({"cases": (float(n), float("nan"), float("nan"))}, n, UNDECIDED,
                   f"{n} cases are too few to tell.")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Merges:
    """Merges with one value per feature: that of the language that is worst off."""

    table: EvidenceTable
    number: np.ndarray
    first: np.ndarray
    worst: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def feature(self, name: str) -> np.ndarray:
        """Least value over languages."""
        return least_by_merge(self.table[name], self.number, len(self.first))


def _merges(table: EvidenceTable, mask: np.ndarray) -> _Merges:
    picked = table.take(mask)
    number, first = picked.merges()
    worst = least_by_merge(outcome(picked), number, len(first))
    members = incidence(picked)[0][first] if len(picked) else np.zeros((0, 0), dtype=bool)
    return _Merges(picked, number, first, worst, members)


Statistic = Callable[[np.ndarray], float]


def _with_interval(
    members: np.ndarray, statistics: dict[str, Statistic], draws: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Statistics of cases, with intervals by drawing models.

    Args:
        members: `[cases, models]`.
        statistics: Name -> function of the numbers of cases, some of them repeated.
        draws: Number of draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    count = members.shape[1]
    drawn = {name: np.full(draws, np.nan) for name in statistics}
    for draw in range(draws):
        weight = np.bincount(rng.integers(0, count, count), minlength=count)
        times = np.where(members, weight[None, :], 1).prod(axis=1)
        rows = np.repeat(np.arange(len(members)), times)
        if len(rows) >= LEAST / 2:
            for name, statistic in statistics.items():
                drawn[name][draw] = statistic(rows)
    every = np.arange(len(members))
    return {name: (s(every), *interval_of(drawn[name])) for name, s in statistics.items()}


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def _necessary_not_sufficient(table: EvidenceTable, draws: int, seed: int) -> Finding:
    naive = (table["alignment"] == "none") & np.isfinite(table["cka_middle"])
    found = _merges(table, naive)
    if len(found) < LEAST:
        return _too_few(len(found))
    cka, lives = found.feature("cka_middle"), found.worst >= COLLAPSE
    low, high = np.quantile(cka, [1 / 3, 2 / 3])
    l0 = found.feature("unit_correlation_middle")
    known = np.isfinite(l0)
    numbers = _with_interval(
        found.members,
        {
            "share that lives, least similar third (L2)": lambda r: _share(lives[r][cka[r] <= low]),
            "share that lives, most similar third (L2)": lambda r: _share(lives[r][cka[r] >= high]),
            "AUROC of life by L2 (debiased CKA)": lambda r: auroc(cka[r], lives[r]),
            "AUROC of life by L0 (unit-wise correlation)": lambda r: auroc(
                l0[r][known[r]], lives[r][known[r]]
            ),
        },
        draws, seed,
    )  # fmt: skip
    least, most = list(numbers.values())[:2]
    necessary, sufficient = least[2] < 0.1, most[1] > 0.9
    verdict = SUPPORTED if necessary and most[2] < 0.9 else UNDECIDED
    if sufficient or least[1] > 0.1:
        verdict = REFUTED
    l2_auc, l0_auc = list(numbers.values())[2:]
    return Finding(
        numbers, len(found), verdict,
        f"Of the third of naive merges with the least L2 similarity {least[0]:.0%} live, of the "
        f"third with the most {most[0]:.0%}; L2 tells life from collapse with an AUROC of "
        f"{l2_auc[0]:.2f}, L0 with {l0_auc[0]:.2f}.",
    )  # fmt: skip


def _inside_shared(table: EvidenceTable, draws: int, seed: int) -> Finding:
    inside = (table["alignment"] == "none") & (table["shared_init"] == 1)
    picked = table.take(inside)
    two = ("unit_correlation_middle", "update_size")
    if len(picked.merges()[1]) < LEAST or len(incidence(picked)[1]) < 8:
        return _too_few(len(picked.merges()[1]))
    folds = leave_models_out(picked, blocks=6, seed=seed, least=8).folds
    uses = [FeatureUse(name, direction_of(name)) for name in two]
    law = MODELS["additive"]
    predicted = cross_fit(law, picked, uses, folds).predicted
    found = _merges(picked, np.isfinite(predicted))
    worst = least_by_merge(predicted[np.isfinite(predicted)], found.number, len(found))
    collapsed = found.worst < COLLAPSE
    numbers = _with_interval(
        found.members,
        {
            "AUROC of collapse by L0 and update size": lambda r: auroc(-worst[r], collapsed[r]),
            "rank correlation with least retention": lambda r: spearman(worst[r], found.worst[r]),
            "mean absolute error": lambda r: float(np.abs(worst[r] - found.worst[r]).mean()),
        },
        draws, seed,
    )  # fmt: skip
    area, rank, error = numbers.values()
    verdict = SUPPORTED if area[1] >= 0.9 else REFUTED if area[2] < 0.9 else UNDECIDED
    return Finding(
        numbers, len(found), verdict,
        f"Inside shared initialisation L0 and update size alone tell collapse with an AUROC of "
        f"{area[0]:.2f} on models never seen (rank correlation {rank[0]:.2f}, mean absolute error "
        f"{error[0]:.2f}).",
    )  # fmt: skip


def _alignment_and_gap(table: EvidenceTable, draws: int, seed: int) -> Finding:
    gap, gain, members = _gains(table)
    if len(gap) < LEAST:
        return _too_few(len(gap))
    low, high = np.quantile(gap, [1 / 3, 2 / 3])
    helped = gain > GAIN
    numbers = _with_interval(
        members,
        {
            f"share helped by more than {GAIN}, smallest third of gaps": lambda r: _share(
                helped[r][gap[r] <= low]
            ),
            f"share helped by more than {GAIN}, largest third of gaps": lambda r: _share(
                helped[r][gap[r] >= high]
            ),
            "rank correlation of gap and gain": lambda r: spearman(gap[r], gain[r]),
            "AUROC of help by gap": lambda r: auroc(gap[r], helped[r]),
        },
        draws, seed,
    )  # fmt: skip
    small, large, rank, area = numbers.values()
    both = small[2] < 0.1 and large[1] > 0.9
    neither = rank[2] < 0.1
    verdict = SUPPORTED if both else REFUTED if neither or large[2] < 0.9 else UNDECIDED
    return Finding(
        numbers, len(gap), verdict,
        f"Alignment helps {small[0]:.0%} of merges where the gap between the rungs is small and "
        f"{large[0]:.0%} where it is large (rank correlation of gap and gain {rank[0]:.2f}, AUROC "
        f"{area[0]:.2f}).",
    )  # fmt: skip


def _gains(table: EvidenceTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    return np.array(gap), np.array(gain), members


def _sign_conflict(table: EvidenceTable, draws: int, seed: int) -> Finding:
    inside = (
        (table["alignment"] == "none") & (table["shared_init"] == 1)
        & np.isfinite(table["sign_agreement"]) & np.isfinite(table["update_size"])
    )  # fmt: skip
    found = _merges(table, inside)
    if len(found) < LEAST:
        return _too_few(len(found))
    signs, size = found.feature("sign_agreement"), found.feature("update_size")
    numbers = _with_interval(
        found.members,
        {
            "rank correlation of sign agreement and retention": lambda r: spearman(
                signs[r], found.worst[r]
            ),
            "the same, update size held fixed": lambda r: partial_spearman(
                signs[r], found.worst[r], size[r]
            ),
            "rank correlation of update size and retention": lambda r: spearman(
                size[r], found.worst[r]
            ),
        },
        draws, seed,
    )  # fmt: skip
    alone, fixed, of_size = numbers.values()
    nothing = fixed[1] <= 0 <= fixed[2] or abs(fixed[0]) < 0.1
    verdict = SUPPORTED if nothing else REFUTED
    tail = "adds nothing that can be told" if nothing else "still tells something"
    return Finding(
        numbers, len(found), verdict,
        f"Agreement of signs goes with retention (rank correlation {alone[0]:.2f}) as update size "
        f"does ({of_size[0]:.2f}); with update size held fixed it {tail} ({fixed[0]:.2f}, "
        f"{fixed[1]:.2f} to {fixed[2]:.2f}).",
    )  # fmt: skip


def _cka_survives(table: EvidenceTable, draws: int, seed: int) -> Finding:
    names = ("cka_middle", "cka_partial_middle")
    naive = (table["alignment"] == "none") & np.all([np.isfinite(table[n]) for n in names], axis=0)
    found = _merges(table, naive)
    if len(found) < LEAST:
        return _too_few(len(found))
    plain, partial = (found.feature(name) for name in names)
    shared = found.table["shared_init"][found.first]
    numbers = _with_interval(
        found.members,
        {
            "calibrated CKA": lambda r: spearman(plain[r], found.worst[r]),
            "calibrated CKA without length": lambda r: spearman(partial[r], found.worst[r]),
            "calibrated CKA without length, provenance held fixed": lambda r: partial_spearman(
                partial[r], found.worst[r], shared[r]
            ),
        },
        draws, seed,
    )  # fmt: skip
    first, second, third = numbers.values()
    verdict = SUPPORTED if third[1] > 0 else REFUTED if third[2] < 0.1 else UNDECIDED
    return Finding(
        {f"rank correlation with retention: {name}": value for name, value in numbers.items()},
        len(found), verdict,
        f"The rank correlation of CKA with retention is {first[0]:.2f} after calibration, "
        f"{second[0]:.2f} once sentence length is regressed out, and {third[0]:.2f} "
        f"({third[1]:.2f} to {third[2]:.2f}) with shared initialisation held fixed as well.",
    )  # fmt: skip


def partial_spearman(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of two variables, a third held fixed.

    Example:
        >>> x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(partial_spearman(x, x[::-1], np.array([2.0, 1.0, 2.0, 1.0, 2.0])), 3)
        -1.0
    """
    if np.ptp(given) == 0:
        return spearman(a, b)
    base = np.stack([np.ones(len(given)), ranks(given)], axis=1)
    rest = [r - base @ np.linalg.lstsq(base, r, rcond=None)[0] for r in (ranks(a), ranks(b))]
    if min(np.ptp(part) for part in rest) < 1e-9:
        return float("nan")
    return float(np.corrcoef(*rest)[0, 1])


#: The claims, as they were stated before the evidence was there.
CLAIMS: Sequence[Claim] = (
    Claim("H1", "Similarity up to rotation (L2) is necessary for a naive merge and not sufficient.",
          ("cka_middle", "unit_correlation_middle"), _necessary_not_sufficient),
    Claim("H2", "Inside one initialisation, identity-level similarity and update size explain "
          "collapse.", ("unit_correlation_middle", "update_size"), _inside_shared),
    Claim("H3", "Alignment helps if and only if the gap between the rungs is large.",
          ("gap_l1_l0_middle", "gap_l2_l0_middle"), _alignment_and_gap),
    Claim("H4", "Conflict of signs predicts nothing.", ("sign_agreement", "update_size"),
          _sign_conflict),
    Claim("H5", "What CKA says of merges survives calibration and the removal of sentence length.",
          ("cka_middle", "cka_partial_middle"), _cka_survives),
)  # fmt: skip
