"""Which re-arrangements of a model's weights leave what it computes unchanged, as data.

A family states, for each tensor in the file, what its axes mean (`StoredWeight`), and which
symmetry acts on which axis of which weights (`SymmetrySpace`). Whatever applies, searches or tests
a symmetry works from these declarations and knows no family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

Group = Literal["permutation", "grouped permutation", "linear", "rotary", "rotation"]

#: Role of a weight -> its axes in working order. `resid` is the residual stream, `entry` an axis
#: that nothing may act on (vocabulary, positions), `kv` key-value heads, `q` query heads that
#: share one of them, `dim` the width of a head, `mlp` hidden units. Writers are transposed where
#: need be, so that `resid` always comes last.
ROLE_AXES: dict[str, str] = {
    "embed": "entry resid",
    "positions": "entry resid",
    "token_types": "entry resid",
    "head": "entry resid",
    "transform": "resid_out resid",
    "pooler": "entry resid",
    "q": "kv q dim resid",
    "q_bias": "kv q dim",
    "k": "kv dim resid",
    "k_bias": "kv dim",
    "v": "kv dim resid",
    "v_bias": "kv dim",
    "o": "kv q dim resid",
    "o_bias": "resid",
    "gate": "mlp resid",
    "gate_bias": "mlp",
    "up": "mlp resid",
    "up_bias": "mlp",
    "down": "mlp resid",
    "down_bias": "resid",
    "transform_bias": "resid",
    "embed_norm": "resid",
    "embed_norm_bias": "resid",
    "attn_norm": "resid",
    "attn_norm_bias": "resid",
    "mlp_norm": "resid",
    "mlp_norm_bias": "resid",
    "final_norm": "resid",
    "final_norm_bias": "resid",
}
#: Gains of norms: a rotation does not act on them, since folding has made them all alike.
GAINS = ("embed_norm", "attn_norm", "mlp_norm", "final_norm")


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """What a tensor of the checkpoint holds.

    Attributes:
        tensor: Name relative to the body; with a leading "/", relative to the whole model.
        stored: Its axes as stored, an einops pattern such as "(kv q dim) resid"; an axis `part`
            stacks several weights in one tensor.
        roles: Role of the weight, or of each one along `part`; keys of `ROLE_AXES`.
        layer: Block it belongs to, counted from 0; None outside the blocks.
        norm: Key of the norm whose output it reads; "" if it reads none.
        writes: Whether it adds to the residual stream.
        optional: Whether a checkpoint may lack it.

    Example:
        >>> weight = StoredWeight("layers.0.mlp.down_proj.weight", "resid mlp", ("down",), layer=0)
        >>> weight.keys
        ('0.down',)
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
    - "rotation": `[size, size]`, an orthogonal Q.

    Attributes:
        name: What it is called: "mlp_units", "kv_groups", "query_heads", "value_basis",
            "query_key_basis", "residual_permutation", "residual_rotation".
        group: Kind of its elements.
        axes: Axes that it acts on, wherever a weight of `roles` has them.
        roles: Weights that it acts on.
        dual_roles: Weights that take the inverse transpose.
        layer: Block that it lives in; None if it spans all of them.
        size: Length of the axis.
        copies: Number of independent elements of a "grouped permutation", "linear" or "rotary".
        rotary: Dimensions that carry rotary positions.
        fixes_mean: Whether Q must keep the constant direction, along which LayerNorm is blind.

    Example:
        >>> SymmetrySpace("mlp_units", "permutation", ("mlp",), ("up", "down"), 48, layer=1).key
        '1.mlp_units'
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
        body: Name that the body's tensors are prefixed with in a model with a head.
        weights: Tensors that symmetries act on.
        spaces: Symmetries, in the order in which they are applied.
        sizes: Lengths of the axes, as far as the config states them.
        layers: Number of blocks.
        tied: Whether the head is the embedding (and not stored, or stored twice).
        centred: Whether norms subtract the mean (LayerNorm).
        gain_offset: What a norm adds to its stored gain.
        untouched: Regular expressions of tensors that no symmetry acts on.

    Example:
        >>> from repsim.models.arch import ARCHITECTURES
        >>> from repsim.testing.tiny_models import tiny_config
        >>> spaces = ARCHITECTURES["llama"].spaces(tiny_config("llama"))
        >>> [space.key for space in spaces.spaces if space.layer in (0, None)][:4]
        ['0.kv_groups', '0.query_heads', '0.value_basis', '0.query_key_basis']
        >>> spaces["residual_rotation"].needs_folding
        True
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
    """Layer and role of a key.

    Example:
        >>> split_key("3.q_bias"), split_key("embed")
        ((3, 'q_bias'), (None, 'embed'))
    """
    layer, _, role = key.rpartition(".")
    return (int(layer) if layer else None), role


def axes_of(key: str) -> tuple[str, ...]:
    """Axes of the weight of that key, in working order."""
    return tuple(ROLE_AXES[split_key(key)[1]].split())


def attention_spaces(
    layer: int, *, kv: int, q: int, dim: int, rotary: int = 0, query_key_basis: bool = True
) -> list[SymmetrySpace]:
    """Symmetries of one attention part.

    Args:
        layer: Block.
        kv: Number of key-value heads.
        q: Query heads per key-value head.
        dim: Width of a head.
        rotary: Leading dimensions of a head that carry rotary positions.
        query_key_basis: False where queries and keys are normalised per head, which only a
            rotation with equal gains would survive.

    Example:
        >>> [space.name for space in attention_spaces(0, kv=2, q=1, dim=4)]
        ['kv_groups', 'value_basis', 'query_key_basis']
    """
    queries, values = ("q", "q_bias"), ("v", "v_bias")
    keys, heads = ("k", "k_bias"), ("q", "q_bias", "o")
    everything = (*queries, *keys, *values, "o")
    found = [SymmetrySpace("kv_groups", "permutation", ("kv",), everything, kv, layer=layer)]
    if q > 1:
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


def mlp_space(layer: int, units: int) -> SymmetrySpace:
    """Order of the hidden units of one feed-forward part.

    Example:
        >>> mlp_space(0, 48).key
        '0.mlp_units'
    """
    roles = ("gate", "gate_bias", "up", "up_bias", "down")
    return SymmetrySpace("mlp_units", "permutation", ("mlp",), roles, units, layer=layer)


def residual_spaces(
    width: int, *, rotation: bool = True, fixes_mean: bool = False
) -> list[SymmetrySpace]:
    """Order, and (where no norm stands on the stream itself) orientation of the residual stream.

    Args:
        width: Its size.
        rotation: Whether it may be rotated.
        fixes_mean: Whether the rotation must keep the constant direction (LayerNorm).

    Example:
        >>> [space.name for space in residual_spaces(32, rotation=False)]
        ['residual_permutation']
    """
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


def with_biases(weights: Iterable[StoredWeight]) -> list[StoredWeight]:
    """Weights of linear maps and norms, each followed by its optional bias.

    The bias of a map has the axes that the map writes: those of the weight without the one it
    reads.

    Example:
        >>> up = StoredWeight("fc.weight", "mlp resid", ("up",), norm="0.mlp_norm", layer=0)
        >>> [weight.tensor for weight in with_biases([up])]
        ['fc.weight', 'fc.bias']
    """
    found: list[StoredWeight] = []
    for weight in weights:
        found.append(weight)
        roles = tuple(f"{role}_bias" for role in weight.roles)
        if not all(role in ROLE_AXES for role in roles):
            continue
        written = [axis for axis in weight.stored.split() if axis != "resid"]
        if not written or weight.writes or "resid_out" in written:
            written = ["resid"]
        stored = " ".join(written)
        tensor = weight.tensor.removesuffix(".weight") + ".bias"
        found.append(
            dataclasses.replace(
                weight, tensor=tensor, stored=stored, roles=roles, norm="", optional=True
            )
        )
    return found
