"""Which re-arrangements of a model's weights leave what it computes unchanged, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Group = Literal["permutation", "grouped permutation", "linear", "rotary", "rotation", "scale"]

#: Gains of norms: a rotation does not act on them. `attn_out_norm` and `mlp_out_norm` stand on what
#: attention and MLP give, `q_norm` and `k_norm` on the queries and keys of all heads at once.
GAINS = (
    "embed_norm", "attn_norm", "attn_out_norm", "mlp_norm", "mlp_out_norm", "final_norm",
    "q_norm", "k_norm",
)  # fmt: skip
#: Role of a weight -> its axes in working order. `resid` is the residual stream, `entry` an axis
#: that nothing may act on (vocabulary, positions), `kv` key-value heads, `q` query heads that
#: share one of them, `dim` the width of a head, `mlp` hidden units. Writers are transposed where
#: need be, so that `resid` always comes last.
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
    **dict.fromkeys([role for gain in GAINS for role in (gain, f"{gain}_bias")], "resid"),
    "q_norm": "kv q dim",
    "k_norm": "kv dim",
}


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """What a tensor of the checkpoint holds.

    Attributes:
        tensor: Name relative to the base model; with a leading "/", relative to the whole model.
        stored: Its axes as stored, an einops pattern such as "(kv q dim) resid". Several weights in
            one tensor lie along an axis `part`, or one behind the other: their patterns joined by
            " | ".
        roles: Role of the weight, or of each one in the tensor; keys of `ROLE_AXES`.
        layer: Block it belongs to, counted from 0; None outside the blocks.
        norm: Key of the norm whose output it reads; "" if it reads none.
        writes: Whether it adds to the residual stream.
        optional: Whether a checkpoint may lack it.
    """

    tensor: str
    stored: str
    roles: tuple[str, ...]
    layer: int | None = None
    norm: str = ""
    writes: bool = False
    optional: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of its weights among all weights of the model: "layer.role", or the role."""
        return tuple(weight_key(role, self.layer) for role in self.roles)


@dataclasses.dataclass(frozen=True)
class SymmetrySpace:
    """One group of transformations that leaves the model's function unchanged.

    An element is, by `group`:

    - "permutation": `[size]`, unit i of the result is unit `element[i]`;
    - "grouped permutation": `[copies, size]`, one permutation inside each key-value group;
    - "linear": `[copies, size, size]`, an invertible M per key-value group; `roles` take M, and
      `dual_roles` the inverse of its transpose;
    - "rotary": the same, where M acts on the first `rotary` dimensions by one rotation and scaling
      per pair (i, i + rotary/2): only that commutes with rotary positions;
    - "rotation": `[size, size]`, an orthogonal Q;
    - "scale": `[size]`, a positive factor per unit; `dual_roles` take its inverse.

    Attributes:
        name: What it is called: "mlp_units", "mlp_scale", "kv_groups", "query_heads",
            "value_basis", "query_key_basis", "residual_permutation", "residual_rotation".
        group: Kind of its elements.
        axes: Axes that it acts on, wherever a weight of `roles` has them.
        roles: Weights that it acts on.
        dual_roles: Weights that take the inverse transpose.
        layer: Block that it lives in; None if it spans all of them.
        size: Length of the axis.
        copies: Number of independent elements of a "grouped permutation", "linear" or "rotary".
        rotary: Dimensions that carry rotary positions.
        fixes_mean: Whether Q must keep the constant direction, along which LayerNorm is blind.
    """

    name: str
    group: Group
    axes: tuple[str, ...]
    roles: tuple[str, ...]
    size: int
    dual_roles: tuple[str, ...] = ()
    layer: int | None = None
    copies: int = 1
    rotary: int = 0
    fixes_mean: bool = False

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
    """All weights of one model and the symmetries among them.

    Attributes:
        family: Name of the family.
        body: Name that the base model's tensors are prefixed with in a model with a head.
        weights: Tensors that symmetries act on.
        spaces: Symmetries, in the order in which they are applied.
        sizes: Lengths of the axes, as far as the config states them.
        layers: Number of blocks.
        tied: Whether the head is the embedding (and not stored, or stored twice).
        centred: Whether norms subtract the mean (LayerNorm).
        gain_offset: What a norm adds to its stored gain.
        untouched: Regular expressions of tensors that no symmetry acts on.
    """

    family: str
    body: str
    weights: tuple[StoredWeight, ...]
    spaces: tuple[SymmetrySpace, ...]
    sizes: Mapping[str, int]
    layers: int
    tied: bool = False
    centred: bool = False
    gain_offset: float = 0.0
    untouched: tuple[str, ...] = ()

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


def attention_spaces(
    layer: int, *, kv: int, q: int, dim: int, rotary: int = 0, query_key_basis: bool = True
) -> list[SymmetrySpace]:
    """Symmetries of one attention part; no `query_key_basis` where queries are normalised."""
    queries, keys, values = ("q", "q_bias"), ("k", "k_bias"), ("v", "v_bias")
    everything = (*queries, "q_norm", *keys, "k_norm", *values, "o")
    found = [SymmetrySpace("kv_groups", "permutation", ("kv",), everything, kv, layer=layer)]
    if q > 1:
        heads = (*queries, "q_norm", "o")
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
