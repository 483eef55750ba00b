"""Weight matching: the permutations that bring B's weights nearest to A's.

Coordinate descent as in Git Re-Basin (Ainsworth, Hayase and Srinivasa 2023): with everything else
fixed, the best order of one axis is a linear assignment on the summed inner products of all weights
that have that axis. Given the residual stream, blocks do not depend on each other, so one round
solves every block exactly once and then the stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from repsim.merging.align.apply import AlignmentMap, apply_map, transform
from repsim.merging.align.attention import Method, solve_attention
from repsim.merging.align.parts import (
    solve_experts,
    solve_latent_attention,
    solve_mixer,
    solve_units,
)
from repsim.merging.align.solvers import best_permutation, best_rotation, distance
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, axes_of, split_key, weight_key

if TYPE_CHECKING:
    import torch

#: A round that lowers the distance by less than this share ends the descent.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Descent:
    """Outcome of a coordinate descent."""

    maps: AlignmentMap
    distances: tuple[float, ...]
    converged: bool


def match_weights(
    a: Weights,
    b: Weights,
    spaces: WeightSpaces,
    *,
    method: Method = "permutation",
    residual: bool = True,
    max_iterations: int = 50,
    on_round: Callable[[int, float], None] | None = None,
) -> Descent:
    """Map of B onto A by coordinate descent on the distance of their weights."""
    stream = spaces["residual_rotation" if method == "orthogonal" else "residual_permutation"]
    solve_stream = best_rotation if method == "orthogonal" else best_permutation
    start = distance(a, b)
    distances, maps, converged = [start], AlignmentMap(), False
    if residual:
        vocabulary = [key for key in a if "entry" in axes_of(key)]
        maps[stream.key] = solve_stream(
            {key: a[key] for key in vocabulary}, {key: b[key] for key in vocabulary}, stream
        )
    for number in range(1, max_iterations + 1):
        for layer in range(spaces.layers):
            part_a, part_b = (block_of(weights, layer) for weights in (a, b))
            if residual:
                part_b = transform(part_b, stream, maps[stream.key])
            maps.update(_match_block(part_a, part_b, spaces, layer, method, maps))
        moved = apply_map(b, spaces, {key: m for key, m in maps.items() if key != stream.key})
        if residual:
            maps[stream.key] = solve_stream(a, moved, stream)
        distances.append(_distance_after(a, moved, stream, maps.get(stream.key)))
        if on_round:
            on_round(number, distances[-1])
        gained = distances[-2] - distances[-1]
        if distances[-1] == 0.0 or (number > 1 and gained <= TOLERANCE * start):
            converged = True
            break
    if distances[-1] > start:
        return Descent({}, (start, start), converged)
    return Descent(maps, tuple(distances), converged)


def _match_block(
    a: Weights,
    b: Weights,
    spaces: WeightSpaces,
    layer: int,
    method: Method,
    maps: AlignmentMap,
) -> AlignmentMap:
    """Attention and units of one block, each kept as it was if that is nearer."""
    found: AlignmentMap = {}
    for proposal in _proposals(a, b, spaces, layer, method):
        known = {key: maps[key] for key in proposal if key in maps}
        costs = [distance(a, apply_map(b, spaces, m)) for m in (known, proposal)]
        # Heads are compared up to the bases inside them, which is not quite the distance itself.
        found.update(proposal if costs[1] < costs[0] else known)
    return found


def _proposals(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, method: Method
) -> Iterator[AlignmentMap]:
    """The best map of each part that a block has, given the others."""
    for units in ("mlp_units", "shared_units"):
        if weight_key(units, layer) in spaces:
            yield solve_units(a, b, spaces, layer, units)
    if weight_key("kv_groups", layer) in spaces:
        yield solve_attention(a, b, spaces, layer, method=method)
    if weight_key("latent_heads", layer) in spaces:
        yield solve_latent_attention(a, b, spaces, layer, method)
    if weight_key("experts", layer) in spaces:
        yield solve_experts(a, b, spaces, layer, method)
    if weight_key("channels", layer) in spaces:
        yield solve_mixer(a, b, spaces, layer, method)


def _distance_after(
    a: Weights, b: Weights, space: SymmetrySpace, element: torch.Tensor | None
) -> float:
    """Distance of A from B after one more element, without a second copy of B."""
    if element is None:
        return distance(a, b)
    parts = (distance({key: a[key]}, transform({key: b[key]}, space, element)) for key in a)
    return float(sum(part**2 for part in parts)) ** 0.5


def block_of(weights: Weights, layer: int) -> Weights:
    """The weights of one block."""
    return {key: weight for key, weight in weights.items() if split_key(key)[0] == layer}
