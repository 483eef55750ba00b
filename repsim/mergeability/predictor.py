"""The predictor: fitted on known merges, it forecasts others or says why it cannot."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.core.forecast import Interval, KnownMerge
from repsim.core.pool import one_thread
from repsim.mergeability.candidate import NEARBY, RETENTION, Beside, Candidate, Doubt, Prediction
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.evidence_files import evidence_of
from repsim.mergeability.feature_sets import (
    DEFAULT_SET,
    STATED,
    at_hand,
    forecasting_sets,
    measured_of,
    stated_in,
    with_derived,
)
from repsim.mergeability.features.recipe import NAMES as RECIPE
from repsim.mergeability.part import BLOCKS, Forecasts, Part, doubts_beside, fit_part
from repsim.mergeability.regressors import CHOSEN, find_regressor

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

SCHEMA = "repsim/predictor/4"
_EARLIER = ("repsim/predictor/2", "repsim/predictor/3")
PREDICTOR_FILE, EVIDENCE_FILE = "predictor.json", "evidence.parquet"
#: Known merges that a value is held beside.
BESIDE = 20


class Predictor(RegressorMixin, BaseEstimator):
    """Forecasts of merges: an estimator of scikit-learn whose rows are merges and languages.

    `X` is an `EvidenceTable`, or rows of the data frame that its `to_pandas` gives: features are
    the columns `feature:NAME`, their tiers and the lineage of models travel in `attrs`, and what
    the predictor makes of measured features it makes anew. So `GroupKFold`, `cross_val_predict`
    and `permutation_importance` apply; folds that share no model come from `leave_models_out`.

    Args:
        regressor: Name of the regressor, see `repsim.mergeability.regressors`; "chosen": for every
            set of tiers by folds inside the known merges, as are its features.
        features: Features instead of the chosen ones; "name:+" states a direction.
        tiers: The one set of tiers to fit on; if None, every nested set that the evidence has.
        blocks: Blocks of models that are held out to learn errors.
        seed: Of the dealing of blocks.
        outcome: "retention", or "gain_kept": the share of what the best parent gained over the base
            that the merge keeps, of merges whose base is known. "Collapse" is then less than half.

    Attributes:
        parts_: Name of a set of tiers -> its predictor.
        evidence_: Known merges.
        version: Name of a predictor that was released; empty for others.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> frame = planted_evidence(models=12).to_pandas()
        >>> predictor = Predictor(regressor="additive", blocks=3).fit(frame)
        >>> low, high = predictor.predict_interval(frame.iloc[:3])
        >>> bool((low < predictor.predict(frame.iloc[:3])).all())
        True
    """

    version = ""

    def __init__(
        self,
        regressor: str = CHOSEN,
        *,
        features: Sequence[str] = (),
        tiers: Sequence[str] | None = None,
        blocks: int = BLOCKS,
        seed: int = 0,
        outcome: str = RETENTION,
    ) -> None:
        self.regressor = regressor
        self.features = features
        self.tiers = tiers
        self.blocks = blocks
        self.seed = seed
        self.outcome = outcome

    def fit(self, X: EvidenceTable | pd.DataFrame, y: ArrayLike | None = None) -> Self:
        """Fit on known merges, once for every set of tiers.

        Args:
            X: Known merges.
            y: Their retention `[rows]`; that of `X` if None.

        Returns:
            Itself. The same evidence and settings give the same numbers.

        Raises:
            InputError: There are too few merges or models, a number is infinite or missing, or the
                outcome is of no merge known.
            UsageError: The regressor cannot be stored, or no feature is of use.
        """
        if self.regressor != CHOSEN and not find_regressor(self.regressor).ships:
            raise UsageError(f"the regressor '{self.regressor}' is a yardstick and is not stored")
        evidence = evidence_of(X).of_outcome(self.outcome)
        if y is not None:
            evidence = evidence.with_columns({"retention": np.asarray(y, dtype=np.float64)})
        evidence.require_known()
        table = with_derived(evidence)
        if self.tiers:
            sets = {"+".join(self.tiers): tuple(self.tiers)}
        elif self.features:
            named = (name.partition(":")[0] for name in self.features)
            sets = {"table": tuple(dict.fromkeys(table.tiers.get(n, "table") for n in named))}
        else:
            sets = forecasting_sets(table)
        # One thread: sums in another order may tip a choice between regressors.
        with one_thread():
            fitted = {
                name: fit_part(
                    table, tiers, kind=self.regressor, features=self.features, blocks=self.blocks,
                    seed=self.seed,
                )
                for name, tiers in sets.items()
            }  # fmt: skip
        self.parts_: dict[str, Part] = {name: part for name, (part, _) in fitted.items()}
        if DEFAULT_SET in fitted:
            full, theirs = fitted[DEFAULT_SET]
            for name, (part, mine) in fitted.items():
                if len(measured_of(part.tiers)) < len(full.tiers):
                    doubts = doubts_beside(table, mine, theirs, full.tiers[-1])
                    self.parts_[name] = dataclasses.replace(part, doubts=doubts)
        self.evidence_ = table
        return self

    def predict(self, X: EvidenceTable | pd.DataFrame) -> np.ndarray:
        """Retention of each row `[rows]`, from -1 to 1.2, outside the applicability domain too.

        Of the nested predictors that of most tiers is asked of which `X` has features;
        `forecast` tells which rows should rather have been refused.

        Raises:
            UsageError: `X` has too few tiers.
        """
        table = with_derived(evidence_of(X))
        return self._part(table).predict(table)

    def predict_interval(self, X: EvidenceTable | pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of the 90 % interval of each row, `[rows]` each."""
        table = with_derived(evidence_of(X))
        part = self._part(table)
        found = part.forecast(table, self.evidence_)
        return found.low, found.high

    def forecast(
        self, X: EvidenceTable | pd.DataFrame, *, tiers: str = "", of_method: bool = True
    ) -> Forecasts:
        """All that can be said of rows and their merges, with the reason why each may be refused.

        Args:
            X: Merges.
            tiers: Name of the set of tiers to ask; of most tiers that `X` has if empty.
            of_method: Whether a method that no known merge was made by is a reason to refuse.
        """
        table = with_derived(evidence_of(X))
        part = self.parts_[tiers] if tiers else self._part(table)
        return part.forecast(table, self.evidence_, of_method=of_method)

    @property
    def identity(self) -> str:
        """Name for readers: its version, or the start of its hash, and the number of merges."""
        version = self.version or hash_json(self.to_json())[:8]
        return f"predictor {version} ({len(self.evidence_.merges()[1]):,} merges)"

    def _part(self, table: EvidenceTable) -> Part:
        return self.part_for(sorted(at_hand(table)))

    def part_for(self, tiers: Sequence[str]) -> Part:
        """The predictor of the largest set of tiers that is at hand."""
        return self._parts_for(tiers)[0]

    def _parts_for(self, tiers: Sequence[str]) -> list[Part]:
        """The same, then those of the same measured tiers with less of what is stated."""
        check_is_fitted(self)
        able = [part for part in self.parts_.values() if set(part.tiers) <= {*tiers, "table"}]
        if not able:
            needed = min(self.parts_.values(), key=lambda part: len(part.tiers)).tiers
            raise UsageError(
                f"features of {', '.join(tiers)} are at hand, and {', '.join(needed)} are needed"
            )
        most = max(len(measured_of(part.tiers)) for part in able)
        fullest = [part for part in able if len(measured_of(part.tiers)) == most]
        return sorted(fullest, key=lambda part: -len(part.tiers))

    def combinations(self) -> list[tuple[str, str]]:
        """Pairs of method and alignment among known merges."""
        pairs = (factor.split("|") for factor in sorted(set(self.evidence_.factor)))
        return [(method, alignment) for method, alignment in pairs]

    def known_parameters(self, method: str) -> dict[str, tuple[float, ...]]:
        """Numbers that known merges by a method were made with, its defaults included."""
        from repsim.merging.methods import find_method

        table = self.evidence_
        stated = {text for text in table["parameters"][table["method"] == method] if text}
        declared, found = find_method(method), dict[str, set[float]]()
        for text in stated:
            every = declared.defaults | declared.model_defaults | json.loads(text)
            for name, value in every.items():
                if type(value) in (int, float):
                    found.setdefault(name, set()).add(float(value))
        return {name: tuple(sorted(values)) for name, values in found.items()}

    def known_settings(self, method: str, alignment: str) -> list[dict[str, float]]:
        """Sets of numbers that known merges by a method had, those left out being its defaults."""
        texts = self.evidence_["parameters"][self.evidence_.factor == f"{method}|{alignment}"]
        every = (json.loads(text or "{}") for text in sorted(set(texts)))
        numbers = (
            {name: float(value) for name, value in one.items() if type(value) in (int, float)}
            for one in every
        )
        return list({json.dumps(one): one for one in numbers}.values())

    def stated(self, column: str) -> dict[str, int]:
        """Family or text -> groups of parents among known merges whose source states it."""
        pairs = set(zip(self.evidence_[column], self.evidence_["parents"], strict=True))
        return dict(sorted(Counter(str(value) for value, _ in pairs if value).items()))

    def known_values(self, feature: str) -> tuple[float, ...]:
        """Distinct values of a feature among known merges, the least first."""
        values = self.evidence_.features.get(feature, np.empty(0))
        return tuple(np.unique(values[np.isfinite(values)]).tolist())

    def answer(self, candidate: Candidate) -> Prediction:
        """Forecast one merge, or refuse."""
        table = with_derived(EvidenceTable.of_candidate(candidate, self.evidence_.tiers))
        try:
            parts = self._parts_for([*candidate.tiers, *stated_in(table)])
        except UsageError as error:
            return Prediction(refusal=error.what)
        for part in parts:  # a history unlike those of known merges leaves what was measured
            found = part.forecast(table, self.evidence_)
            refusal = next((why for why in found.refusals if why), "")
            if not refusal:
                break
        row = int(np.argmin(found.predicted))
        nearest = self._nearest(part, table, row)
        if refusal:
            return Prediction(refusal=refusal, nearest=nearest)
        effects = {name: float(v[row]) for name, v in part.effects(table).items()}
        ends = zip(found.predicted, found.low, found.high, strict=True)
        return Prediction(
            kept={
                str(language): Interval(float(value), float(low), float(high))
                for language, (value, low, high) in zip(table["language"], ends, strict=True)
            },
            worst=Interval(
                float(found.worst[0]), float(found.worst_low[0]), float(found.worst_high[0])
            ),
            p_collapse=float(found.p_collapse[0]),
            p_useful=_known(found.p_useful[0]),
            effects=effects,
            values={
                **{name: effect for name, effect in effects.items() if name == NEARBY},
                **{name: float(table[name][row]) for name in RECIPE if name in table.features},
            },
            nearest=nearest,
            doubt=found.doubts[0],
            stated=tuple(kind for kind in STATED if kind in part.tiers),
        )

    def _nearest(
        self, part: Part, table: EvidenceTable, row: int, count: int = 5
    ) -> tuple[KnownMerge, ...]:
        """Nearest known merges of the same method, or of any if it is not known; each once."""
        factor = self.evidence_.factor
        rows = np.flatnonzero(factor == table.factor[row])
        rows = rows if len(rows) else np.arange(len(self.evidence_))
        gaps = part.domain.points(self.evidence_.take(rows)) - part.domain.points(table)[row]
        distance = np.sqrt((gaps**2).mean(axis=1))
        found: dict[str, KnownMerge] = {}
        for near in np.argsort(distance, kind="stable"):
            at = rows[near]
            name = str(self.evidence_["merge"][at])
            if name not in found:
                found[name] = KnownMerge(
                    name, str(self.evidence_["language"][at]), float(distance[near]),
                    float(self.evidence_["retention"][at]),
                )  # fmt: skip
            if len(found) == count:
                break
        return tuple(found.values())

    def beside(self, feature: str, value: float, candidate: Candidate) -> Beside | None:
        """Where a value lies among known merges of that method and alignment, if these differ."""
        values = self.evidence_.features.get(feature)
        factor = f"{candidate.method}|{candidate.alignment}"
        if values is None or not np.isfinite(value):
            return None
        rows = np.flatnonzero((self.evidence_.factor == factor) & np.isfinite(values))
        if not len(rows) or np.ptp(values[rows]) == 0:
            return None
        near = rows[np.argsort(np.abs(values[rows] - value), kind="stable")[:BESIDE]]
        typical, usual = (float(np.median(self.evidence_["retention"][of])) for of in (near, rows))
        return Beside(float((values[rows] < value).mean()), typical, usual)

    def to_json(self) -> dict[str, Any]:
        """JSON-able: everything but the known merges, which are named by their hash."""
        return {
            "schema": SCHEMA,
            **({"version": self.version} if self.version else {}),
            "settings": {**self.get_params(), "features": list(self.features)},
            "evidence": self.evidence_.hash,
            "parts": {name: part.to_json() for name, part in self.parts_.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write `predictor.json` and `evidence.parquet` into a folder."""
        target = Path(folder)
        self.evidence_.save(target / EVIDENCE_FILE)
        write_json(target / PREDICTOR_FILE, self.to_json(), indent=None)
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Predictor:
        """Read what `save` wrote.

        Raises:
            InputError: Missing, damaged, or the two files do not belong together.
        """
        source = Path(folder)
        document = read_json(source / PREDICTOR_FILE)
        current = document.get("schema") == SCHEMA  # hashes of earlier tables were others
        if document.get("schema") in _EARLIER:
            document = _upgraded(document)
        elif document.get("schema") != SCHEMA:
            raise InputError(f"'{source}' holds no predictor of the kind {SCHEMA}")
        evidence = EvidenceTable.load(source / EVIDENCE_FILE)
        if current and evidence.hash != document["evidence"]:
            raise InputError(
                f"the table in '{source}' is not the one that its predictor was fitted on",
                hint="fit it again: repsim predictor fit",
            )
        made = cls(**document["settings"])
        made.parts_ = {name: Part.from_json(part) for name, part in document["parts"].items()}
        made.evidence_, made.version = evidence, document.get("version", "")
        for part in made.parts_.values():
            part.regressor.remember(evidence)
        return made


def _upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the version before: nothing is open beyond what is usual."""
    doubts = [dataclasses.asdict(Doubt())] * 2
    parts = {name: {"doubts": doubts, **part} for name, part in document["parts"].items()}
    return {**document, "parts": parts}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def shipped_folder(outcome: str = RETENTION) -> Path:
    """Folder of the predictor of an outcome that ships with the package."""
    folder = Path(__file__).parent / "shipped"
    return folder if outcome == RETENTION else folder / outcome


def shipped_predictor(outcome: str = RETENTION) -> Predictor:
    """The predictor that ships with the package, fitted on the shipped atlas.

    Args:
        outcome: "retention" or "gain_kept".

    Raises:
        InputError: This installation does not hold it.
    """
    folder = shipped_folder(outcome)
    if not (folder / PREDICTOR_FILE).exists():
        raise InputError(
            f"this installation holds no fitted predictor of {outcome.replace('_', ' ')}",
            hint=f"fit one: repsim predictor fit ATLAS --outcome {outcome} -o DIR",
        )
    return Predictor.load(folder)
