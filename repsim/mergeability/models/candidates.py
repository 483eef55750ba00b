"""The candidate laws by name, and laws from files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from repsim.core.errors import InputError, unknown_name
from repsim.mergeability.models.base import Fitted, Kind

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
