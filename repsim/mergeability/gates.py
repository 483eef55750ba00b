"""Reasons to say nothing that cost next to nothing: from files and configs, before any weight.

A merge that cannot be made, or that is of another kind than every known merge, is refused here.
What is merely unusual is left to the predictor, which knows how far its own knowledge reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repsim.core.model_ref import ModelRef
from repsim.mergeability.candidate import MergePredictor
from repsim.models.headers import has_weights

if TYPE_CHECKING:
    from repsim.models.inspect import Located

#: Anything that names a model on disk.
ModelName = str | Path | ModelRef
#: How far beyond the sizes of known models a forecast is tried: a factor of ten either way.
SIZE_MARGIN = 1.0


@dataclasses.dataclass(frozen=True)
class Gate:
    """What the files say against a forecast."""

    refusal: str
    measurable: bool
    notes: tuple[str, ...] = ()


def gate_models(
    models: Sequence[Located],
    stated: Mapping[str, float],
    predictor: MergePredictor,
    *,
    tokenizer: Literal["same", "map"] = "same",
) -> Gate:
    """Hold the files of some models against what can be merged and what is known."""
    encoders = [found.name for found in models if not _is_decoder(found)]
    if encoders:
        return Gate(
            f"'{encoders[0]}' does not predict the next token (an encoder), and retention is "
            "defined by that",
            _alike(stated),
        )
    weightless = [found.name for found in models if not has_weights(found.folder)]
    errors, notes = _static(models, tokenizer) if not weightless else (_differing(stated), [])
    if errors:
        return Gate("; ".join(errors), _alike(stated) and not weightless, tuple(notes))
    if size := _why_size(stated.get("parameters_log10"), predictor):
        return Gate(size, not weightless, tuple(notes))
    if weightless:
        return Gate(f"'{weightless[0]}' holds no safetensors weights", measurable=False)
    return Gate("", measurable=True, notes=tuple(notes))


def gate_method(method: str, alignment: str, predictor: MergePredictor) -> str:
    """Why nothing can be said of a method before anything is measured; empty if something can."""
    known = predictor.combinations()
    methods = list(dict.fromkeys(name for name, _ in known))
    if method not in methods:
        return f"no known merge was made by '{method}' (known: {', '.join(methods)})"
    if (method, alignment) not in known:
        return f"no known merge was made by '{method}' after alignment by {alignment}"
    return ""


def _is_decoder(found: Located) -> bool:
    from repsim.models.inspect import read_config

    _, spec = read_config(found.folder, generic=True)
    return spec.decoder


def _static(
    located: Sequence[Located], tokenizer: Literal["same", "map"]
) -> tuple[list[str], list[str]]:
    """Errors and warnings of the static check, each once."""
    from repsim.merging.check import check_models

    findings = check_models([found.folder for found in located], tokenizer=tokenizer)
    told: dict[str, list[str]] = {"error": [], "warning": []}
    for finding in findings:
        if finding.level in told:
            text = f"{finding.check}: {finding.what} ({finding.where})"
            told[finding.level].append(text)
    errors = list(dict.fromkeys(told["error"]))
    if len(errors) > 3:
        errors = [*errors[:3], f"and {len(errors) - 3} more, see: repsim check"]
    return errors, list(dict.fromkeys(told["warning"]))


def _differing(stated: Mapping[str, float]) -> list[str]:
    """What T0 alone says against a merge, where there are no weights to look at."""
    said = {
        "same_architecture_worst": "the models are of different architectures",
        "same_shape_worst": "the models have different shapes",
        "same_tokenizer_worst": "the models have different tokenizers",
    }
    return [text for name, text in said.items() if stated.get(name) == 0.0]


def _alike(stated: Mapping[str, float]) -> bool:
    """Whether weights can be compared one by one."""
    return all(
        stated.get(name) == 1.0 for name in ("same_architecture_worst", "same_shape_worst")
    )  # fmt: skip


def _why_size(found: float | None, predictor: MergePredictor) -> str:
    known = predictor.known_range("parameters_log10")
    if found is None or found != found or known is None:
        return ""
    if known[0] - SIZE_MARGIN <= found <= known[1] + SIZE_MARGIN:
        return ""
    low, high = _count(10 ** known[0]), _count(10 ** known[1])
    if low.split()[1:] == high.split()[1:]:
        low = low.split()[0]
    return f"the models have {_count(10**found)} parameters, known merges {low} to {high}"


def _count(number: float) -> str:
    for limit, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= limit:
            return f"{number / limit:.1f}{word}"
    return f"{number:.0f}"
