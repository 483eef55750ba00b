"""Llama and the families built like it: pre-norm decoders with rotary positions and a gated MLP."""

from __future__ import annotations

from typing import Any

from repsim.models.arch.base import ArchSpec
from repsim.models.arch.spaces import (
    StoredWeight,
    WeightSpaces,
    attention_spaces,
    mlp_space,
    residual_spaces,
    with_biases,
)


def _block(i: int) -> list[StoredWeight]:
    at, attn, mlp = f"layers.{i}", f"{i}.attn_norm", f"{i}.mlp_norm"
    attention, gated = f"{at}.self_attn", f"{at}.mlp"
    query, key = "(kv q dim) resid", "(kv dim) resid"
    return with_biases(
        [
            StoredWeight(f"{at}.input_layernorm.weight", "resid", ("attn_norm",), i),
            StoredWeight(f"{attention}.q_proj.weight", query, ("q",), i, norm=attn),
            StoredWeight(f"{attention}.k_proj.weight", key, ("k",), i, norm=attn),
            StoredWeight(f"{attention}.v_proj.weight", key, ("v",), i, norm=attn),
            StoredWeight(
                f"{attention}.o_proj.weight", "resid (kv q dim)", ("o",), i, writes=True
            ),
            StoredWeight(f"{at}.post_attention_layernorm.weight", "resid", ("mlp_norm",), i),
            StoredWeight(f"{gated}.gate_proj.weight", "mlp resid", ("gate",), i, norm=mlp),
            StoredWeight(f"{gated}.up_proj.weight", "mlp resid", ("up",), i, norm=mlp),
            StoredWeight(f"{gated}.down_proj.weight", "resid mlp", ("down",), i, writes=True),
        ]
    )  # fmt: skip


def _weight_spaces(config: Any) -> WeightSpaces:
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    kv = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    sizes = {"kv": kv, "q": heads // kv, "dim": dim}
    sizes |= {"resid": config.hidden_size, "mlp": config.intermediate_size}
    normalised = config.model_type == "qwen3"
    weights = [StoredWeight("embed_tokens.weight", "entry resid", ("embed",), writes=True)]
    spaces = []
    for i in range(layers):
        weights += _block(i)
        spaces += attention_spaces(
            i, kv=kv, q=heads // kv, dim=dim, rotary=dim, query_key_basis=not normalised
        )
        spaces.append(mlp_space(i, config.intermediate_size))
    weights.append(StoredWeight("norm.weight", "resid", ("final_norm",)))
    weights.append(
        StoredWeight(
            "/lm_head.weight", "entry resid", ("head",), norm="final_norm", optional=True
        )
    )  # fmt: skip
    return WeightSpaces(
        family="llama",
        body="model",
        weights=tuple(weights),
        spaces=(*spaces, *residual_spaces(config.hidden_size)),
        sizes=sizes,
        layers=layers,
        tied=bool(config.tie_word_embeddings),
        gain_offset=1.0 if config.model_type == "gemma" else 0.0,
        untouched=(r"layers\.\d+\.self_attn\.[qk]_norm\.weight", r".*rotary_emb\.inv_freq"),
    )


LLAMA = ArchSpec(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    decoder=True,
    blocks="layers",
    attn="self_attn.o_proj",
    heads="self_attn.o_proj",
    mlp="mlp.down_proj",
    mlp_hidden="mlp.down_proj",
    norm="norm",
    weight_spaces=_weight_spaces,
)

# Gemma 2 and 3 normalise what attention and MLP give before it is added, so `attn` and `mlp` are
# read behind those norms: they are what the residual stream receives.
GEMMA2 = ArchSpec(
    name="gemma2",
    model_types=("gemma2", "gemma3_text"),
    decoder=True,
    blocks="layers",
    attn="post_attention_layernorm",
    heads="self_attn.o_proj",
    mlp="post_feedforward_layernorm",
    mlp_hidden="mlp.down_proj",
    norm="norm",
)
