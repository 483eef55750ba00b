"""What a candidate law must be able to do, and the list of candidates."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from repsim.core.errors import InputError, unknown_name
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import FeatureUse

#: Retention below this counts as this much: worse than unigrams by as much again as the parents are
#: better. How far beyond that a merge is destroyed is of no use to anybody, and would rule the fit.
LEAST, MOST = -1.0, 1.2
#: Significant digits that are stored, fewer than a double has, so that a refit on another machine,
#: whose linear algebra may differ in the last bits, writes the same file.
DIGITS = 9


def outcome(table: EvidenceTable) -> np.ndarray:
    """Retention, brought into the range that is fitted and scored."""
    return np.clip(table["retention"], LEAST, MOST)


class Fitted(Protocol):
    """A law with its numbers."""

    def predict(self, table: EvidenceTable) -> np.ndarray:
        """Retention of each row."""
        ...

    def effects(self, table: EvidenceTable) -> dict[str, np.ndarray]:
        """Feature (and "method") -> by how much it moves each row from the mean of known merges."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `fitted_from_json` reads it."""
        ...


class Kind(Protocol):
    """A candidate law: how it is fitted.

    Attributes:
        name: Name.
        label: Name for people.
        strengths: Settings of its regularisation that validation inside the training rows chooses
            from; one if there is nothing to choose.
        ships: Whether it can be stored as JSON; a law that cannot is a yardstick only.
    """

    name: str
    label: str
    strengths: Sequence[float]
    ships: bool

    def prepare(self, table: EvidenceTable, uses: Sequence[FeatureUse]) -> Prepared:
        """Do what all fits on subsets of the rows have in common."""
        ...


class Prepared(Protocol):
    """A table made ready for many fits on subsets of its rows."""

    def fit(self, rows: np.ndarray, strength: float) -> Fitted:
        """Fit on some rows."""
        ...

    def predict(self, fitted: Fitted, rows: np.ndarray) -> np.ndarray:
        """Predict others of the same table."""
        ...


#: Name -> module and attribute of a candidate.
_KINDS = {
    "mean": ("repsim.mergeability.models.means", "MEAN"),
    "ridge": ("repsim.mergeability.models.linear", "RIDGE"),
    "additive": ("repsim.mergeability.models.linear", "ADDITIVE"),
    "additive-by-kind": ("repsim.mergeability.models.linear", "ADDITIVE_BY_KIND"),
    "saturating": ("repsim.mergeability.models.saturating", "SATURATING"),
    "saturating-by-kind": ("repsim.mergeability.models.saturating", "SATURATING_BY_KIND"),
    "neighbours": ("repsim.mergeability.models.neighbours", "NEIGHBOURS"),
    "boosting": ("repsim.mergeability.models.boosting", "BOOSTING"),
}


class _Kinds(Mapping[str, Kind]):
    """Candidates by name, imported when asked for."""

    def __getitem__(self, name: str) -> Kind:
        if name not in _KINDS:
            raise unknown_name("law", name, _KINDS)
        module, attribute = _KINDS[name]
        kind: Kind = getattr(importlib.import_module(module), attribute)
        return kind

    def __iter__(self) -> Any:
        return iter(_KINDS)

    def __len__(self) -> int:
        return len(_KINDS)


#: Candidates by name, the simplest first.
MODELS: Mapping[str, Kind] = _Kinds()


def fitted_from_json(document: Mapping[str, Any]) -> Fitted:
    """Read what `Fitted.to_json` wrote.

    Raises:
        InputError: It is no law that can be stored.
    """
    from repsim.mergeability.models.linear import LinearLaw
    from repsim.mergeability.models.saturating import SaturatingLaw

    if document.get("law") == "linear":
        return LinearLaw.from_json(document)
    if document.get("law") == "saturating":
        return SaturatingLaw.from_json(document)
    raise InputError(f"a predictor holds an unknown law '{document.get('law')}'")


def rounded(values: np.ndarray | Sequence[float]) -> list[float]:
    """Numbers as they are stored."""
    return [float(f"{float(value):.{DIGITS}g}") + 0.0 for value in values]
