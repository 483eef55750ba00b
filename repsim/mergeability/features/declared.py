"""What a model states of itself, without its weights; what is not stated is unknown, not zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.merging.vocabulary import Vocabulary
from repsim.models.formats import folder_headers
from repsim.models.headers import INDEX, TensorHeader, has_weights
from repsim.models.inspect import (
    PROVENANCE_FILE,
    Located,
    check_config,
    read_config,
    read_provenance,
)

_Shapes = Mapping[str, TensorHeader]


@dataclasses.dataclass(frozen=True)
class DeclaredPhase:
    """One stretch of training: what tells it apart, language -> share, tokens before and after."""

    run: tuple[Any, ...]
    mix: Mapping[str, float]
    first: float
    last: float


@dataclasses.dataclass(frozen=True)
class Declared:
    """What is known of a model without its weights; NaN, None or empty where it is not stated."""

    name: str
    config: Mapping[str, Any]
    shapes: _Shapes
    vocabulary: Vocabulary | None
    languages: tuple[str, ...]
    init_seed: int | None  # at the root of its history
    weights_hash: str
    origin: str  # hash of the foreign weights that its history begins with
    phases: tuple[DeclaredPhase, ...]
    own_tokens: float  # of the last phase, as the peak learning rate and the updates
    rate: float
    own_steps: float
    note: str = ""

    @property
    def tokens(self) -> float:
        """Tokens of the whole history; NaN if unknown."""
        return self.phases[-1].last if self.phases else math.nan

    def exposure(self, language: str) -> float:
        """Share of the tokens of its whole history that were of a language; NaN if unknown."""
        if not self.phases or not all(phase.mix for phase in self.phases) or self.tokens <= 0:
            return math.nan
        read = sum((p.last - p.first) * p.mix.get(language, 0.0) for p in self.phases)
        return read / self.tokens


def read_declared(located: Located, vocabulary: Vocabulary | None) -> Declared:
    """Read a folder; the history that a `ModelRef` states counts before its provenance file."""
    folder = located.folder
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(
            f"'{folder}' has no config.json that states a model_type",
            hint="a Hugging Face folder is needed",
        )
    stated = {**_provenance(folder), **located.history}
    if located.weights_hash:
        stated["weights_hash"] = located.weights_hash
    shapes, note = _shapes(folder, located.name)
    training = stated.get("training")
    phases, own_tokens, own_steps = _history(stated, folder)
    return Declared(
        name=located.name,
        config=config,
        shapes=shapes,
        vocabulary=vocabulary,
        languages=tuple(stated.get("languages") or ()),
        init_seed=stated.get("init_seed"),
        weights_hash=stated.get("weights_hash") or "",
        origin=(stated.get("init_from") or {}).get("origin") or "",
        phases=phases,
        own_tokens=own_tokens,
        rate=_number((training or {}).get("learning_rate")),
        own_steps=own_steps,
        note=note,
    )


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return {}
    read_provenance(folder)  # refuses fields of another type
    document: dict[str, Any] = read_json(path)
    return document


def _shapes(folder: Path, name: str) -> tuple[_Shapes, str]:
    """Shapes from headers; of a folder with a config alone, from an empty model."""
    if has_weights(folder) or (folder / INDEX).is_file():
        headers = folder_headers(folder)
        check_config(name, folder, headers)
        return headers, ""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    config, spec = read_config(folder, generic=True)
    kind = AutoModelForCausalLM if spec.decoder else AutoModel
    try:
        with torch.device("meta"):
            empty = kind.from_config(config, trust_remote_code=False)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{folder}' has no safetensors weights, and its shapes cannot be told from its "
            f"config: {error}"
        ) from None
    shapes = {key: TensorHeader("F32", tuple(p.shape)) for key, p in empty.named_parameters()}
    return shapes, f"'{name}' has no safetensors weights: its shapes are those of its config"


def _history(
    stated: Mapping[str, Any], folder: Path
) -> tuple[tuple[DeclaredPhase, ...], float, float]:
    """Phases in tokens, tokens and steps of the last one; earlier steps count in proportion."""
    listed = stated.get("history")
    tokens, own = _number(stated.get("tokens")), _number(stated.get("own_tokens"))
    if not listed or math.isnan(tokens):
        return (), own, math.nan
    own = tokens if math.isnan(own) and len(listed) == 1 else own
    try:
        begin, end = int(listed[-1]["first_step"]), int(listed[-1]["last_step"])

        def tokens_at(step: int) -> float:
            if step >= begin:
                return tokens - own + own * (step - begin) / max(end - begin, 1)
            return (tokens - own) * step / begin

        phases = tuple(
            DeclaredPhase(
                run=(stated.get("family"), phase["run"], phase.get("data_seed")),
                mix=dict(phase.get("mix") or ()),
                first=tokens_at(int(phase["first_step"])),
                last=tokens_at(int(phase["last_step"])),
            )
            for phase in listed
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"the history in '{folder / PROVENANCE_FILE}' is malformed: {error!r}"
        ) from None
    return phases, own, float(end - begin)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def shared_init(a: Declared, b: Declared) -> float:
    """1 or 0: whether two models descend from one set of initial weights; NaN if unknown."""
    if ({a.weights_hash, a.origin} & {b.weights_hash, b.origin}) - {""}:
        return 1.0
    if a.init_seed is None or b.init_seed is None:
        return math.nan
    inside = [
        {name: header.shape for name, header in model.shapes.items() if ".0." in name}
        for model in (a, b)
    ]
    return float(a.init_seed == b.init_seed and inside[0] == inside[1])


def shared_tokens(a: Declared, b: Declared) -> float:
    """Tokens that two models read as one, from the start of their histories; NaN if unknown."""
    if not a.phases or not b.phases:
        return math.nan
    if shared_init(a, b) == 0.0:
        return 0.0
    together = 0.0
    for one, other in zip(a.phases, b.phases, strict=False):
        if one.run != other.run or one.mix != other.mix or one.first != other.first:
            break
        together = min(one.last, other.last)
        if one.last != other.last:
            break
    return together


def fork_fraction(a: Declared, b: Declared) -> float:
    """Share of its training that two models had in common, of the one for which it is less."""
    longest = max(a.tokens, b.tokens)
    return shared_tokens(a, b) / longest if longest > 0 else math.nan


def architecture_differences(a: Declared, b: Declared, aspects: Sequence[str]) -> list[str]:
    """Those keys of the config that differ, as far as both state them."""
    differing = []
    for key in aspects:
        mine, theirs = a.config.get(key), b.config.get(key)
        if mine is not None and theirs is not None and mine != theirs:
            differing.append(key)
    return differing
