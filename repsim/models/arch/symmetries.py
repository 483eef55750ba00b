"""The symmetries of each part of a block, and of the residual stream."""

from __future__ import annotations

import functools

from repsim.models.arch.spaces import GAINS, ROLE_AXES, Group, SymmetrySpace


def attention_spaces(
    layer: int, *, kv: int, q: int, dim: int, rotary: int = 0, query_key_basis: bool = True
) -> list[SymmetrySpace]:
    """Symmetries of one attention part; no `query_key_basis` where queries are normalised."""
    queries, keys, values = ("q", "q_bias"), ("k", "k_bias"), ("v", "v_bias")
    everything = (*queries, "q_norm", "sinks", *keys, "k_norm", *values, "o")
    space = functools.partial(SymmetrySpace, layer=layer)
    found = [space("kv_groups", "permutation", ("kv",), everything, kv)]
    if q > 1:
        heads = (*queries, "q_norm", "sinks", "o")
        found.append(space("query_heads", "grouped permutation", ("q",), heads, q, copies=kv))
    found.append(
        space("value_basis", "linear", ("dim",), values, dim, dual_roles=("o",), copies=kv)
    )
    if query_key_basis:
        group: Group = "rotary" if rotary else "linear"
        found.append(
            space("query_key_basis", group, ("dim",), queries, dim, dual_roles=keys, copies=kv,
                  rotary=rotary)
        )  # fmt: skip
    return found


def mlp_spaces(layer: int, units: int, *, gated: bool) -> list[SymmetrySpace]:
    """Order of the hidden units of one feed-forward part and, where it is gated, their scale."""
    roles = ("gate", "gate_bias", "up", "up_bias", "down")
    space = functools.partial(SymmetrySpace, layer=layer, size=units, axes=("mlp",))
    found = [space("mlp_units", "permutation", roles=roles)]
    if gated:  # what is gated enters as a product, so that its scale can move to what comes after
        scaled = ("up", "up_bias")
        found.append(space("mlp_scale", "scale", roles=scaled, dual_roles=("down",)))
    return found


def latent_attention_spaces(
    layer: int, *, heads: int, dim: int, nope: int, query_latent: int, key_latent: int
) -> list[SymmetrySpace]:
    """Symmetries of latent attention (DeepSeek V2); all heads share the key with positions."""
    every_head = ("q_nope", "q_rope", "k_nope", "v_latent", "o")
    of_query = ("query_down", "query_norm", "q_nope", "q_rope")
    of_key = ("key_value_down", "key_value_norm", "k_nope", "v_latent")
    space = functools.partial(SymmetrySpace, layer=layer)
    return [
        space("query_latent", "permutation", ("query_latent",), of_query, query_latent),
        space("key_latent", "permutation", ("key_latent",), of_key, key_latent),
        space("latent_heads", "permutation", ("kv",), every_head, heads),
        space("latent_value_basis", "linear", ("dim",), ("v_latent",), dim, dual_roles=("o",),
              copies=heads),
        space("latent_query_key_basis", "linear", ("nope",), ("q_nope",), nope,
              dual_roles=("k_nope",), copies=heads),
    ]  # fmt: skip


def expert_spaces(layer: int, *, groups: int, experts: int, units: int) -> list[SymmetrySpace]:
    """Order of routed experts, their rows of the router with them, and of the units in each."""
    inside = ("expert_gate", "expert_gate_bias", "expert_up", "expert_up_bias")
    every = ("router", "router_bias", "router_shift", *inside, "expert_down", "expert_down_bias")
    grouped = functools.partial(SymmetrySpace, group="grouped permutation", layer=layer)
    found = [
        grouped("experts", axes=("expert",), roles=every, size=experts, copies=groups),
        grouped("expert_units", axes=("unit",), roles=(*inside, "expert_down"), size=units,
                copies=groups * experts),
    ]  # fmt: skip
    if groups > 1:  # routers that choose groups of experts first
        found.insert(
            0, SymmetrySpace("expert_groups", "permutation", ("group",), every, groups, layer=layer)
        )
    return found


def shared_expert_spaces(layer: int, units: int) -> list[SymmetrySpace]:
    """Order and scale of the hidden units of the expert that all tokens take."""
    roles = ("shared_gate", "shared_up", "shared_down")
    space = functools.partial(SymmetrySpace, layer=layer, size=units, axes=("shared",))
    return [
        space("shared_units", "permutation", roles=roles),
        space("shared_scale", "scale", roles=roles[1:2], dual_roles=roles[2:]),
    ]


def mixer_spaces(layer: int, *, channels: int, states: int, rank: int) -> list[SymmetrySpace]:
    """Symmetries of a selective state-space mixer (Mamba)."""
    of_channel = ("mix_in", "mix_gate", "conv", "conv_bias", "mix_step", "mix_b", "mix_c", "step",
                  "step_bias", "decay", "skip", "mix_out")  # fmt: skip
    space = functools.partial(SymmetrySpace, layer=layer)
    return [
        space("channels", "permutation", ("channel",), of_channel, channels),
        space("states", "permutation", ("state",), ("mix_b", "mix_c", "decay"), states),
        space("step_basis", "linear", ("rank",), ("mix_step",), rank, dual_roles=("step",)),
    ]


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
