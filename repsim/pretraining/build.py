"""Decoder models from `transformers` configurations, and what they cost to train."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from repsim.pretraining.architecture import ArchitectureConfig

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


def build_model(config: Any, init_seed: int | None) -> nn.Module:
    """A float32 model on the CPU; its weights depend on `init_seed` and the shape alone."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed or 0)
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=torch.float32
        )
    return model.train()


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def shape_parameters(architecture: ArchitectureConfig, vocab_size: int) -> int:
    """Number of parameters without building the model."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config(architecture, vocab_size))
    return parameter_count(model)


def flops_per_token(architecture: ArchitectureConfig, parameters: int, vocab_size: int) -> float:
    """Floating point operations to train on one token: forward, backward, no recomputation."""
    lookups = 0 if architecture.tied else padded_vocabulary(vocab_size) * architecture.hidden
    if architecture.family == "gpt2":
        lookups += architecture.context * architecture.hidden
    width = architecture.hidden
    return 6.0 * (parameters - lookups) + 6.0 * architecture.layers * width * architecture.context
