"""Reasons to say nothing that cost next to nothing: from files and configs, before any weight.

A merge that cannot be made, or that is of another kind than every known merge, is refused here.
What is merely unusual is left to the predictor, which knows how far its own knowledge reaches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from repsim.core.model_ref import ModelRef
from repsim.mergeability.candidate import MergePredictor
from repsim.models.headers import has_weights
from repsim.stats.conformal import LEAST_UNITS

if TYPE_CHECKING:
    from repsim.models.inspect import Located

#: Anything that names a model on disk.
ModelName = str | Path | ModelRef
#: How many times as large as the largest known models, or as small as the smallest, models may be.
#: Nobody has merged models of several sizes in one way, so that nothing tells how far it holds.
SIZE_FACTOR = 3.0
#: By how much a parameter may differ from that of known merges, relative to it.
NEAR_PARAMETER = 0.1
#: Known values of a parameter from which on others between them are forecast too.
SEVERAL = 3


@dataclasses.dataclass(frozen=True)
class Gate:
    """What the files say against a forecast, by outcome; empty where it is nothing."""

    refusals: Mapping[str, str]
    measurable: bool
    notes: tuple[str, ...] = ()


def gate_models(
    models: Sequence[Located],
    stated: Mapping[str, float],
    predictors: Mapping[str, MergePredictor],
    *,
    tokenizer: Literal["same", "map"] = "same",
    text: str = "",
) -> Gate:
    """Hold the files of some models, and `text` in their languages, against what is known."""
    encoders = [found.name for found in models if not _is_decoder(found)]
    if encoders:
        why = (
            f"'{encoders[0]}' does not predict the next token (an encoder), and retention is "
            "defined by that"
        )
        return Gate(dict.fromkeys(predictors, why), _alike(stated))
    weightless = [found.name for found in models if not has_weights(found.folder)]
    errors, notes = _static(models, tokenizer) if not weightless else (_differing(stated), [])
    unweighed = f"'{weightless[0]}' holds no safetensors weights" if weightless else ""
    refusals = {
        outcome: "; ".join(errors)
        or _why_family(models, predictor)
        or _why_size(stated.get("parameters_log10"), predictor)
        or unweighed
        for outcome, predictor in predictors.items()
    }
    notes += [said for said in (_about_text(text, p) for p in predictors.values()) if said]
    measurable = not weightless and (not errors or _alike(stated))
    return Gate(refusals, measurable, tuple(dict.fromkeys(notes)))


def gate_method(
    method: str, alignment: str, predictor: MergePredictor,
    parameters: Mapping[str, Sequence[float]] | None = None,
) -> str:  # fmt: skip
    """Why nothing can be said of a method (with `parameters` by model); empty if it can."""
    known = predictor.combinations()
    methods = list(dict.fromkeys(name for name, _ in known))
    if method not in methods:
        return f"no known merge was made by '{method}' (known: {', '.join(methods)})"
    if (method, alignment) not in known:
        return f"no known merge was made by '{method}' after alignment by {alignment}"
    return _why_parameters(method, predictor.known_parameters(method), parameters or {})


def _why_parameters(
    method: str, known: Mapping[str, Sequence[float]], given: Mapping[str, Sequence[float]]
) -> str:
    from repsim.merging.methods import find_method

    declared = find_method(method)
    defaults = declared.defaults | declared.model_defaults
    normalized = given.get("normalize", (defaults.get("normalize", False),))[0]
    for name, usual in known.items():
        values = [float(value) for value in given.get(name, (defaults[name],))]
        if name == "weight" and normalized:  # only their proportions count
            mean = sum(values) / len(values)
            values = [value / mean if mean else value for value in values]
        if not all(_is_known(value, usual) for value in values):
            said = ", ".join(f"{value:g}" for value in dict.fromkeys(values))
            had = " or ".join(f"{value:g}" for value in usual)
            return (
                f"known merges by '{method}' were made with {name} {had}, this one has {said}, "
                "and none tells what that changes"
            )
        if not all(_is_near(value, values[0]) for value in values):
            return (
                f"known merges by '{method}' had one {name} for all models, this one has "
                f"{', '.join(f'{value:g}' for value in values)}"
            )
    return ""


def _is_known(value: float, usual: Sequence[float]) -> bool:
    """Whether a value is one of the known ones, or lies between them where there are several."""
    between = len(usual) >= SEVERAL and min(usual) <= value <= max(usual)
    return between or any(_is_near(value, one) for one in usual)


def _is_near(value: float, one: float) -> bool:
    return abs(value - one) <= NEAR_PARAMETER * max(abs(one), 1e-12)


def _why_family(models: Sequence[Located], predictor: MergePredictor) -> str:
    from repsim.models.inspect import read_config

    known = predictor.stated("family")
    for found in models if known else ():
        family = str(read_config(found.folder, generic=True)[0].model_type)
        if family in known and known[family] < LEAST_UNITS:
            return (
                f"'{found.name}' is of the family {family}, of which merges of {known[family]} "
                f"groups of parents are known: {LEAST_UNITS} or more tell what errors to expect"
            )
        if family not in known:
            return (
                f"'{found.name}' is of the family {family}, and every known merge is of "
                f"{' or '.join(sorted(known))} models: nothing tells how far off a forecast is"
            )
    return ""


def _about_text(text: str, predictor: MergePredictor) -> str:
    """What is not known of forecasts on a text; how well parents know it is measured (headroom)."""
    known, name = predictor.stated("text"), PurePath(text).name
    if not name or not known or known.get(name, 0) >= LEAST_UNITS:
        return ""
    texts = " or ".join(f"{of} ({groups} groups of parents)" for of, groups in known.items())
    return (
        f"known merges are of models trained on {texts}: of forecasts on '{name}' it is measured "
        "how well each parent knows it, and not known whether intervals hold"
    )


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
    """Refuses what is far from every known size, also between two of them."""
    known, margin = predictor.known_values("parameters_log10"), math.log10(SIZE_FACTOR)
    if found is None or found != found or not known:
        return ""
    if min(abs(found - size) for size in known) <= margin:
        return ""
    runs = [[known[0]]]
    for size in known[1:]:
        runs.append([size]) if size - runs[-1][-1] > 2 * margin else runs[-1].append(size)
    said = " or ".join(_between(_count(10 ** run[0]), _count(10 ** run[-1])) for run in runs)
    return (
        f"the models have {_count(10**found)} parameters, known merges {said}, and a forecast goes "
        f"no further than {SIZE_FACTOR:g} times beyond"
    )


def _between(low: str, high: str) -> str:
    if low == high:
        return low
    return f"{low.split()[0] if low.split()[1:] == high.split()[1:] else low} to {high}"


def _count(number: float) -> str:
    for limit, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= limit:
            return f"{number / limit:.1f}{word}"
    return f"{number:.0f}"
