"""T0: what configs, tokenizers and provenance say, before one weight is read."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence

from repsim.mergeability.features.catalogue import FEATURES, summarised
from repsim.mergeability.features.declared import (
    Declared,
    architecture_differences,
    fork_fraction,
    shared_init,
)
from repsim.mergeability.features.opened import ModelLike, OpenedParents, opened
from repsim.mergeability.features.spec import FeatureValue, TierResult
from repsim.merging.tensors import is_tied, merged_names
from repsim.models.headers import TensorHeader, count_parameters

#: Keys that change what weights of equal shape mean.
ASPECTS = (
    "model_type", "is_decoder", "is_encoder_decoder", "hidden_act", "activation_function",
    "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "rope_theta",
    "rope_scaling", "rope_parameters", "rotary_pct", "rms_norm_eps", "layer_norm_eps",
    "layer_norm_epsilon",
)  # fmt: skip


def metadata_features(
    models: OpenedParents | Sequence[ModelLike], *, languages: Sequence[str] = ()
) -> TierResult:
    """Architecture, tokenizers, declared ancestry and dose of training of a group of parents.

    What parents do not state is NaN, never guessed. A folder with a config and no weights will do.
    Features of pairs come as mean and as worst pair (`_worst`), the same for two parents.

    Args:
        models: Two parents or more, in the order of merging, or a group that is open.
        languages: Languages to speak of beside those that the parents state.

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
    FEATURES.names()  # loads the measures once, which is no cost of these models
    started = time.process_time()
    with opened(models) as group:
        parents = group.declared
    measures: dict[str, Callable[[Declared, Declared], float]] = {
        "same_architecture": lambda a, b: float(not architecture_differences(a, b, ASPECTS)),
        "same_shape": _same_shape,
        "same_tokenizer": _same_tokenizer,
        "token_overlap": _token_overlap,
        "shared_init": shared_init,
        "fork_fraction": fork_fraction,
        "language_overlap": lambda a, b: _jaccard(set(a.languages), set(b.languages)),
    }
    values = []
    for name, measure in measures.items():
        values += summarised(name, [measure(a, b) for a, b in itertools.combinations(parents, 2)])
    shares = [p.own_tokens / p.tokens if p.tokens > 0 else math.nan for p in parents]
    values += summarised("own_share", shares)
    budgets = [_log10(p.rate * math.sqrt(p.own_steps)) for p in parents]
    values += summarised("update_budget", budgets)
    values += [*_of_group(parents), *_of_languages(parents, languages)]
    return TierResult("T0", tuple(values), time.process_time() - started, _notes(parents))


def _of_group(parents: Sequence[Declared]) -> list[FeatureValue]:
    sizes = [count_parameters(_merged(parent)) for parent in parents]
    tokens = _least([parent.tokens for parent in parents])
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
        found.append(FeatureValue("exposure", sum(exposures) / len(exposures), code))
        found.append(FeatureValue("exposure_worst", _least(exposures), code))
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
    return _jaccard(set(a.vocabulary.ids), set(b.vocabulary.ids))


def _jaccard(mine: set[str], theirs: set[str]) -> float:
    return len(mine & theirs) / len(mine | theirs) if mine and theirs else math.nan


def _least(values: Sequence[float]) -> float:
    """The least; NaN if one value is unknown, for it might be the least one."""
    return math.nan if any(map(math.isnan, values)) else min(values)


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
