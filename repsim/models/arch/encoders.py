"""Encoder families, as data for the block template.

A post-norm block computes `h = norm(x + attn)`, `resid = norm(h + mlp)`: its branches do not add
up.
"""

from __future__ import annotations

from repsim.models.arch.base import ArchSpec

BERT = ArchSpec(
    name="bert",
    model_types=("bert",),
    decoder=False,
    prefix="bert",
    blocks="encoder.layer",
    lm_heads=("cls.predictions.decoder",),
    stream={
        "embed": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "embed_norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
        "transform": "/cls.predictions.transform.dense",
        "final_norm": "/cls.predictions.transform.LayerNorm",
    },
    block={
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "o": "attention.output.dense",
        "attn_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "mlp_norm": "output.LayerNorm",
    },
    layer_norm=True,
    post_norm=True,
    untouched=(
        r"pooler\.dense\.bias",
        r"embeddings\.(position_ids|token_type_ids)",
        r"/cls\.predictions\.bias",
    ),
)

ROBERTA = BERT.like(
    "roberta",
    "xlm-roberta",
    "camembert",
    prefix="roberta",
    lm_heads=("lm_head.decoder",),
    stream={**BERT.stream, "transform": "/lm_head.dense", "final_norm": "/lm_head.layer_norm"},
    untouched=(*BERT.untouched[:2], r"/lm_head\.bias"),
)

DISTILBERT = BERT.like(
    "distilbert",
    prefix="distilbert",
    blocks="transformer.layer",
    lm_heads=("vocab_projector",),
    stream={
        "embed": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "embed_norm": "embeddings.LayerNorm",
        "transform": "/vocab_transform",
        "final_norm": "/vocab_layer_norm",
    },
    block={
        "q": "attention.q_lin",
        "k": "attention.k_lin",
        "v": "attention.v_lin",
        "o": "attention.out_lin",
        "attn_norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "mlp_norm": "output_layer_norm",
    },
)

# Norms stand before attention and MLP, as in decoders; the first block reads the stream as it is.
MODERNBERT = ArchSpec(
    name="modernbert",
    model_types=("modernbert",),
    decoder=False,
    prefix="model",
    blocks="layers",
    lm_heads=("decoder",),
    stream={
        "embed": "embeddings.tok_embeddings",
        "embed_norm": "embeddings.norm",
        "final_norm": "final_norm",
        "transform": "/head.dense",
        "transform_norm": "/head.norm",
    },
    block={
        "attn_norm": "attn_norm",
        "q k v": "attn.Wqkv",
        "o": "attn.Wo",
        "mlp_norm": "mlp_norm",
        "gate up": "mlp.Wi",
        "down": "mlp.Wo",
    },
    varies=lambda config, layer: {"attn_norm": ""} if layer == 0 else {},
    rotary="halves",
    layer_norm=True,
)

# Only the encoder is loaded and run; the decoder and the head are left in the file. Heads cannot be
# re-ordered, since the blocks of a stack share one table of relative positions.
T5 = ArchSpec(
    name="t5",
    model_types=("t5", "mt5"),
    decoder=False,
    body_path="encoder",
    blocks="block",
    stream={"final_norm": "final_layer_norm"},
    block={"o": "layer.0.SelfAttention.o", "down": "layer.1.DenseReluDense.wo"},
    auto_class="AutoModelForTextEncoding",
    reads="the encoder; what the decoder makes of a text depends on a second text, which it writes",
    unalignable=lambda config: "only its encoder is read, and the decoder shares its embedding",
)
