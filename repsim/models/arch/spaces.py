"""Which re-arrangements of a model's weights leave what it computes unchanged, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

#: An element is, by group:
#: - permutation: `[size]`, unit i of the result is unit `element[i]`;
#: - grouped permutation: `[copies, size]`, one inside each group that the axes before it count;
#: - linear: `[copies, size, size]`, an invertible M per key-value group (one where weights have no
#:   such axis); `roles` take M, and `dual_roles` the inverse of its transpose;
#: - rotary: the same, where M acts on the first `rotary` dimensions by one rotation and scaling per
#:   pair (i, i + rotary/2): only that commutes with rotary positions;
#: - rotation: `[size, size]`, an orthogonal Q;
#: - scale: `[size]`, a positive factor per unit; `dual_roles` take its inverse.
Group = Literal["permutation", "grouped permutation", "linear", "rotary", "rotation", "scale"]

#: Gains of norms: a rotation does not act on them. The first seven stand on the stream, or on what
#: attention and MLP give (`attn_out_norm`, `mlp_out_norm`), the others on queries, keys, latents.
GAINS = (
    "embed_norm", "attn_norm", "attn_out_norm", "mlp_norm", "mlp_out_norm", "final_norm",
    "transform_norm", "q_norm", "k_norm", "query_norm", "key_value_norm",
)  # fmt: skip
#: Role of a weight -> its axes in working order. `resid` is the residual stream, `entry` an axis
#: that nothing may act on (vocabulary, positions), `kv` key-value heads, `q` query heads that
#: share one of them, `dim` the width of a head, `mlp` hidden units. Of a mixture of experts,
#: `group` and `expert` count the routed ones, `unit` the hidden units of one, `shared` those of the
#: expert that all tokens take. Of latent attention, `query_latent` and `key_latent` are what
#: queries, and keys with values, are made from; `nope` and `rope` the dimensions of a head without
#: and with positions. Of a state-space mixer, `channel`, `state` and `rank` (of the time step).
#: Writers are transposed where need be, so that `resid` comes last where there is one.
ROLE_AXES: dict[str, str] = {
    **dict.fromkeys(("embed", "positions", "token_types", "head", "pooler"), "entry resid"),
    "transform": "resid_out resid",
    "q": "kv q dim resid",
    "k": "kv dim resid",
    "v": "kv dim resid",
    "o": "kv q dim resid",
    **dict.fromkeys(("gate", "up", "down"), "mlp resid"),
    "q_bias": "kv q dim",
    "k_bias": "kv dim",
    "v_bias": "kv dim",
    "gate_bias": "mlp",
    "up_bias": "mlp",
    **dict.fromkeys(("o_bias", "down_bias", "transform_bias"), "resid"),
    **dict.fromkeys([role for gain in GAINS[:7] for role in (gain, f"{gain}_bias")], "resid"),
    "q_norm": "kv q dim",
    "k_norm": "kv dim",
    "sinks": "kv q",
    # Latent attention
    "query_down": "query_latent resid",
    "query_norm": "query_latent",
    "q_nope": "kv nope query_latent",
    "q_rope": "kv rope query_latent",
    "key_value_down": "key_latent resid",
    "k_rope": "rope resid",
    "key_value_norm": "key_latent",
    "k_nope": "kv nope key_latent",
    "v_latent": "kv dim key_latent",
    # Mixtures of experts
    "router": "group expert resid",
    **dict.fromkeys(("router_bias", "router_shift"), "group expert"),
    **dict.fromkeys(("expert_gate", "expert_up", "expert_down"), "group expert unit resid"),
    **dict.fromkeys(("expert_gate_bias", "expert_up_bias"), "group expert unit"),
    "expert_down_bias": "group expert resid",
    **dict.fromkeys(("shared_gate", "shared_up", "shared_down"), "shared resid"),
    "shared_router": "entry resid",
    # State-space mixers
    **dict.fromkeys(("mix_in", "mix_gate", "mix_out"), "channel resid"),
    "conv": "channel tap",
    **dict.fromkeys(("conv_bias", "step_bias", "skip"), "channel"),
    "mix_step": "rank channel",
    **dict.fromkeys(("mix_b", "mix_c"), "state channel"),
    "step": "channel rank",
    "decay": "channel state",
}


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """What a tensor of the checkpoint holds."""

    tensor: str  # Name relative to the base model; with a leading "/", relative to the whole model
    #: Its axes as stored, an einops pattern such as "(kv q dim) resid". Several weights in one
    #: tensor lie along an axis `part`; one behind the other, their patterns joined by " | "; or one
    #: behind the other inside each head, joined by " + ".
    stored: str
    roles: tuple[str, ...]  # Role of the weight, or of each one in the tensor; keys of `ROLE_AXES`
    layer: int | None = None  # Block it belongs to, counted from 0; None outside the blocks
    norm: str = ""  # Key of the norm whose output it reads; "" if it reads none
    writes: bool = False  # Whether it adds to the residual stream
    optional: bool = False  # Whether a checkpoint may lack it
    #: For each role, the name that other checkpoints store it under; a "*" is the number of an
    #: expert, each of which has a tensor of its own there.
    parts: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of its weights among all weights of the model: "layer.role", or the role."""
        return tuple(weight_key(role, self.layer) for role in self.roles)


@dataclasses.dataclass(frozen=True)
class SymmetrySpace:
    """One group of transformations that leaves the model's function unchanged."""

    name: str  # Such as "mlp_units", "query_heads", "residual_rotation"
    group: Group
    axes: tuple[str, ...]  # Axes that it acts on, wherever a weight of `roles` has them
    roles: tuple[str, ...]  # Weights that it acts on
    size: int  # Length of the axis
    dual_roles: tuple[str, ...] = ()  # Weights that take the inverse transpose
    layer: int | None = None  # Block that it lives in; None if it spans all of them
    copies: int = 1  # Independent elements of a "grouped permutation", "linear" or "rotary"
    rotary: int = 0  # Dimensions that carry rotary positions
    fixes_mean: bool = False  # Whether Q must keep the constant direction, as for LayerNorm

    @property
    def key(self) -> str:
        """Name that is unique within a model."""
        return weight_key(self.name, self.layer)

    @property
    def needs_folding(self) -> bool:
        """Whether gains of norms must be folded into what reads them before it is legal."""
        return self.group == "rotation"

    def acts_on(self, key: str) -> bool:
        """Whether it acts on the weight of that key."""
        layer, role = split_key(key)
        return (self.layer is None or self.layer == layer) and role in self.roles + self.dual_roles


@dataclasses.dataclass(frozen=True)
class WeightSpaces:
    """All weights of one model and the symmetries among them."""

    family: str  # Name of the family
    body: str  # Name that the base model's tensors are prefixed with in a model with a head
    weights: tuple[StoredWeight, ...]  # Tensors that symmetries act on
    spaces: tuple[SymmetrySpace, ...]  # Symmetries, in the order in which they are applied
    sizes: Mapping[str, int]  # Lengths of the axes, as far as the config states them
    layers: int  # Number of blocks
    tied: bool = False  # Whether the head is the embedding (and not stored, or stored twice)
    centred: bool = False  # Whether norms subtract the mean (LayerNorm)
    gain_offset: float = 0.0  # What a norm adds to its stored gain
    untouched: tuple[str, ...] = ()  # Regular expressions of tensors that no symmetry acts on
    #: How many dimensions of a head carry rotary positions as pairs (2 i, 2 i + 1); in working
    #: order they are (i, i + n/2).
    neighbours: int = 0
    unrotatable: str = ""  # Why there is no rotation of the stream; "" if there is

    def __getitem__(self, key: str) -> SymmetrySpace:
        for space in self.spaces:
            if space.key == key:
                return space
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(space.key == key for space in self.spaces)

    def untied(self) -> WeightSpaces:
        """The same model with a head of its own."""
        return dataclasses.replace(self, tied=False)


def weight_key(role: str, layer: int | None) -> str:
    """Key of a weight or space: "layer.role", or the role outside the blocks."""
    return role if layer is None else f"{layer}.{role}"


def split_key(key: str) -> tuple[int | None, str]:
    """Layer and role of a key."""
    layer, _, role = key.rpartition(".")
    return (int(layer) if layer else None), role


def axes_of(key: str) -> tuple[str, ...]:
    """Axes of the weight of that key, in working order."""
    return tuple(ROLE_AXES[split_key(key)[1]].split())
