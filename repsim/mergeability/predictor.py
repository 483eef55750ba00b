"""The predictor: fitted on known merges, it forecasts others or says why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.core.forecast import Interval, KnownMerge
from repsim.mergeability.candidate import Beside, Candidate, Prediction
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import forecasting_sets, with_as_merged
from repsim.mergeability.part import BLOCKS, Forecasts, Part, fit_part
from repsim.mergeability.regressors import find_regressor

SCHEMA, _EARLIER = "repsim/predictor/2", "repsim/predictor/1"
PREDICTOR_FILE, EVIDENCE_FILE = "predictor.json", "evidence.parquet"
#: Unless another is asked for; chosen by validation on the shipped atlas.
DEFAULT_REGRESSOR = "saturating-by-kind"
#: Known merges that a value is held beside.
BESIDE = 20


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Predictors of nested sets of tiers, and the merges that they know.

    Attributes:
        parts: Name of a set of tiers -> its predictor.
        evidence: Known merges.
        settings: What it was fitted with.
        version: Name of a predictor that was released; empty for others.
    """

    parts: Mapping[str, Part]
    evidence: EvidenceTable
    settings: Mapping[str, Any]
    version: str = ""

    @classmethod
    def fit(
        cls,
        evidence: EvidenceTable,
        *,
        regressor: str = DEFAULT_REGRESSOR,
        features: Sequence[str] = (),
        blocks: int = BLOCKS,
        seed: int = 0,
    ) -> Predictor:
        """Fit on known merges, once for every set of tiers that they have features of.

        Args:
            evidence: Known merges.
            regressor: Name of the regressor; see `repsim.mergeability.regressors`.
            features: Features instead of the chosen ones; "name:+" states a direction.
            blocks: Blocks of models that are held out to learn errors.
            seed: Of the dealing of blocks.

        Returns:
            The predictor. The same evidence and settings give the same numbers.

        Raises:
            InputError: There are too few merges or models.
            UsageError: The regressor cannot be stored, or no feature is of use.

        Example:
            >>> from repsim.testing.evidence import planted_evidence
            >>> predictor = Predictor.fit(planted_evidence(models=12))
            >>> list(predictor.parts)
            ['table']
        """
        if not find_regressor(regressor).ships:
            raise UsageError(f"the regressor '{regressor}' is a yardstick and is not stored")
        evidence.require_finite()
        table = with_as_merged(evidence)
        sets = {"table": tuple(table.tiers.values())} if features else forecasting_sets(table)
        parts = {
            name: fit_part(
                table, tuple(dict.fromkeys(tiers)), kind=regressor, features=features,
                blocks=blocks, seed=seed,
            )
            for name, tiers in sets.items()
        }  # fmt: skip
        settings = {
            "regressor": regressor,
            "features": list(features),
            "blocks": blocks,
            "seed": seed,
        }
        return cls(parts, table, settings)

    @property
    def identity(self) -> str:
        """Name for readers: its version, or the start of its hash, and the number of merges."""
        version = self.version or hash_json(self.to_json())[:8]
        return f"predictor {version} ({len(self.evidence.merges()[1]):,} merges)"

    @property
    def regressor(self) -> str:
        """Name of its regressor."""
        return str(self.settings["regressor"])

    def part_for(self, tiers: Sequence[str]) -> Part:
        """The predictor of the largest set of tiers that is at hand."""
        able = [part for part in self.parts.values() if set(part.tiers) <= {*tiers, "table"}]
        if not able:
            needed = min(self.parts.values(), key=lambda part: len(part.tiers)).tiers
            raise UsageError(
                f"features of {', '.join(tiers)} are at hand, and {', '.join(needed)} are needed"
            )
        return max(able, key=lambda part: len(part.tiers))

    def forecast(self, table: EvidenceTable, tiers: Sequence[str]) -> Forecasts:
        """Predict the merges of a table."""
        return self.part_for(tiers).forecast(with_as_merged(table), self.evidence)

    def combinations(self) -> list[tuple[str, str]]:
        """Pairs of method and alignment among known merges."""
        pairs = (factor.split("|") for factor in sorted(set(self.evidence.factor)))
        return [(method, alignment) for method, alignment in pairs]

    def known_range(self, feature: str) -> tuple[float, float] | None:
        """Least and largest value of a feature among known merges; None if there is none."""
        values = self.evidence.features.get(feature)
        if values is None or not np.isfinite(values).any():
            return None
        return float(np.nanmin(values)), float(np.nanmax(values))

    def predict(self, candidate: Candidate) -> Prediction:
        """Forecast one merge, or refuse."""
        table = with_as_merged(EvidenceTable.of_candidate(candidate, self.evidence.tiers))
        try:
            part = self.part_for(candidate.tiers)
        except UsageError as error:
            return Prediction(refusal=error.what)
        found = part.forecast(table, self.evidence)
        row = int(np.argmin(found.predicted))
        nearest = self._nearest(part, table, row)
        refusal = next((why for why in found.refusals if why), "")
        if refusal:
            return Prediction(refusal=refusal, nearest=nearest)
        ends = zip(found.predicted, found.low, found.high, strict=True)
        return Prediction(
            retention={
                str(language): Interval(float(value), float(low), float(high))
                for language, (value, low, high) in zip(table["language"], ends, strict=True)
            },
            worst=Interval(
                float(found.worst[0]), float(found.worst_low[0]), float(found.worst_high[0])
            ),
            p_collapse=float(found.p_collapse[0]),
            p_useful=_known(found.p_useful[0]),
            effects={name: float(v[row]) for name, v in part.effects(table).items()},
            nearest=nearest,
        )

    def _nearest(
        self, part: Part, table: EvidenceTable, row: int, count: int = 5
    ) -> tuple[KnownMerge, ...]:
        """Nearest known merges of the same method, or of any if it is not known; each once."""
        factor = self.evidence.factor
        rows = np.flatnonzero(factor == table.factor[row])
        rows = rows if len(rows) else np.arange(len(self.evidence))
        gaps = part.domain.points(self.evidence.take(rows)) - part.domain.points(table)[row]
        distance = np.sqrt((gaps**2).mean(axis=1))
        found: dict[str, KnownMerge] = {}
        for near in np.argsort(distance, kind="stable"):
            at = rows[near]
            name = str(self.evidence["merge"][at])
            if name not in found:
                found[name] = KnownMerge(
                    name, str(self.evidence["language"][at]), float(distance[near]),
                    float(self.evidence["retention"][at]),
                )  # fmt: skip
            if len(found) == count:
                break
        return tuple(found.values())

    def beside(self, feature: str, value: float, candidate: Candidate) -> Beside | None:
        """Where a value of a feature lies among known merges of that method and alignment."""
        values = self.evidence.features.get(feature)
        factor = f"{candidate.method}|{candidate.alignment}"
        if values is None or not np.isfinite(value):
            return None
        rows = np.flatnonzero((self.evidence.factor == factor) & np.isfinite(values))
        if not len(rows):
            return None
        near = rows[np.argsort(np.abs(values[rows] - value), kind="stable")[:BESIDE]]
        typical = float(np.median(self.evidence["retention"][near]))
        return Beside(float((values[rows] < value).mean()), typical, len(near))

    def to_json(self) -> dict[str, Any]:
        """JSON-able: everything but the known merges, which are named by their hash."""
        return {
            "schema": SCHEMA,
            **({"version": self.version} if self.version else {}),
            "settings": dict(self.settings),
            "evidence": self.evidence.hash,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write `predictor.json` and `evidence.parquet` into a folder."""
        target = Path(folder)
        self.evidence.save(target / EVIDENCE_FILE)
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
        if document.get("schema") == _EARLIER:
            document = _upgraded(document)
        elif document.get("schema") != SCHEMA:
            raise InputError(f"'{source}' holds no predictor of the kind {SCHEMA}")
        evidence = EvidenceTable.load(source / EVIDENCE_FILE)
        if evidence.hash != document["evidence"]:
            raise InputError(
                f"the table in '{source}' is not the one that its predictor was fitted on",
                hint="fit it again: repsim predictor fit",
            )
        parts = {name: Part.from_json(part) for name, part in document["parts"].items()}
        return cls(parts, evidence, document["settings"], document.get("version", ""))


def _upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the first version under the names of the second."""
    settings = dict(document["settings"])
    if "law" in settings:
        settings["regressor"] = settings.pop("law")
    parts = {}
    for name, stored in document["parts"].items():
        part = dict(stored)
        fitted = dict(part.pop("law"))
        fitted["form"] = fitted.pop("law")
        part["regressor"], part["alpha"] = fitted, part.pop("strength")
        part["shrinks"] = part.pop("bends", False)
        parts[name] = part
    return {**document, "settings": settings, "parts": parts}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def shipped_folder() -> Path:
    """Folder of the predictor that ships with the package."""
    return Path(__file__).parent / "shipped"


def shipped_predictor() -> Predictor:
    """The predictor that ships with the package, fitted on the shipped atlas.

    Raises:
        InputError: This installation does not hold it.
    """
    folder = shipped_folder()
    if not (folder / PREDICTOR_FILE).exists():
        raise InputError(
            "this installation holds no fitted predictor",
            hint="fit one: repsim predictor fit ATLAS -o DIR",
        )
    return Predictor.load(folder)
