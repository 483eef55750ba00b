"""Decoders with a mixture of experts, as data for the block template.

Experts are read where their sum is added (`mlp`), since which ones a token takes differs.
Checkpoints store each by itself, `transformers` builds one tensor of all: both are known.
"""

from __future__ import annotations

from typing import Any

from repsim.models.arch.decoders import LLAMA, QK_NORMS, QWEN3
from repsim.models.arch.template import config_value

_DENSE = {role: LLAMA.block[role] for role in ("gate", "up", "down")}
_EXPERTS = {
    "mlp": "mlp",
    "router": "mlp.gate",
    "expert_gate expert_up": "mlp.experts.gate_up_proj",
    "expert_down": "mlp.experts.down_proj",
}
_SHARED = {
    "shared_gate": "mlp.shared_experts.gate_proj",
    "shared_up": "mlp.shared_experts.up_proj",
    "shared_down": "mlp.shared_experts.down_proj",
}
_ON_DISK = {
    "expert_gate": "mlp.experts.*.gate_proj",
    "expert_up": "mlp.experts.*.up_proj",
    "expert_down": "mlp.experts.*.down_proj",
}


def _sizes(config: Any) -> dict[str, int]:
    """Numbers of experts and of the hidden units of one."""
    groups = getattr(config, "n_group", None) or 1
    experts = config_value(config, "n_routed_experts", "num_experts", "num_local_experts")
    units = config_value(config, "moe_intermediate_size", "intermediate_size")
    return {"group": groups, "expert": experts // groups, "unit": units}


MIXTRAL = LLAMA.like(
    "mixtral",
    without=_DENSE,
    block=_EXPERTS,
    on_disk={
        "router": "block_sparse_moe.gate",
        "expert_gate": "block_sparse_moe.experts.*.w1",
        "expert_up": "block_sparse_moe.experts.*.w3",
        "expert_down": "block_sparse_moe.experts.*.w2",
    },
    more_sizes=_sizes,
)


def _without(*roles: str) -> dict[str, str]:
    return dict.fromkeys(roles, "")


def _qwen_block(config: Any, layer: int) -> dict[str, str]:
    """Some blocks may be dense."""
    sparse = config.num_experts > 0 and (layer + 1) % config.decoder_sparse_step == 0
    if layer in (config.mlp_only_layers or ()) or not sparse:
        return _without(*_EXPERTS, *_SHARED, "shared_router")
    return _without(*_DENSE)


QWEN3_MOE = QWEN3.like(
    "qwen3_moe", block=_EXPERTS, on_disk=_ON_DISK, varies=_qwen_block, more_sizes=_sizes
)

# One more expert is read by all tokens, as much as a gate of its own says.
QWEN2_MOE = QWEN3_MOE.like(
    "qwen2_moe",
    without=("q_norm", "k_norm"),
    block={
        **{role: path.replace("experts", "expert") for role, path in _SHARED.items()},
        "shared_router": "mlp.shared_expert_gate",
    },
    qk_norm="",
    more_sizes=lambda config: {
        **_sizes(config), "shared": config.shared_expert_intermediate_size
    },
)  # fmt: skip

OLMOE = MIXTRAL.like("olmoe", block=QK_NORMS, on_disk=_ON_DISK, qk_norm="all")

# Each head has a learned sink of attention; rows of gate and up alternate; `up` is clamped, and one
# is added to it, so that its scale cannot move to what comes after.
GPT_OSS = LLAMA.like(
    "gpt_oss",
    without=_DENSE,
    block={**_EXPERTS, "router": "mlp.router", "sinks": "self_attn.sinks"},
    layout={
        "expert_gate expert_up": "(group expert) resid (unit part)",
        "expert_down": "(group expert) unit resid",
    },
    more_sizes=_sizes,
)


def _deepseek_block(config: Any, layer: int) -> dict[str, str]:
    """The first blocks are dense."""
    if layer < config.first_k_dense_replace:
        return _without(*_EXPERTS, *_SHARED, "router_shift")
    return _without(*_DENSE)


def _no_query_latent(config: Any) -> str | None:
    """The Lite models make queries from the stream itself."""
    if config.q_lora_rank is None:
        return "its queries are not made from a latent (q_lora_rank: null), which is not described"
    return None


DEEPSEEK_V3 = LLAMA.like(
    "deepseek_v3",
    without=("q", "k", "v"),
    block={
        "query_down": "self_attn.q_a_proj",
        "query_norm": "self_attn.q_a_layernorm",
        "q_nope q_rope": "self_attn.q_b_proj",
        "key_value_down k_rope": "self_attn.kv_a_proj_with_mqa",
        "key_value_norm": "self_attn.kv_a_layernorm",
        "k_nope v_latent": "self_attn.kv_b_proj",
        **_EXPERTS,
        **_SHARED,
        "router_shift": "mlp.gate.e_score_correction_bias",
    },
    on_disk=_ON_DISK,
    varies=_deepseek_block,
    more_sizes=lambda config: {
        **_sizes(config),
        "shared": config.moe_intermediate_size * config.n_shared_experts,
        "kv": config.num_attention_heads,
        "dim": config.v_head_dim,
        "nope": config.qk_nope_head_dim,
        "rope": config.qk_rope_head_dim,
        "query_latent": config.q_lora_rank or 0,
        "key_latent": config.kv_lora_rank,
    },
    unalignable=_no_query_latent,
)
