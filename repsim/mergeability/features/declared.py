"""What a model says of itself: config, shapes, tokens, and the history of its training.

Nothing here reads weights. The history comes from the provenance file beside them, which
`repsim pretrain` writes and anyone may write by hand; what is not stated is unknown, not zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.core.model_ref import ModelRef
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models.inspect import (
    PROVENANCE_FILE,
    TensorHeader,
    locate,
    read_config,
    read_headers,
    weight_files,
)

Shapes = Mapping[str, TensorHeader]


@dataclasses.dataclass(frozen=True)
class DeclaredPhase:
    """One stretch of a model's training.

    Attributes:
        run: What tells it from every other stretch: family, run, data order.
        mix: Language -> share of its text; empty if it is not stated.
        first, last: Tokens of the whole history before and after it.
    """

    run: tuple[Any, ...]
    mix: Mapping[str, float]
    first: float
    last: float


@dataclasses.dataclass(frozen=True)
class Declared:
    """What is known of a model without its weights.

    Attributes:
        name: Label.
        config: `config.json`.
        shapes: Type and shape of every tensor.
        vocabulary: Its tokens; None if the folder holds no tokenizer.
        languages: Languages of its own training; empty if it does not state them.
        init_seed: Seed of the initial weights at the root of its history; None if unknown.
        forked_from: Trunk; None if it began from scratch or does not say.
        weights_hash: Hash that it states of its weights; "" if none.
        phases: History, oldest first; empty if it is not stated.
        own_tokens: Tokens of its last phase; NaN if unknown.
        rate: Peak learning rate of its last phase; NaN if unknown.
        own_steps: Updates of its last phase; NaN if unknown.
        note: What a reader should know; "" if nothing.
    """

    name: str
    config: Mapping[str, Any]
    shapes: Shapes
    vocabulary: Vocabulary | None
    languages: tuple[str, ...]
    init_seed: int | None
    forked_from: str | None
    weights_hash: str
    phases: tuple[DeclaredPhase, ...]
    own_tokens: float
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


def read_declared(model: str | Path | ModelRef) -> Declared:
    """Read what a model folder states.

    Args:
        model: Folder, packaged model, "zoo:NAME", hub id in the local cache, or a `ModelRef`, whose
            stated history counts before that of the provenance file.

    Raises:
        InputError: There is no such model, or a file is damaged.

    Example:
        >>> fork = read_declared("zoo:eng-fork")
        >>> fork.languages, fork.tokens, fork.own_tokens, len(fork.phases)
        (('eng_Latn',), 1000448.0, 150528.0, 2)
    """
    located = locate(model)
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
        vocabulary=read_vocabulary(folder, located.name),
        languages=tuple(stated.get("languages") or ()),
        init_seed=stated.get("init_seed"),
        forked_from=stated.get("forked_from"),
        weights_hash=stated.get("weights_hash") or "",
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
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"'{path}' is not a JSON object")
    return document


def _shapes(folder: Path, name: str) -> tuple[Shapes, str]:
    """Shapes from headers; of a folder with a config alone, from an empty model."""
    if any(folder.glob("*.safetensors")) or (folder / "model.safetensors.index.json").is_file():
        return read_headers(weight_files(folder)), ""
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
    """Phases in tokens, tokens and steps of the last one.

    Provenance counts phases in steps, and tokens of the last one and of all. A step inside the
    earlier ones is converted in proportion, which is exact while the batch stays as it is.
    """
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
    """Whether two models state that they descend from one set of initial weights.

    Initial weights of one seed are the same only where shapes are: those of the blocks are
    compared, since vocabularies may differ.

    Args:
        a: One model.
        b: Another.

    Returns:
        1 or 0; NaN if one of them does not say.

    Example:
        >>> eng, deu, other = (read_declared(f"zoo:{n}") for n in ("eng-1", "deu-1", "deu-2"))
        >>> shared_init(eng, deu), shared_init(eng, other)
        (1.0, 0.0)
    """
    if a.weights_hash and a.weights_hash == b.weights_hash:
        return 1.0
    if a.init_seed is None or b.init_seed is None:
        return math.nan
    inside = [
        {name: header.shape for name, header in model.shapes.items() if ".0." in name}
        for model in (a, b)
    ]
    return float(a.init_seed == b.init_seed and inside[0] == inside[1])


def shared_tokens(a: Declared, b: Declared) -> float:
    """Tokens that two models read as one, from the start of their histories.

    Args:
        a: One model.
        b: Another.

    Returns:
        Tokens; 0 if they began apart, or from the same weights and parted at once; NaN if one of
        them does not state its history.

    Example:
        >>> a, b, mixed = (read_declared(f"zoo:{n}") for n in ("eng-fork", "deu-fork", "mixed"))
        >>> shared_tokens(a, b), shared_tokens(a, mixed)
        (849920.0, 849920.0)
    """
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
    """Share of its training that two models had in common, of the one for which it is less.

    Args:
        a: One model.
        b: Another.

    Returns:
        0 to 1; NaN if one of them does not state its history.

    Example:
        >>> a, b = read_declared("zoo:eng-fork"), read_declared("zoo:deu-fork")
        >>> round(fork_fraction(a, b), 4), fork_fraction(a, read_declared("zoo:eng-1"))
        (0.8495, 0.0)
    """
    longest = max(a.tokens, b.tokens)
    return shared_tokens(a, b) / longest if longest > 0 else math.nan


def architecture_differences(a: Declared, b: Declared, aspects: Sequence[str]) -> list[str]:
    """Those keys of the config that differ, as far as both state them.

    Args:
        a: One model.
        b: Another.
        aspects: Keys of `config.json`.

    Example:
        >>> architecture_differences(read_declared("zoo:eng-1"), read_declared("zoo:deu-1"),
        ...                          ["model_type", "hidden_act"])
        []
    """
    differing = []
    for key in aspects:
        mine, theirs = a.config.get(key), b.config.get(key)
        if mine is not None and theirs is not None and mine != theirs:
            differing.append(key)
    return differing
