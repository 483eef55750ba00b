"""The symmetries of each part of a block, and of the residual stream."""

from __future__ import annotations

from repsim.models.arch.spaces import GAINS, ROLE_AXES, SymmetrySpace


def attention_spaces(
    layer: int, *, kv: int, q: int, dim: int, rotary: int = 0, query_key_basis: bool = True
) -> list[SymmetrySpace]:
    """Symmetries of one attention part; no `query_key_basis` where queries are normalised."""
    queries, keys, values = ("q", "q_bias"), ("k", "k_bias"), ("v", "v_bias")
    everything = (*queries, "q_norm", "sinks", *keys, "k_norm", *values, "o")
    found = [SymmetrySpace("kv_groups", "permutation", ("kv",), everything, kv, layer=layer)]
    if q > 1:
        heads = (*queries, "q_norm", "sinks", "o")
        found.append(
            SymmetrySpace(
                "query_heads", "grouped permutation", ("q",), heads, q, layer=layer, copies=kv
            )
        )
    found.append(
        SymmetrySpace(
            "value_basis", "linear", ("dim",), values, dim,
            dual_roles=("o",), layer=layer, copies=kv,
        )
    )  # fmt: skip
    if query_key_basis:
        found.append(
            SymmetrySpace(
                "query_key_basis", "rotary" if rotary else "linear", ("dim",), queries, dim,
                dual_roles=keys, layer=layer, copies=kv, rotary=rotary,
            )
        )  # fmt: skip
    return found


def mlp_spaces(layer: int, units: int, *, gated: bool) -> list[SymmetrySpace]:
    """Order of the hidden units of one feed-forward part and, where it is gated, their scale."""
    roles = ("gate", "gate_bias", "up", "up_bias", "down")
    found = [SymmetrySpace("mlp_units", "permutation", ("mlp",), roles, units, layer=layer)]
    if gated:  # what is gated enters as a product, so that its scale can move to what comes after
        scaled = ("up", "up_bias")
        found.append(
            SymmetrySpace(
                "mlp_scale", "scale", ("mlp",), scaled, units, dual_roles=("down",), layer=layer
            )
        )
    return found


def latent_attention_spaces(
    layer: int, *, heads: int, dim: int, nope: int, query_latent: int, key_latent: int
) -> list[SymmetrySpace]:
    """Symmetries of latent attention (DeepSeek V2); all heads share the key with positions."""
    every_head = ("q_nope", "q_rope", "k_nope", "v_latent", "o")
    of_query = ("query_down", "query_norm", "q_nope", "q_rope")
    of_key = ("key_value_down", "key_value_norm", "k_nope", "v_latent")
    return [
        SymmetrySpace("query_latent", "permutation", ("query_latent",), of_query, query_latent,
                      layer=layer),
        SymmetrySpace("key_latent", "permutation", ("key_latent",), of_key, key_latent,
                      layer=layer),
        SymmetrySpace("latent_heads", "permutation", ("kv",), every_head, heads, layer=layer),
        SymmetrySpace("latent_value_basis", "linear", ("dim",), ("v_latent",), dim,
                      dual_roles=("o",), layer=layer, copies=heads),
        SymmetrySpace("latent_query_key_basis", "linear", ("nope",), ("q_nope",), nope,
                      dual_roles=("k_nope",), layer=layer, copies=heads),
    ]  # fmt: skip


def expert_spaces(layer: int, *, groups: int, experts: int, units: int) -> list[SymmetrySpace]:
    """Order of routed experts, their rows of the router with them, and of the units in each."""
    inside = ("expert_gate", "expert_gate_bias", "expert_up", "expert_up_bias")
    every = ("router", "router_bias", "router_shift", *inside, "expert_down", "expert_down_bias")
    found = [
        SymmetrySpace("experts", "grouped permutation", ("expert",), every, experts, layer=layer,
                      copies=groups),
        SymmetrySpace("expert_units", "grouped permutation", ("unit",), (*inside, "expert_down"),
                      units, layer=layer, copies=groups * experts),
    ]  # fmt: skip
    if groups > 1:  # routers that choose groups of experts first
        found.insert(
            0, SymmetrySpace("expert_groups", "permutation", ("group",), every, groups, layer=layer)
        )
    return found


def shared_expert_spaces(layer: int, units: int) -> list[SymmetrySpace]:
    """Order and scale of the hidden units of the expert that all tokens take."""
    roles = ("shared_gate", "shared_up", "shared_down")
    return [
        SymmetrySpace("shared_units", "permutation", ("shared",), roles, units, layer=layer),
        SymmetrySpace(
            "shared_scale", "scale", ("shared",), ("shared_up",), units,
            dual_roles=("shared_down",), layer=layer,
        ),
    ]  # fmt: skip


def mixer_spaces(layer: int, *, channels: int, states: int, rank: int) -> list[SymmetrySpace]:
    """Symmetries of a selective state-space mixer (Mamba)."""
    of_channel = ("mix_in", "mix_gate", "conv", "conv_bias", "mix_step", "mix_b", "mix_c", "step",
                  "step_bias", "decay", "skip", "mix_out")  # fmt: skip
    return [
        SymmetrySpace("channels", "permutation", ("channel",), of_channel, channels, layer=layer),
        SymmetrySpace(
            "states", "permutation", ("state",), ("mix_b", "mix_c", "decay"), states, layer=layer
        ),
        SymmetrySpace(
            "step_basis", "linear", ("rank",), ("mix_step",), rank,
            dual_roles=("step",), layer=layer,
        ),
    ]  # fmt: skip


def residual_spaces(
    width: int, *, rotation: bool = True, fixes_mean: bool = False
) -> list[SymmetrySpace]:
    """Order, and (where every gain can be folded into a reader) orientation of the stream."""
    roles = tuple(role for role, axes in ROLE_AXES.items() if "resid" in axes.split())
    axes = ("resid", "resid_out")
    found = [SymmetrySpace("residual_permutation", "permutation", axes, roles, width)]
    if rotation:
        rotated = tuple(role for role in roles if role not in GAINS)
        found.append(
            SymmetrySpace(
                "residual_rotation", "rotation", ("resid",), rotated, width, fixes_mean=fixes_mean
            )
        )
    return found
