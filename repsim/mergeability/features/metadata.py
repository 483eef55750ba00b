"""T0: what configs, tokenizers and provenance say, before one weight is read."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef
from repsim.mergeability.features.base import FeatureSpec, FeatureValue, TierResult, declare
from repsim.mergeability.features.declared import (
    Declared,
    architecture_differences,
    fork_fraction,
    read_declared,
    shared_init,
)
from repsim.merging.tensors import is_tied, merged_names
from repsim.models.inspect import TensorHeader, count_parameters

#: Keys that change what weights of equal shape mean.
ASPECTS = (
    "model_type", "is_decoder", "is_encoder_decoder", "hidden_act", "activation_function",
    "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "rope_theta",
    "rope_scaling", "rope_parameters", "rotary_pct", "rms_norm_eps", "layer_norm_eps",
    "layer_norm_epsilon",
)  # fmt: skip
_FORK = "Frankle et al. 2020 (arXiv 1912.05671): training after a shared start stays mergeable"
_CHECK = "static conditions of averaging weights"
_DOSE = "Frankle et al. 2020; over-training hurts merging (arXiv 2506.14126)"

#: name -> label, definition, direction, source, whether it is free of scale.
_PAIRS: dict[str, tuple[str, str, int, str]] = {
    "same_architecture": (
        "same architecture", "1 if family, heads, positions, activation and norms agree", +1, _CHECK
    ),
    "same_shape": (
        "same shapes", "1 if all merged tensors have the same names and shapes", +1, _CHECK
    ),
    "same_tokenizer": (
        "same tokenizer", "1 if both cut any text into the same ids", +1, _CHECK
    ),
    "token_overlap": (
        "tokens in common", "Jaccard overlap of the sets of token strings", +1, _CHECK
    ),
    "shared_init": (
        "same initial weights (stated)",
        "1 if provenance states one set of initial weights, 0 if two, unknown if it says nothing",
        +1, _FORK,
    ),
    "fork_fraction": (
        "share of training in common",
        "tokens read as one model over all tokens, of the parent for which it is less", +1, _FORK,
    ),
    "language_overlap": (
        "languages in common", "Jaccard overlap of the languages that the parents state", 0,
        "none: a description of the group",
    ),
}  # fmt: skip
_MODELS: dict[str, tuple[str, str, int, str]] = {
    "own_share": (
        "share of training alone", "tokens of the last phase over all tokens", -1, _DOSE
    ),
    "update_budget": (
        "budget of updates, log10",
        "log10 of peak learning rate times square root of the updates of the last phase", -1,
        "PRISM: the update grows with rate and the square root of tokens",
    ),
}  # fmt: skip
_GROUP: dict[str, tuple[str, str, int, str, bool]] = {
    "k": ("number of parents", "how many models are merged", -1,
          "merging scaling laws (arXiv 2509.24244)", True),
    "parameters_log10": ("parameters, log10", "log10 of the mean number of parameters", +1,
                         "Yadav et al. 2024 (arXiv 2410.03617): larger models merge better", False),
    "tokens_log10": ("tokens, log10", "log10 of the tokens of the shortest history", 0,
                     "none: a description of the group", False),
}  # fmt: skip
_LANGUAGES: dict[str, tuple[str, str, int, str]] = {
    "speakers": (
        "share of parents of the language", "share of parents that state the language as theirs",
        +1, "averaging weighs each parent alike",
    ),
    "exposure": (
        "share of training in the language",
        "share of the tokens of its whole history, mean over parents", +1,
        "averaging weighs each parent alike",
    ),
    "exposure_worst": (
        "share of training in the language, least parent",
        "share of the tokens of its whole history, of the parent that read least of it", +1,
        "averaging weighs each parent alike",
    ),
}  # fmt: skip


def _spec(
    name: str, label: str, definition: str, direction: int, source: str,
    *, language: bool = False, scale_free: bool = True,
) -> FeatureSpec:  # fmt: skip
    return FeatureSpec(
        name=name, tier="T0", label=label, definition=definition, per_language=language,
        scale_free=scale_free, direction=direction, source=source,
    )  # fmt: skip


def _declare_all() -> None:
    for name, (label, text, direction, source) in _PAIRS.items():
        declare(_spec(name, label, f"{text}; mean over pairs", direction, source))
        worst = f"{text}; pair with the least"
        declare(_spec(f"{name}_worst", f"{label}, worst pair", worst, direction, source))
    for name, (label, text, direction, source) in _MODELS.items():
        free = name == "own_share"
        mean = f"{text}; mean over parents"
        worst = f"{text}; parent with the most"
        declare(_spec(name, label, mean, direction, source, scale_free=free))
        declare(_spec(f"{name}_worst", f"{label}, most", worst, direction, source, scale_free=free))
    for name, (label, text, direction, source, free) in _GROUP.items():
        declare(_spec(name, label, text, direction, source, scale_free=free))
    for name, (label, text, direction, source) in _LANGUAGES.items():
        declare(_spec(name, label, text, direction, source, language=True))


_declare_all()


def metadata_features(
    models: Sequence[str | Path | ModelRef], *, languages: Sequence[str] = ()
) -> TierResult:
    """Architecture, tokenizers, declared ancestry and dose of training of a group of parents.

    What parents do not state is NaN, never guessed. A folder with a config and no weights will do.

    Args:
        models: Two parents or more, in the order of merging.
        languages: Languages to speak of beside those that the parents state.

    Returns:
        Tier "T0": each feature of pairs as mean and as worst pair (`_worst`); the same for k = 2.

    Raises:
        InputError: A model is not there, or a file is damaged.
        UsageError: Fewer than two models.

    Example:
        >>> found = metadata_features(["zoo:eng-fork", "zoo:deu-fork"]).as_dict()
        >>> found["same_shape"], found["shared_init"], round(found["fork_fraction"], 2)
        (1.0, 1.0, 0.85)
        >>> found["speakers@deu_Latn"], round(found["exposure@deu_Latn"], 2)
        (0.5, 0.5)
    """
    if len(models) < 2:
        raise UsageError("features describe a group of parents: name two models or more")
    started = time.process_time()
    parents = [read_declared(model) for model in models]
    values = [*_of_pairs(parents), *_of_models(parents), *_of_group(parents)]
    values += _of_languages(parents, languages)
    return TierResult("T0", tuple(values), time.process_time() - started, _notes(parents))


def _of_pairs(parents: Sequence[Declared]) -> list[FeatureValue]:
    measures: dict[str, Callable[[Declared, Declared], float]] = {
        "same_architecture": lambda a, b: float(not architecture_differences(a, b, ASPECTS)),
        "same_shape": _same_shape,
        "same_tokenizer": _same_tokenizer,
        "token_overlap": _token_overlap,
        "shared_init": shared_init,
        "fork_fraction": fork_fraction,
        "language_overlap": _language_overlap,
    }
    found = []
    for name, measure in measures.items():
        pairs = [measure(a, b) for a, b in itertools.combinations(parents, 2)]
        found.append(FeatureValue(name, _mean(pairs)))
        found.append(FeatureValue(f"{name}_worst", _extreme(min, pairs)))
    return found


def _of_models(parents: Sequence[Declared]) -> list[FeatureValue]:
    shares = [p.own_tokens / p.tokens if p.tokens > 0 else math.nan for p in parents]
    budgets = [_log10(p.rate * math.sqrt(p.own_steps)) for p in parents]
    return [
        value
        for name, each in (("own_share", shares), ("update_budget", budgets))
        for value in (
            FeatureValue(name, _mean(each)),
            FeatureValue(f"{name}_worst", _extreme(max, each)),
        )
    ]


def _of_group(parents: Sequence[Declared]) -> list[FeatureValue]:
    sizes = [count_parameters(_merged(parent)) for parent in parents]
    tokens = _extreme(min, [parent.tokens for parent in parents])
    return [
        FeatureValue("k", float(len(parents))),
        FeatureValue("parameters_log10", _log10(sum(sizes) / len(sizes))),
        FeatureValue("tokens_log10", _log10(tokens)),
    ]


def _of_languages(parents: Sequence[Declared], languages: Sequence[str]) -> list[FeatureValue]:
    stated = [code for parent in parents for code in parent.languages]
    found = []
    silent = any(not parent.languages for parent in parents)
    for code in dict.fromkeys([*stated, *languages]):
        share = sum(code in parent.languages for parent in parents) / len(parents)
        exposures = [parent.exposure(code) for parent in parents]
        found.append(FeatureValue("speakers", math.nan if silent else share, code))
        found.append(FeatureValue("exposure", _mean(exposures), code))
        found.append(FeatureValue("exposure_worst", _extreme(min, exposures), code))
    return found


def _merged(model: Declared) -> dict[str, TensorHeader]:
    return {name: model.shapes[name] for name in merged_names(model.config, model.shapes)}


def _same_shape(a: Declared, b: Declared) -> float:
    mine, theirs = (
        {name: model.shapes[name].shape for name in merged_names(model.config, model.shapes)}
        for model in (a, b)
    )
    tied = is_tied(a.config, a.shapes) == is_tied(b.config, b.shapes)
    return float(mine == theirs and tied)


def _same_tokenizer(a: Declared, b: Declared) -> float:
    if a.vocabulary is None or b.vocabulary is None:
        return math.nan
    return float(not a.vocabulary.differences(b.vocabulary))


def _token_overlap(a: Declared, b: Declared) -> float:
    if a.vocabulary is None or b.vocabulary is None:
        return math.nan
    if a.vocabulary.files == b.vocabulary.files:
        return 1.0
    mine, theirs = set(a.vocabulary.ids), set(b.vocabulary.ids)
    return len(mine & theirs) / len(mine | theirs) if mine and theirs else math.nan


def _language_overlap(a: Declared, b: Declared) -> float:
    mine, theirs = set(a.languages), set(b.languages)
    return len(mine & theirs) / len(mine | theirs) if mine and theirs else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _extreme(choose: Callable[[Sequence[float]], float], values: Sequence[float]) -> float:
    """The extreme; NaN if one value is unknown, for it might be the extreme one."""
    return math.nan if any(map(math.isnan, values)) else choose(values)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _notes(parents: Sequence[Declared]) -> tuple[str, ...]:
    notes = [parent.note for parent in parents if parent.note]
    for what, lacking in (
        ("the seed of its initial weights", [p for p in parents if p.init_seed is None]),
        ("the history of its training", [p for p in parents if not p.phases]),
        ("its languages", [p for p in parents if not p.languages]),
    ):
        notes += [f"'{parent.name}' does not state {what}" for parent in lacking]
    for a, b in itertools.combinations(parents, 2):
        if differing := architecture_differences(a, b, ASPECTS):
            notes.append(f"'{a.name}' and '{b.name}' differ in {', '.join(differing)}")
    return tuple(notes)
