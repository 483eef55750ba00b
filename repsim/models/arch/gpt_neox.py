"""GPT-NeoX and Pythia: rotary decoder whose attention and MLP usually read the same input.

With `use_parallel_residual` both read what entered the block; without it the MLP reads what
attention left. In both cases `resid[i] = resid[i-1] + attn[i] + mlp[i]`.
"""

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
    # Query, key and value of one head lie together: the heads come first, the parts inside.
    at, fused = f"layers.{i}", "(kv q part dim) resid"
    attn, mlp, up, down = f"{i}.attn_norm", f"{i}.mlp_norm", "dense_h_to_4h", "dense_4h_to_h"
    qkv = f"{at}.attention.query_key_value.weight"
    return with_biases(
        [
            StoredWeight(f"{at}.input_layernorm.weight", "resid", ("attn_norm",), i),
            StoredWeight(f"{at}.post_attention_layernorm.weight", "resid", ("mlp_norm",), i),
            StoredWeight(qkv, fused, ("q", "k", "v"), i, norm=attn),
            StoredWeight(
                f"{at}.attention.dense.weight", "resid (kv q dim)", ("o",), i, writes=True
            ),
            StoredWeight(f"{at}.mlp.{up}.weight", "mlp resid", ("up",), i, norm=mlp),
            StoredWeight(f"{at}.mlp.{down}.weight", "resid mlp", ("down",), i, writes=True),
        ]
    )  # fmt: skip


def _weight_spaces(config: Any) -> WeightSpaces:
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    dim = config.hidden_size // heads
    rotary = int(dim * (config.rope_parameters or {}).get("partial_rotary_factor", 1.0))
    sizes = {"part": 3, "kv": heads, "q": 1, "dim": dim}
    sizes |= {"resid": config.hidden_size, "mlp": config.intermediate_size}
    weights = [StoredWeight("embed_in.weight", "entry resid", ("embed",), writes=True)]
    spaces = []
    for i in range(layers):
        weights += _block(i)
        spaces += attention_spaces(i, kv=heads, q=1, dim=dim, rotary=rotary)
        spaces.append(mlp_space(i, config.intermediate_size))
    weights += with_biases([StoredWeight("final_layer_norm.weight", "resid", ("final_norm",))])
    weights += [
        # Early releases call the head embed_out.
        StoredWeight(f"/{name}.weight", "entry resid", ("head",), norm="final_norm", optional=True)
        for name in ("lm_head", "embed_out")
    ]
    return WeightSpaces(
        family="gpt_neox",
        body="gpt_neox",
        weights=tuple(weights),
        spaces=(*spaces, *residual_spaces(config.hidden_size, fixes_mean=True)),
        sizes=sizes,
        layers=layers,
        tied=bool(config.tie_word_embeddings),
        centred=True,
        untouched=(
            r"layers\.\d+\.attention\.(masked_)?bias",
            r".*rotary_emb\.inv_freq",
        ),
    )


GPT_NEOX = ArchSpec(
    name="gpt_neox",
    model_types=("gpt_neox",),
    decoder=True,
    blocks="layers",
    attn="attention.dense",
    heads="attention.dense",
    mlp="mlp.dense_4h_to_h",
    mlp_hidden="mlp.dense_4h_to_h",
    norm="final_layer_norm",
    weight_spaces=_weight_spaces,
)
