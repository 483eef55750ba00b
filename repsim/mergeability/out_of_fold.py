"""Carrying out a split: fit on each training set, forecast each test set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from repsim.core.atlas import COLLAPSE
from repsim.core.errors import InputError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import at_hand
from repsim.mergeability.metrics import ForecastsWithOutcomes
from repsim.mergeability.part import Forecasts, least_by_merge
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.regressors import outcome
from repsim.mergeability.splits import Fold, Split, assert_apart, incidence

#: Applies a function to every fold, in order.
Each = Callable[[Callable[[Fold], Any], Iterable[Fold]], Iterable[Any]]


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """Forecasts out of fold."""

    table: EvidenceTable
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_collapse: np.ndarray
    p_useful: np.ndarray
    refusals: tuple[str, ...]
    folds: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    fates: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=object))

    @property
    def rows(self) -> np.ndarray:
        """Numbers of the rows that were tested."""
        return np.flatnonzero(np.isfinite(self.predicted))

    @property
    def refused(self) -> np.ndarray:
        """Whether each row would have been refused."""
        return np.array([bool(why) for why in self.refusals], dtype=bool)

    def with_outcomes(self, chosen: np.ndarray | None = None) -> ForecastsWithOutcomes:
        """Forecasts beside outcomes."""
        table, observed = self.table, outcome(self.table)
        kept = np.isfinite(self.predicted)
        if chosen is not None:
            kept &= chosen
        number, first = table.merges()
        shown = np.where(kept, self.predicted, np.nan)
        worst = least_by_merge(shown, number, len(first))
        whole = np.flatnonzero(np.isfinite(worst))
        members, _ = incidence(table)
        intervals = len(self.p_collapse) > 0
        empty = np.empty(0)
        return ForecastsWithOutcomes(
            predicted=self.predicted[kept],
            observed=observed[kept],
            low=self.low[kept] if intervals else empty,
            high=self.high[kept] if intervals else empty,
            worst=worst[whole],
            # Rows of one merge may have been tested apart: the direst counts.
            p_collapse=-least_by_merge(-self.p_collapse, number, len(first))[whole]
            if intervals else empty,
            observed_worst=least_by_merge(observed, number, len(first))[whole],
            members=members[kept],
            merge_members=members[first[whole]],
            p_useful=self.p_useful[first[whole]] if intervals else empty,
            useful=table["useful"][first[whole]],
        )  # fmt: skip

    def to_rows(self, split: str, predictor: str) -> Iterator[dict[str, Any]]:
        """Rows of an `OutOfFoldTable`."""
        table, observed = self.table, outcome(self.table)
        number, first = table.merges()
        worst = least_by_merge(self.predicted, number, len(first))
        observed_worst = least_by_merge(observed, number, len(first))
        names = ("merge", "parents", "method", "alignment", "language", "arm", "control")
        for row in self.rows:
            merge = number[row]
            shared, useful = table["shared_init"][row], table["useful"][row]
            yield {
                **{name: str(table[name][row]) for name in names},
                "split": split, "predictor": predictor, "fold": self.folds[row],
                "shared_init": int(shared) if np.isfinite(shared) else None,
                "fork_fraction": float(table["fork_fraction"][row]),
                "predicted": float(self.predicted[row]), "low": float(self.low[row]),
                "high": float(self.high[row]), "observed": float(observed[row]),
                "refusal": self.refusals[row], "worst": float(worst[merge]),
                "observed_worst": float(observed_worst[merge]),
                "p_collapse": float(self.p_collapse[row]),
                "collapsed": int(observed_worst[merge] < COLLAPSE),
                "p_useful": float(self.p_useful[row]),
                "useful": int(useful) if np.isfinite(useful) else None,
            }  # fmt: skip


def carry_out(
    table: EvidenceTable,
    split: Split,
    predictor: Predictor,
    *,
    advance: Callable[[], object] | None = None,
    each: Each = map,
    stored: bool = False,
) -> tuple[dict[str, OutOfFold], list[str]]:
    """Forecasts of test rows by set of tiers, from training rows alone; and what folds chose.

    A `stored` predictor forecasts as it is: nothing of the table is learnt.
    """
    test = functools.partial(_test, table, predictor, split.name != "leave-method-out", stored)
    for fold in split.folds:
        assert_apart(table, fold.train, fold.test)
    results, skipped, chosen = [], [], []
    for fold, found in zip(split.folds, each(test, split.folds), strict=True):
        if advance:
            advance()
        if isinstance(found, str):
            skipped.append(f"{fold.name}: {found}")
        else:
            results.append((fold, found[0]))
            chosen += found[1]
    sets = dict.fromkeys(name for _, found in results for name in found)
    made = {
        name: _put_together(table, [(f, r[name]) for f, r in results if name in r], skipped)
        for name in sets
    }
    return made, chosen


def _put_together(
    table: EvidenceTable, results: Sequence[tuple[Fold, Forecasts]], skipped: Sequence[str]
) -> OutOfFold:
    count = len(table)
    by_row, by_merge = ("predicted", "low", "high"), ("p_collapse", "p_useful")
    arrays = {name: np.full(count, np.nan) for name in (*by_row, *by_merge)}
    refusals, names = [""] * count, [""] * count
    fates = np.full(count, "", dtype=object)
    for fold, found in results:
        for name in by_row:
            arrays[name][fold.test] = getattr(found, name)
        for name in by_merge:
            arrays[name][fold.test] = getattr(found, name)[found.merge]
        fates[fold.test] = found.fates[found.merge]
        for row, why in zip(fold.test, found.refusals, strict=True):
            refusals[row], names[row] = why, fold.name
    return OutOfFold(
        table, **arrays, refusals=tuple(refusals), folds=tuple(names), skipped=tuple(skipped),
        fates=fates,
    )  # fmt: skip


def _test(
    table: EvidenceTable, predictor: Predictor, of_method: bool, stored: bool, fold: Fold
) -> tuple[dict[str, Forecasts], list[str]] | str:
    """Learn from one side of a fold and forecast the other, or say why there is too little."""
    known, asked = table.take(fold.train), table.take(fold.test)
    try:
        fitted = predictor if stored else clone(predictor).fit(known)
    except InputError as error:  # too few groups of parents: counted, and told in the report
        return error.what
    found = {
        name: fitted.forecast(asked, tiers=name, of_method=of_method)
        for name, part in fitted.parts_.items() if set(part.tiers) <= at_hand(asked)
    }  # fmt: skip
    parts = fitted.parts_.items()
    return found, [f"{name}: {part.kind}, {len(part.uses)} features" for name, part in parts]
