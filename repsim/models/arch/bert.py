"""BERT, RoBERTa, XLM-R and DistilBERT: post-norm encoders.

A post-norm block computes `h = norm(x + attn)` and `resid = norm(h + mlp)`: `attn` and `mlp` are
read before sum and norm, so they do not add up to `resid`, and no norm follows the last block.
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
    at, heads = f"encoder.layer.{i}", "(kv q dim) resid"
    attention = f"{at}.attention"
    return with_biases(
        [
            StoredWeight(f"{attention}.self.query.weight", heads, ("q",), i),
            StoredWeight(f"{attention}.self.key.weight", "(kv dim) resid", ("k",), i),
            StoredWeight(f"{attention}.self.value.weight", "(kv dim) resid", ("v",), i),
            StoredWeight(
                f"{attention}.output.dense.weight", "resid (kv q dim)", ("o",), i, writes=True
            ),
            StoredWeight(f"{attention}.output.LayerNorm.weight", "resid", ("attn_norm",), i),
            StoredWeight(f"{at}.intermediate.dense.weight", "mlp resid", ("up",), i),
            StoredWeight(f"{at}.output.dense.weight", "resid mlp", ("down",), i, writes=True),
            StoredWeight(f"{at}.output.LayerNorm.weight", "resid", ("mlp_norm",), i),
        ]
    )  # fmt: skip


def _head(model_type: str) -> list[StoredWeight]:
    """The masked-language-model head: a square map, a norm and the embedding once more."""
    at, norm = "/cls.predictions", "transform.LayerNorm"
    names = ("transform.dense", norm, "decoder")
    if model_type != "bert":
        at, names = "/lm_head", ("dense", "layer_norm", "decoder")
    dense, norm, decoder = (f"{at}.{name}.weight" for name in names)
    weights = with_biases(
        [
            StoredWeight(dense, "resid_out resid", ("transform",), optional=True),
            StoredWeight(norm, "resid", ("final_norm",), optional=True),
        ]
    )
    return [*weights, StoredWeight(decoder, "entry resid", ("head",), optional=True)]


def _weight_spaces(config: Any) -> WeightSpaces:
    """The norms stand on the residual stream itself, so it can be re-ordered but not rotated."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    dim, stream = config.hidden_size // heads, "embeddings"
    sizes = {"kv": heads, "q": 1, "dim": dim}
    sizes |= {"resid": config.hidden_size, "mlp": config.intermediate_size}
    weights = [
        StoredWeight(f"{stream}.{name}_embeddings.weight", "entry resid", (role,), writes=True)
        for name, role in (("word", "embed"), ("position", "positions"))
    ]
    kinds = f"{stream}.token_type_embeddings.weight"
    weights.append(StoredWeight(kinds, "entry resid", ("token_types",), writes=True))
    weights += with_biases([StoredWeight(f"{stream}.LayerNorm.weight", "resid", ("embed_norm",))])
    spaces = []
    for i in range(layers):
        weights += _block(i)
        spaces += attention_spaces(i, kv=heads, q=1, dim=dim)
        spaces.append(mlp_space(i, config.intermediate_size))
    weights.append(StoredWeight("pooler.dense.weight", "entry resid", ("pooler",), optional=True))
    return WeightSpaces(
        family="bert",
        body="bert" if config.model_type == "bert" else "roberta",
        weights=(*weights, *_head(config.model_type)),
        spaces=(*spaces, *residual_spaces(config.hidden_size, rotation=False)),
        sizes=sizes,
        layers=layers,
        tied=bool(config.tie_word_embeddings),
        centred=True,
        untouched=(
            r"pooler\.dense\.bias",
            r"embeddings\.(position_ids|token_type_ids)",
            r"/cls\.predictions\.(decoder\.)?bias",
            r"/lm_head\.(decoder\.)?bias",
        ),
    )


BERT = ArchSpec(
    name="bert",
    model_types=("bert", "roberta", "xlm-roberta", "camembert"),
    decoder=False,
    blocks="encoder.layer",
    attn="attention.output.dense",
    heads="attention.output.dense",
    mlp="output.dense",
    mlp_hidden="output.dense",
    additive_when=lambda config: False,
    weight_spaces=_weight_spaces,
)

DISTILBERT = ArchSpec(
    name="distilbert",
    model_types=("distilbert",),
    decoder=False,
    blocks="transformer.layer",
    attn="attention.out_lin",
    heads="attention.out_lin",
    mlp="ffn.lin2",
    mlp_hidden="ffn.lin2",
    additive_when=lambda config: False,
)
