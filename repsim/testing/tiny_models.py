"""Tiny models with random weights, one per family, saved as Hugging Face folders."""

from __future__ import annotations

import copy
import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

from repsim.core.aside import written_aside
from repsim.core.errors import unknown_name
from repsim.core.files import write_json

BOS, EOS, PAD, UNK = 0, 1, 2, 3
_SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
#: Merges of the tiny tokenizer, so that tokens of one to four bytes occur ("Ġ" = space).
_MERGES = ("t h", "th e", "Ġ the", "i n", "e r", "Ġ d", "Ġd er", "Ð ¸", "a n", "an d")


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """How a tiny model of one kind is built."""

    config_class: str
    config: dict[str, Any]
    template: str = "<s> $A"


def _recipes() -> dict[str, _Recipe]:
    import yaml

    file = resources.files("repsim.testing").joinpath("tiny_models.yaml")
    kinds = yaml.safe_load(file.read_text(encoding="utf-8"))["kinds"]
    return {kind: _Recipe(*stated) for kind, stated in kinds.items()}


#: Kind -> recipe. The key is a model type, or a model type with a variant after "+".
_RECIPES = _recipes()

#: What `tiny_model` can build.
KINDS: tuple[str, ...] = tuple(_RECIPES)


def tiny_tokenizer(template: str = "<s> $A") -> Any:
    """A byte-level BPE tokenizer of a few hundred tokens that encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(a, b) for a, b in (line.split() for line in _MERGES)]
    pieces += [a + b for a, b in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def tiny_config(kind: str, **overrides: Any) -> Any:
    """The `transformers` config of a tiny model."""
    import transformers

    if kind not in _RECIPES:
        raise unknown_name("kind of tiny model", kind, _RECIPES)
    recipe = _RECIPES[kind]
    vocabulary = -(-(len(_SPECIAL) + 256 + len(_MERGES)) // 8) * 8
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    config = copy.deepcopy(recipe.config)
    own = config.get("text_config", config)
    values = {**ids, **own, "vocab_size": vocabulary, **overrides}
    if "text_config" in config:
        values = {**config, "text_config": values}
    return getattr(transformers, recipe.config_class)(**values)


def tiny_model(kind: str, *, seed: int = 0, head: bool = False, **overrides: Any) -> Any:
    """A tiny model with random weights, norms and biases in evaluation mode."""
    import torch
    import transformers

    config = tiny_config(kind, **overrides)
    sees = getattr(config, "vision_config", None) is not None
    whole = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    auto_class = getattr(transformers, whole if head else "AutoModel")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class.from_config(config)
        with torch.no_grad():
            # Wide, norms and biases too: a term left out, or a norm read on the wrong side, shows.
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def write_tiny_model(
    kind: str, folder: str | Path, *, seed: int = 0, head: bool = False, **overrides: Any
) -> Path:
    """Save a tiny model with its tokenizer as a Hugging Face folder."""
    from repsim.models.load import quiet_transformers

    target = Path(folder)
    model = tiny_model(kind, seed=seed, head=head, **overrides)
    with written_aside(target) as aside, quiet_transformers():
        model.save_pretrained(aside)
        tiny_tokenizer(_RECIPES[kind].template).save_pretrained(aside)
    return target


def write_provenance(folder: str | Path, **fields: Any) -> Path:
    """State the history of a model beside its weights, as pretraining does."""
    return write_json(Path(folder) / "repsim_provenance.json", fields)
