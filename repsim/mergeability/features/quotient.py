"""Distance of two models up to symmetry: what remains after the best permutation or rotation found.

The search is that of merging (`repsim.merging.align`): coordinate descent, an upper bound.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from repsim.core.errors import IncompatibleModelsError
from repsim.mergeability.features.fit import Weights
from repsim.mergeability.features.layout import spaces_of
from repsim.models.arch.spaces import WeightSpaces, split_key

if TYPE_CHECKING:
    from repsim.merging.align.attention import Method
    from repsim.merging.align.weights import Weights as AlignedWeights

#: Roles of the matrices inside blocks.
_BODY = ("q", "k", "v", "o", "gate", "up", "down")
#: Bytes that the search holds at its peak, per parameter of one model: both models in float64,
#: moved copies, and products on the way. 33 to 42 were measured on Llamas of 33M and 42M.
BYTES_PER_PARAMETER = 48
#: Most rounds of the descent: later ones move the distance of unrelated models by less than a
#: thousandth, at a multiple of the cost.
MOST_ROUNDS = 10
#: Widest residual stream that is searched; the cost grows with its third power.
MOST_WIDTH = 2048


@dataclasses.dataclass(frozen=True)
class Quotient:
    """Distances of the matrices inside blocks, and of the embedding, over the mean of the norms."""

    before: float
    after: float  # at most `before`: the search minimises all weights, which the embedding may rule
    embedding: float

    @property
    def gain(self) -> float:
        """Share of the distance that the map takes away; 0 for models that are the same."""
        return (self.before - self.after) / self.before if self.before > 0 else 0.0


def why_not_searched(model: Weights, max_memory: int) -> str:
    """Why the search is left out for models of this kind; "" if it is not."""
    spaces = spaces_of(model.config)
    if spaces is None:
        return f"architecture '{model.config.model_type}' declares no symmetries of its weights"
    width = spaces.sizes["resid"]
    if width > MOST_WIDTH:
        return f"the residual stream is {width} wide; symmetries are searched up to {MOST_WIDTH}"
    need = BYTES_PER_PARAMETER * sum(math.prod(shape) for shape in model.shapes.values())
    if need > max_memory:
        return (
            f"the search for symmetries would take {need / 2**30:.1f} GiB of memory, and "
            f"{max_memory / 2**30:.1f} are allowed"
        )
    return ""


def quotient_distance(a: Weights, b: Weights, method: Method) -> Quotient | str:
    """Distance of two models after the best map that the search finds."""
    from repsim.merging.align.apply import apply_map
    from repsim.merging.align.fold import fold_norms
    from repsim.merging.align.matching import match_weights

    spaces = spaces_of(a.config)
    if spaces is None:
        return f"architecture '{a.config.model_type}' declares no symmetries of its weights"
    try:
        one, other = _unpacked(a, spaces), _unpacked(b, spaces)
        if method == "orthogonal":
            (one, own), (other, _) = fold_norms(one, spaces), fold_norms(other, spaces)
            spaces = own
    except IncompatibleModelsError as error:
        return error.what
    found = match_weights(one, other, spaces, method=method, max_iterations=MOST_ROUNDS)
    moved = apply_map(other, spaces, found.maps)
    before, embedding = (_relative(one, other, roles) for roles in (_BODY, ("embed",)))
    after, moved_embedding = (_relative(one, moved, roles) for roles in (_BODY, ("embed",)))
    return Quotient(before, min(before, after), min(embedding, moved_embedding))


def _unpacked(model: Weights, spaces: WeightSpaces) -> AlignedWeights:
    from repsim.merging.align.weights import unpack

    source = model.source
    return unpack({name: source.read(name).cpu() for name in source.headers}, spaces)


def _relative(a: AlignedWeights, b: AlignedWeights, roles: tuple[str, ...]) -> float:
    keys = [key for key in a if split_key(key)[1] in roles]
    apart = sum(float((a[key] - b[key]).square().sum()) for key in keys)
    norms = [sum(float(w[key].square().sum()) for key in keys) ** 0.5 for w in (a, b)]
    return apart**0.5 / (sum(norms) / 2) if sum(norms) else math.nan
