"""Forecasts of `repsim predict`, kept for the card of the merge that is then made."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from repsim.core.errors import RepsimError
from repsim.core.files import cache_folder, hash_json, read_json, write_json
from repsim.core.forecast import MergeForecast
from repsim.mergeability.question import Question
from repsim.merging.methods import find_method
from repsim.models.headers import weight_files
from repsim.models.inspect import hash_remembered, locate, tokenizer_hash


def remember(asked: Question, forecast: MergeForecast) -> Path | None:
    """Keep a forecast by what its parents weigh; None where they are no folders of weights."""
    path = _path(asked, forecast.predictor)
    # The cache only saves time: one that cannot be written is no reason to fail.
    with contextlib.suppress(RepsimError, OSError):
        return path and write_json(path, forecast.to_dict())
    return None


def recall(asked: Question, predictor: str) -> MergeForecast | None:
    """The forecast that was last made of these weights in this way by this predictor."""
    path = _path(asked, predictor)
    if path is None or not path.is_file():
        return None
    with contextlib.suppress(RepsimError):
        return MergeForecast.from_dict(read_json(path))
    return None


def _path(asked: Question, predictor: str) -> Path | None:
    # A base of other methods is that of the gain alone: the merge, which reads none, is the same.
    method = find_method(asked.method)
    base = asked.base if method.needs_base or method.takes_base else None
    parents = _weighed([*asked.models, *([base] if base else [])])
    if parents is None:
        return None
    way = [asked.method, asked.alignment, base is not None, asked.tokenizer,
           sorted(asked.parameters.items())]  # fmt: skip
    return cache_folder() / "forecasts" / f"{hash_json([parents, way, predictor])}.json"


def _weighed(models: Sequence[str]) -> list[list[str]] | None:
    """Hashes of weights and tokenizers."""
    found = []
    try:
        for model in models:
            located = locate(model)
            weights = located.weights_hash or hash_remembered(weight_files(located.folder))
            found.append([located.name, weights, tokenizer_hash(located.folder)])
    except (RepsimError, OSError):
        return None
    return found
