"""Which part of a model a tensor belongs to, as the family declares or its name tells."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from repsim.merging.tensors import kind_of, layer_of
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import StoredWeight, WeightSpaces

Group = Literal["attention", "mlp", "embedding", "norm", "other"]
Third = Literal["", "early", "middle", "late"]

_ROLES: dict[str, Group] = {
    "embed": "embedding", "head": "embedding", "q": "attention", "k": "attention",
    "v": "attention", "o": "attention", "gate": "mlp", "up": "mlp", "down": "mlp",
}  # fmt: skip
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn|feed_forward|DenseReluDense|\bfc\d?\b|intermediate|output\.dense")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in a model a tensor stands."""

    tensor: str
    shape: tuple[int, ...]
    group: Group
    layer: int | None
    third: Third
    stored: StoredWeight | None = None

    @property
    def is_body(self) -> bool:
        """Whether it is a matrix of attention or MLP inside a block."""
        return self.group in ("attention", "mlp") and len(self.shape) == 2


def third_of(layer: int, layers: int) -> Third:
    """Third of the depth in which a block lies by its middle."""
    place = (layer + 0.5) / layers
    return "early" if place < 1 / 3 else "middle" if place <= 2 / 3 else "late"


def spaces_of(config: Any) -> WeightSpaces | None:
    """What the family says of its weights; None if it says nothing."""
    spec = spec_for(config.model_type, generic=True)
    return None if spec.why_unalignable(config) else spec.spaces(config)


def places_of(shapes: Mapping[str, tuple[int, ...]], config: Any) -> list[Place]:
    """Where each tensor stands, in the order in which they are read: block by block."""
    spaces = spaces_of(config)
    declared: dict[str, StoredWeight] = {}
    if spaces is not None:
        headed = any(name.startswith(f"{spaces.body}.") for name in shapes)
        prefix = f"{spaces.body}." if headed else ""
        for weight in spaces.weights:
            at_root = weight.tensor.startswith("/")
            declared[weight.tensor[1:] if at_root else prefix + weight.tensor] = weight
    numbered = {name: layer_of(name) for name in shapes}
    layers = 1 + max((found.number for found in numbered.values() if found), default=0)
    places = []
    for name, shape in shapes.items():
        inside = numbered[name]
        layer = inside.number if inside else None
        third: Third = "" if layer is None else third_of(layer, layers)
        weight_or_none = declared.get(name)
        group = _group(name, shape, weight_or_none, inside is not None)
        places.append(Place(name, shape, group, layer, third, weight_or_none))
    return sorted(places, key=lambda place: -1 if place.layer is None else place.layer)


def _group(name: str, shape: tuple[int, ...], weight: StoredWeight | None, inside: bool) -> Group:
    if weight is not None and weight.roles[0] in _ROLES:
        return _ROLES[weight.roles[0]]
    kind = kind_of(name, len(shape))
    if kind == "norm":
        return "norm"
    if weight is not None:
        return "other"
    if kind in ("embedding", "head") and len(shape) == 2 and not inside:
        return "embedding"
    if inside and kind == "matrix":
        return "attention" if _ATTENTION.search(name) else "mlp" if _MLP.search(name) else "other"
    return "other"
