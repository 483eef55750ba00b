"""Causal attention without a mask in memory, also in a compiled graph."""

from __future__ import annotations

from typing import Any

from torch import nn

NAME = "repsim_causal"
#: Model types in which every layer attends to everything before a token and to nothing else.
CAUSAL_TYPES = ("llama", "gpt2")


def stay_causal(model: nn.Module) -> bool:
    """Make a model attend by `is_causal`; whether its type allows that."""
    from transformers import AttentionInterface, AttentionMaskInterface

    config: Any = model.config
    if config.model_type not in CAUSAL_TYPES:
        return False
    # Before torch 2.14 a traced graph builds the `[tokens, tokens]` mask, and no flash kernel is
    # taken. Windows hold no padding: the mask says no more than `is_causal`.
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    return True


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask that transformers asks for."""


def _attend(module: nn.Module, query: Any, key: Any, value: Any, *_: Any, **options: Any) -> Any:
    """Scaled dot-product attention of transformers, causal."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    options["is_causal"] = True
    return sdpa_attention_forward(module, query, key, value, None, **options)
