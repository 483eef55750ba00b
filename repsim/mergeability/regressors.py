"""The regressors that may tie features to retention, by name; validation chooses among them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.mergeability.candidate import NEARBY
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse
from repsim.mergeability.splits import Fold
from repsim.stats.additive import LEAST, MOST, AdditiveRegressor, Basis, Layout
from repsim.stats.local import BlendedRegressor, LocalRegressor, NeighbourRegressor

#: Methods that drop entries at random and enlarge the others: noise beside what models moved.
AT_RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
#: Kind of merge -> which rows are of it. Curves may be steeper there than for the others.
KINDS_OF_MERGE: dict[str, Callable[[EvidenceTable], np.ndarray]] = {
    "aligned": lambda table: table["alignment"] != "none",
    "at random": lambda table: np.isin(table["method"], AT_RANDOM),
}


def outcome(table: EvidenceTable) -> np.ndarray:
    """Retention, brought into the range that is fitted and scored."""
    return np.clip(table["retention"], LEAST, MOST)


def feature_values(table: EvidenceTable, names: Sequence[str]) -> np.ndarray:
    """`[rows, features]`; NaN where a value is missing."""
    missing = np.full(len(table), np.nan)
    columns = [table.features.get(name, missing) for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))


def matrix_of(
    table: EvidenceTable, names: Sequence[str], levels: Sequence[str], *, by_kind: bool = False
) -> np.ndarray:
    """Evidence as a matrix: features, flags of kinds of merge, number of the method or -1."""
    place = {level: number for number, level in enumerate(levels)}
    flags = [of(table) for of in KINDS_OF_MERGE.values()] if by_kind else []
    codes = [place.get(level, -1) for level in table.factor]
    parts = [feature_values(table, names), *(f[:, None] for f in flags), np.array(codes)[:, None]]
    return np.concatenate([part.astype(np.float64) for part in parts], axis=1)


def _boosting(directions: Sequence[int], levels: int) -> BaseEstimator:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    every = [np.arange(levels, dtype=float)]
    one_hot = OneHotEncoder(categories=every, handle_unknown="ignore", sparse_output=False)
    columns = [("features", "passthrough", list(range(len(directions)))),
               ("method", one_hot, [len(directions)])]  # fmt: skip
    trees = HistGradientBoostingRegressor(
        max_iter=60, learning_rate=0.1, max_leaf_nodes=8, min_samples_leaf=10,
        monotonic_cst=[*directions, *[0] * levels], early_stopping=False, random_state=0,
    )  # fmt: skip
    return make_pipeline(ColumnTransformer(columns), trees)


@dataclasses.dataclass(frozen=True)
class Regressor:
    """A regressor that validation may choose."""

    label: str
    make: Callable[[Sequence[int], int], BaseEstimator]
    grid: tuple[Mapping[str, float], ...] = ({},)
    by_kind: bool = False
    ships: bool = True
    without: bool = False
    beneath: str = ""  # the regressor that it is with nothing added, tried on the way


def _additive(
    label: str, alphas: Sequence[float], *, of: type[AdditiveRegressor] = AdditiveRegressor,
    signed: bool = True, by_kind: bool = False, without: bool = False, levelling: bool = False,
    beneath: str = "",
) -> Regressor:  # fmt: skip
    grid = tuple({"alpha": alpha} for alpha in alphas)
    return Regressor(
        label, lambda signs, _: of(
            tuple(signs) if signed else (0,) * len(signs), quantiles=BENDS, levelling=levelling
        ), grid, by_kind, without=without, beneath=beneath,
    )  # fmt: skip


#: Where along the values of a feature its curve may begin, bend and end.
BENDS = (0.02, 0.35, 0.65, 0.98)
#: Regressors by name, the simplest first.
REGRESSORS: dict[str, Regressor] = {
    "mean": _additive("mean of method and alignment", (1e-3,), without=True),
    "ridge": _additive("ridge regression on splines", (1e-3, 1e-2), signed=False),
    "additive": _additive("monotone additive regression", (1e-3,)),
    "saturating": _additive(
        "monotone additive regression that levels off", (3e-4,), levelling=True
    ),
    "saturating-by-kind": _additive(
        "monotone additive regression that levels off, steeper for some kinds of merges",
        (3e-4,), by_kind=True, levelling=True,
    ),
    "local": _additive(
        "monotone additive regression that levels off, steeper for some kinds of merges, and what "
        "near known merges kept beyond it", (3e-4, 3e-3), of=LocalRegressor, by_kind=True,
        levelling=True, beneath="saturating-by-kind",
    ),
    "blended": _additive(
        "mean of that regression, with what near known merges kept beyond it, and of the five "
        "nearest known merges of the same method", (3e-4, 3e-3), of=BlendedRegressor, by_kind=True,
        levelling=True, beneath="saturating-by-kind",
    ),
    "neighbours": Regressor(
        "k-nearest-neighbour regression", lambda signs, _: NeighbourRegressor(), ships=False
    ),
    "boosting": Regressor("boosted monotone trees", _boosting, ships=False),
}  # fmt: skip
#: The regressor is chosen among some by folds inside the known merges.
CHOSEN = "chosen"
_AMONG = ("additive", "blended")  # and what is beneath


def find_regressor(name: str) -> Regressor:
    """A regressor by its name."""
    if name not in REGRESSORS:
        raise unknown_name("regressor", name, REGRESSORS)
    return REGRESSORS[name]


@dataclasses.dataclass(frozen=True)
class CrossFit:
    """Out-of-fold forecasts, NaN for rows that no fold tests, by the setting of least error."""

    regressor: str
    uses: tuple[FeatureUse, ...]
    setting: Mapping[str, float]
    predicted: np.ndarray
    error: float


def chosen_fit(
    name: str, table: EvidenceTable, choices: Sequence[Sequence[FeatureUse]], folds: Sequence[Fold]
) -> CrossFit:
    """The regressor, setting and features of least absolute error out of fold."""
    among = _AMONG if name == CHOSEN else (name,)
    tried = [_cross_fits(one, table, uses, folds) for uses in choices for one in among]
    every = [found for found in itertools.chain(*tried) if name in (CHOSEN, found.regressor)]
    return min(every, key=lambda found: found.error)


def cross_fit(
    name: str, table: EvidenceTable, uses: Sequence[FeatureUse], folds: Sequence[Fold]
) -> CrossFit:
    """Fit on the training rows of every fold, forecast its test rows, keep the best setting."""
    every = _cross_fits(name, table, uses, folds)
    return min((one for one in every if one.regressor == name), key=lambda found: found.error)


def _cross_fits(
    name: str, table: EvidenceTable, uses: Sequence[FeatureUse], folds: Sequence[Fold]
) -> list[CrossFit]:
    """Every setting of a regressor, after those of the one beneath, which cost nothing more."""
    if not folds:
        raise InputError("there is no way to hold models out: too few merges of other models")
    kind, y = find_regressor(name), outcome(table)
    make, X = _prepared(kind, table, uses)
    names = [kind.beneath, name] if kind.beneath else [name]
    tried = []
    for setting in kind.grid:
        predicted = np.full((len(names), len(table)), np.nan)
        for fold in folds:
            fitted, asked = make(setting).fit(X[fold.train], y[fold.train]), X[fold.test]
            found = fitted.both(asked) if kind.beneath else fitted.predict(asked)
            predicted[:, fold.test] = np.clip(found, LEAST, MOST)
        for one, values in zip(names, predicted, strict=True):
            if setting in find_regressor(one).grid:
                error = float(np.nanmean(np.abs(values - y)))
                tried.append(CrossFit(one, tuple(uses), setting, values, error))
    return sorted(tried, key=lambda found: names.index(found.regressor))


def _prepared(
    kind: Regressor, table: EvidenceTable, uses: Sequence[FeatureUse]
) -> tuple[Callable[[Mapping[str, float]], BaseEstimator], np.ndarray]:
    """What makes an estimator, laid out on a table, with a setting; and the matrix of the table."""
    uses, levels = () if kind.without else uses, sorted(set(table.factor))
    X = matrix_of(table, [use.name for use in uses], levels, by_kind=kind.by_kind)
    signs = [use.direction for use in uses]
    first = kind.make(signs, len(levels))
    layout = {"layout": first.lay_out(X)} if hasattr(first, "lay_out") else {}
    return lambda setting: kind.make(signs, len(levels)).set_params(**layout, **setting), X


@dataclasses.dataclass(frozen=True)
class FittedRegressor:
    """A regressor fitted on evidence, with the names of what its columns are."""

    name: str
    uses: tuple[FeatureUse, ...]
    levels: tuple[str, ...]
    model: AdditiveRegressor

    @classmethod
    def fit(
        cls,
        name: str,
        table: EvidenceTable,
        uses: Sequence[FeatureUse],
        setting: Mapping[str, float],
    ) -> Self:
        """Fit on all rows of a table."""
        kind = find_regressor(name)
        if not kind.ships:
            raise UsageError(f"the regressor '{name}' is a yardstick for validation, not stored")
        make, X = _prepared(kind, table, uses)
        fitted = make(setting).fit(X, outcome(table))
        used = () if kind.without else tuple(uses)
        return cls(name, used, tuple(sorted(set(table.factor))), fitted)

    def matrix(self, table: EvidenceTable) -> np.ndarray:
        """A table as the estimator reads it."""
        names = [use.name for use in self.uses]
        return matrix_of(table, names, self.levels, by_kind=REGRESSORS[self.name].by_kind)

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row."""
        return self.model.predict(self.matrix(table))

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> by how much it moves each row from the mean of known merges."""
        X = self.matrix(table)
        found = [*self.model.effects(X).T]
        names = [*(use.name for use in self.uses), "method"]
        if isinstance(self.model, LocalRegressor):
            plain, kept = self.model.both(X)
            found.append(kept - plain)
            names.append(NEARBY)
        return dict(zip(names, found, strict=True))

    def remember(self, table: EvidenceTable) -> Self:
        """Known merges, which files of predictors hold apart."""
        if isinstance(self.model, LocalRegressor):
            self.model.remember(self.matrix(table), outcome(table))
        return self

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        layout = self.model.layout_
        bases = [
            {"feature": use.name, "direction": basis.direction, "knots": list(basis.knots),
             "centre": list(basis.centre)}
            for use, basis in zip(self.uses, layout.bases, strict=True)
        ]  # fmt: skip
        kinds = [list(KINDS_OF_MERGE)[kind] for kind in layout.kinds]
        return {
            "form": "saturating" if self.model.levelling else "linear",
            "mean": self.model.mean_,
            "weights": self.model.coef_.tolist(),
            "design": {"levels": list(self.levels), "bases": bases, "kinds": kinds},
        }

    @classmethod
    def from_json(cls, name: str, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        if document.get("form") not in ("saturating", "linear"):
            raise InputError(f"a predictor holds an unknown regressor '{document.get('form')}'")
        design = document["design"]
        bases = [Basis(b["direction"], tuple(b["knots"]), tuple(b["centre"]))
                 for b in design["bases"]]  # fmt: skip
        kinds = [list(KINDS_OF_MERGE).index(kind) for kind in design["kinds"]]
        layout = Layout(tuple(range(len(design["levels"]))), tuple(bases), tuple(kinds))
        uses = tuple(FeatureUse(b["feature"], b["direction"]) for b in design["bases"])
        levelling = document["form"] == "saturating"
        model = find_regressor(name).make([use.direction for use in uses], len(design["levels"]))
        model.set_params(levelling=levelling, layout=layout)
        model.layout_, model.mean_ = layout, document["mean"]
        model.coef_ = np.array(document["weights"])
        return cls(name, uses, tuple(design["levels"]), model)
