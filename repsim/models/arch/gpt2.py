"""GPT-2: pre-norm decoder with learned positions, which layer 0 of `resid` includes."""

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
    # Conv1D stores [in, out], the transpose of a Linear.
    at, fused = f"h.{i}", "resid (part kv q dim)"
    attn, mlp = f"{i}.attn_norm", f"{i}.mlp_norm"
    return with_biases(
        [
            StoredWeight(f"{at}.ln_1.weight", "resid", ("attn_norm",), i),
            StoredWeight(f"{at}.attn.c_attn.weight", fused, ("q", "k", "v"), i, norm=attn),
            StoredWeight(f"{at}.attn.c_proj.weight", "(kv q dim) resid", ("o",), i, writes=True),
            StoredWeight(f"{at}.ln_2.weight", "resid", ("mlp_norm",), i),
            StoredWeight(f"{at}.mlp.c_fc.weight", "resid mlp", ("up",), i, norm=mlp),
            StoredWeight(f"{at}.mlp.c_proj.weight", "mlp resid", ("down",), i, writes=True),
        ]
    )


def _weight_spaces(config: Any) -> WeightSpaces:
    heads, layers, dim = config.n_head, config.n_layer, config.n_embd // config.n_head
    units = config.n_inner or 4 * config.n_embd
    sizes = {"part": 3, "kv": heads, "q": 1, "dim": dim, "resid": config.n_embd, "mlp": units}
    weights = [
        StoredWeight("wte.weight", "entry resid", ("embed",), writes=True),
        StoredWeight("wpe.weight", "entry resid", ("positions",), writes=True),
    ]
    spaces = []
    for i in range(layers):
        weights += _block(i)
        spaces += attention_spaces(i, kv=heads, q=1, dim=dim)
        spaces.append(mlp_space(i, units))
    weights += with_biases([StoredWeight("ln_f.weight", "resid", ("final_norm",))])
    weights.append(
        StoredWeight(
            "/lm_head.weight", "entry resid", ("head",), norm="final_norm", optional=True
        )
    )  # fmt: skip
    return WeightSpaces(
        family="gpt2",
        body="transformer",
        weights=tuple(weights),
        spaces=(*spaces, *residual_spaces(config.n_embd, fixes_mean=True)),
        sizes=sizes,
        layers=layers,
        tied=bool(config.tie_word_embeddings),
        centred=True,
        untouched=(r"h\.\d+\.attn\.(masked_)?bias",),
    )


GPT2 = ArchSpec(
    name="gpt2",
    model_types=("gpt2",),
    decoder=True,
    blocks="h",
    attn="attn.c_proj",
    heads="attn.c_proj",
    mlp="mlp.c_proj",
    mlp_hidden="mlp.c_proj",
    norm="ln_f",
    weight_spaces=_weight_spaces,
)
