"""Decoder models from `transformers` configurations, and what they cost to train."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from repsim.models.bounds import require_bytes
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.parent import Parent, check_context, check_names

#: Rows of the embedding come in multiples of this: matrix units like it, and rows beyond the
#: tokenizer's vocabulary are padding that no text can reach.
VOCAB_MULTIPLE = 128


def padded_vocabulary(size: int) -> int:
    """Vocabulary size rounded up to a multiple of 128."""
    return VOCAB_MULTIPLE * math.ceil(size / VOCAB_MULTIPLE)


def hf_config(
    architecture: ArchitectureConfig,
    vocab_size: int,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
) -> Any:
    """The `transformers` configuration of an architecture."""
    from transformers import GPT2Config, LlamaConfig

    shared = {
        "vocab_size": padded_vocabulary(vocab_size),
        "tie_word_embeddings": architecture.tied,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "use_cache": True,
    }
    if architecture.family == "gpt2":
        return GPT2Config(
            n_embd=architecture.hidden,
            n_layer=architecture.layers,
            n_head=architecture.heads,
            n_inner=architecture.intermediate,
            n_positions=architecture.context,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            architectures=["GPT2LMHeadModel"],
            **shared,
        )
    return LlamaConfig(
        hidden_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        intermediate_size=architecture.intermediate,
        max_position_embeddings=architecture.context,
        rms_norm_eps=1e-5,
        architectures=["LlamaForCausalLM"],
        **shared,
    )


def build_model(config: Any, init_seed: int | None, *, depth_scaled: bool = False) -> nn.Module:
    """A float32 model on the CPU; its weights depend on `init_seed` and the shape alone."""
    from transformers import AutoModelForCausalLM

    needed = 4 * parameter_count(_empty(config))
    require_bytes("a model of that shape", needed, "make it smaller, or take a larger machine")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed or 0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if depth_scaled:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter.div_(math.sqrt(2 * config.num_hidden_layers))
    return model.train()


def without_weights(config: Any) -> nn.Module:
    """A model with its buffers on the CPU and its parameters on the meta device."""
    from transformers import AutoModelForCausalLM

    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(self, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
    return model.train()


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclasses.dataclass(frozen=True)
class Shape:
    """What all models of a family look like, before one weight is there."""

    model_config: Any
    family: str
    width: int
    layers: int
    parameters: int
    flops_per_token: float


def shape_from_scratch(
    architecture: ArchitectureConfig,
    vocab_size: int,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
) -> Shape:
    """The shape that a configuration describes."""
    config = hf_config(
        architecture, vocab_size, bos_token_id=bos_token_id, eos_token_id=eos_token_id
    )
    size = parameter_count(_empty(config))
    lookups = 0 if architecture.tied else padded_vocabulary(vocab_size) * architecture.hidden
    if architecture.family == "gpt2":
        lookups += architecture.context * architecture.hidden
    attention = architecture.layers * architecture.hidden * architecture.context
    return Shape(
        model_config=config,
        family=architecture.family,
        width=architecture.hidden,
        layers=architecture.layers,
        parameters=size,
        flops_per_token=6.0 * (size - lookups) + 6.0 * attention,
    )


def shape_of_parent(parent: Parent, context: int, *, lora: bool) -> Shape:
    """The shape of an existing model; an adapter needs no gradients of the weights under it."""
    check_context(parent, context)
    model = _empty(parent.config)
    check_names(parent, model)
    size = parameter_count(model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    lookups = 0 if tied else model.get_input_embeddings().weight.numel()
    attention = parent.ref.layers * parent.ref.width * context
    passes = 4.0 if lora else 6.0
    return Shape(
        model_config=parent.config,
        family=parent.ref.architecture,
        width=parent.ref.width,
        layers=parent.ref.layers,
        parameters=size,
        flops_per_token=passes * (size - lookups + attention),
    )


def _empty(config: Any) -> Any:
    """A model without memory behind its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
