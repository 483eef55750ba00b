"""Decoder families, as data for the block template."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from repsim.models.arch.base import ArchSpec

if TYPE_CHECKING:
    from torch import nn

LLAMA = ArchSpec(
    name="llama",
    model_types=("llama", "mistral", "ministral", "ministral3", "qwen2", "smollm3"),
    prefix="model",
    blocks="layers",
    stream={"embed": "embed_tokens", "final_norm": "norm"},
    block={
        "attn_norm": "input_layernorm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
    rotary="halves",
)

# Multipliers of embedding, branches and logits are scalars: they commute with every symmetry.
GRANITE = LLAMA.like("granite", additive_when=lambda config: config.residual_multiplier == 1.0)

GEMMA = LLAMA.like("gemma", gain_offset=1.0)

QK_NORMS = {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}

QWEN3 = LLAMA.like("qwen3", block=QK_NORMS, qk_norm="head")

# What attention and MLP give is normalised before it is added: `attn` and `mlp` are read behind.
GEMMA2 = GEMMA.like(
    "gemma2",
    block={
        "attn_out_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_out_norm": "post_feedforward_layernorm",
    },
)

GEMMA3_TEXT = GEMMA2.like("gemma3_text", block=QK_NORMS, qk_norm="head")

# The part that reads text of models that also see; the part that sees is left alone.
_SEES = "the part that sees writes into its residual stream too"
_OF_SEEING: dict[str, Any] = {
    "body_path": "language_model",
    "reads": "the part that reads text, without pictures",
    "unalignable": lambda config: _SEES,
}
GEMMA3 = GEMMA3_TEXT.like("gemma3", **_OF_SEEING)
MISTRAL3 = LLAMA.like("mistral3", **_OF_SEEING)

# No norm before attention and MLP, one behind each; queries and keys normalised over all heads.
OLMO2 = LLAMA.like(
    "olmo2",
    "olmo3",
    without=("attn_norm", "mlp_norm"),
    block={
        **QK_NORMS,
        "attn_out_norm": "post_attention_layernorm",
        "mlp_out_norm": "post_feedforward_layernorm",
    },
    qk_norm="all",
)

_FUSED_MLP = {"gate up": "mlp.gate_up_proj"}
PHI3 = LLAMA.like(
    "phi3",
    without=("q", "k", "v", "gate", "up"),
    block={"q k v": "self_attn.qkv_proj", **_FUSED_MLP},
)

#: Gains of queries and keys that are stored for each head by itself.
_NORM_PER_HEAD = {"q_norm": "(kv q) dim", "k_norm": "kv dim"}


_QK_LAYERNORMS = {"q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm"}


def _stablelm_block(config: Any, layer: int) -> dict[str, str]:
    """With `use_parallel_residual` attention and MLP read the same norm."""
    found = _QK_LAYERNORMS if config.qk_layernorm else {}
    return {**found, "mlp_norm": ""} if config.use_parallel_residual else found


STABLELM = LLAMA.like(
    "stablelm",
    layer_norm=True,
    varies=_stablelm_block,
    qk_norm="all",
    layout=_NORM_PER_HEAD,
    on_disk={"q_norm": "self_attn.q_layernorm.norms.*", "k_norm": "self_attn.k_layernorm.norms.*"},
)

PHI = LLAMA.like(
    "phi",
    stream={"embed": "embed_tokens", "final_norm": "final_layernorm"},
    without=("mlp_norm", "gate"),
    block={"o": "self_attn.dense", "up": "mlp.fc1", "down": "mlp.fc2"},
    layer_norm=True,
    qk_norm="head",
    varies=lambda config, layer: _QK_LAYERNORMS if config.qk_layernorm else {},
)

# Attention and MLP read the same norm.
COHERE = LLAMA.like(
    "cohere",
    "cohere2",
    without=("mlp_norm",),
    rotary="neighbours",
    layer_norm=True,
    qk_norm="all",
    layout=_NORM_PER_HEAD,
    varies=lambda config, layer: QK_NORMS if getattr(config, "use_qk_norm", False) else {},
)

HELIUM = LLAMA.like("helium", "ernie4_5", rotary="neighbours")

# Rotary positions on half of a head, and fused matrices of the MLP.
GLM = LLAMA.like("glm", without=("gate", "up"), block=_FUSED_MLP, rotary="neighbours")

GLM4 = GLM.like(
    "glm4",
    block={"attn_out_norm": "post_self_attn_layernorm", "mlp_out_norm": "post_mlp_layernorm"},
)

STARCODER2 = LLAMA.like(
    "starcoder2", without=("gate",), block={"up": "mlp.c_fc", "down": "mlp.c_proj"}, layer_norm=True
)

GPT2 = ArchSpec(
    name="gpt2",
    model_types=("gpt2",),
    prefix="transformer",
    blocks="h",
    stream={"embed": "wte", "positions": "wpe", "final_norm": "ln_f"},
    block={
        "attn_norm": "ln_1",
        "q k v": "attn.c_attn",
        "o": "attn.c_proj",
        "mlp_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    layer_norm=True,
    conv1d=True,
    untouched=(r"h\.\d+\.attn\.(masked_)?bias",),
)

# Query, key and value of one head lie together. Early releases call the head embed_out.
GPT_NEOX = ArchSpec(
    name="gpt_neox",
    model_types=("gpt_neox",),
    prefix="gpt_neox",
    blocks="layers",
    lm_heads=("lm_head", "embed_out"),
    stream={"embed": "embed_in", "final_norm": "final_layer_norm"},
    block={
        "attn_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "q k v": "attention.query_key_value",
        "o": "attention.dense",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    layout={"q k v": "(kv q part dim) resid"},
    rotary="halves",
    layer_norm=True,
    untouched=(r"layers\.\d+\.attention\.(masked_)?bias",),
)


def _falcon_block(config: Any, layer: int) -> dict[str, str]:
    """The 7B model has one norm, the 40B and 180B two beside each other, the 1B two in a row."""
    if not config.parallel_attn:
        return {"mlp_norm": "post_attention_layernorm"}
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn in (None, 2):
        return {"attn_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    return {}


def _falcon_kv(config: Any) -> int:
    """Key-value heads: grouped in the newer models, one in the 7B model."""
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


# The queries of a group lie before its key and value.
FALCON = ArchSpec(
    name="falcon",
    model_types=("falcon",),
    prefix="transformer",
    blocks="h",
    stream={"embed": "word_embeddings", "final_norm": "ln_f"},
    block={
        "attn_norm": "input_layernorm",
        "q k v": "self_attention.query_key_value",
        "o": "self_attention.dense",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    layout={"q k v": "kv (q dim) resid + kv dim resid + kv dim resid"},
    varies=_falcon_block,
    more_sizes=lambda config: {"kv": _falcon_kv(config)},
    rotary="halves",
    layer_norm=True,
    unalignable=lambda config: _ALIBI if config.alibi else None,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OptSpec(ArchSpec):
    """OPT's spec: what follows the last block may be a norm, a projection, both or nothing."""

    def final_norm(self, model: nn.Module) -> nn.Module | None:
        """Final norm and output projection, as far as the model has them."""
        from torch import nn

        body = self.body(model)
        parts = [getattr(body, name, None) for name in ("final_layer_norm", "project_out")]
        there = [part for part in parts if part is not None]
        return nn.Sequential(*there) if there else None


def _opt_350m(config: Any) -> str | None:
    """The 350M model ends each block in a norm and has a narrower embedding."""
    if not config.do_layer_norm_before:
        return "norms stand on the stream, between embeddings of another width"
    return None


OPT = OptSpec(
    name="opt",
    model_types=("opt",),
    prefix="model",
    body_path="decoder",
    blocks="layers",
    stream={
        "embed": "embed_tokens",
        "positions": "embed_positions",
        "final_norm": "final_layer_norm",
    },
    block={
        "attn_norm": "self_attn_layer_norm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.out_proj",
        "mlp_norm": "final_layer_norm",
        "up": "fc1",
        "down": "fc2",
    },
    layer_norm=True,
    additive_when=lambda config: bool(config.do_layer_norm_before),
    unalignable=_opt_350m,
)


def _sliced_projections(config: Any) -> str | None:
    """The projections are not called as modules in the tensor-parallel emulation of BLOOM."""
    if config.slow_but_exact and config.pretraining_tp > 1:
        return "a BLOOM config with slow_but_exact and pretraining_tp > 1 hides its projections"
    return None


_ALIBI = "ALiBi gives each head a slope of its own"

# `attn` and `mlp` are read at the projections, before the modules add the residual stream.
BLOOM = ArchSpec(
    name="bloom",
    model_types=("bloom",),
    prefix="transformer",
    blocks="h",
    stream={"final_norm": "ln_f"},
    block={"o": "self_attention.dense", "down": "mlp.dense_4h_to_h"},
    additive_when=lambda config: not config.apply_residual_connection_post_layernorm,
    refuses=_sliced_projections,
    unalignable=lambda config: _ALIBI,
)
