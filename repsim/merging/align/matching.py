"""Weight matching: the permutations that bring B's weights nearest to A's.

Coordinate descent as in Git Re-Basin (Ainsworth, Hayase and Srinivasa 2023): the best order of one
axis is a linear assignment on summed inner products. Given the stream, blocks are independent, so
one round solves every block once and then the stream.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from repsim.merging.align.apply import AlignmentMap, apply_map
from repsim.merging.align.attention import Method, solve_attention
from repsim.merging.align.blocks import Blocks, Held, Keys, maps_in, parts_of, total_distance
from repsim.merging.align.parts import (
    solve_experts,
    solve_latent_attention,
    solve_mixer,
    solve_units,
)
from repsim.merging.align.solvers import best_element, distance, inner_products
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, axes_of

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
    a: Weights | Blocks,
    b: Weights | Blocks,
    spaces: WeightSpaces,
    *,
    method: Method = "permutation",
    residual: bool = True,
    max_iterations: int = 50,
    on_round: Callable[[int, float], None] | None = None,
) -> Descent:
    """Map of B onto A by coordinate descent on the distance of weights, a part at a time."""
    one, two = (Held(dict(x)) if isinstance(x, Mapping) else x for x in (a, b))
    stream = spaces["residual_rotation" if method == "orthogonal" else "residual_permutation"]
    start = total_distance(one, two, spaces, {})
    distances, maps, converged = [start], AlignmentMap(), False
    if residual:
        pairs = zip(one.outside(), two.outside(), strict=True)
        vocabulary = (inner_products(_entries(x), _entries(y), stream) for x, y in pairs)
        maps[stream.key] = best_element(functools.reduce(operator.add, vocabulary), stream)
    for number in range(1, max_iterations + 1):
        cross = _match_blocks(one, two, spaces, maps, method, stream if residual else None)
        if cross is not None:
            maps[stream.key] = best_element(cross, stream)
        distances.append(total_distance(one, two, spaces, maps))
        if on_round:
            on_round(number, distances[-1])
        gained = distances[-2] - distances[-1]
        if distances[-1] == 0.0 or (number > 1 and gained <= TOLERANCE * start):
            converged = True
            break
    if distances[-1] > start:
        return Descent({}, (start, start), converged)
    return Descent(maps, tuple(distances), converged)


def _entries(weights: Weights) -> Weights:
    """Those weights whose rows stand for the same in both models: tokens, positions."""
    return {key: weight for key, weight in weights.items() if "entry" in axes_of(key)}


def _match_blocks(
    a: Blocks,
    b: Blocks,
    spaces: WeightSpaces,
    maps: AlignmentMap,
    method: Method,
    stream: SymmetrySpace | None,
) -> torch.Tensor | None:
    """Match every block, given the stream; inner products of the stream after that."""
    cross: torch.Tensor | None = None
    if stream is not None:
        pairs = zip(a.outside(), b.outside(), strict=True)
        cross = functools.reduce(operator.add, (inner_products(x, y, stream) for x, y in pairs))
    for layer in range(spaces.layers):
        for part in parts_of(spaces, layer):
            # Nothing of a part is held while the next one is read.
            gained = _match_one(a, b, spaces, (layer, part), maps, method, stream)
            cross = cross if gained is None or cross is None else cross.add_(gained)
    return cross


def _match_one(
    a: Blocks,
    b: Blocks,
    spaces: WeightSpaces,
    where: tuple[int, Keys],
    maps: AlignmentMap,
    method: Method,
    stream: SymmetrySpace | None,
) -> torch.Tensor | None:
    """Match a part of a block, given the stream; its inner products along the stream after."""
    layer, part = where
    mine = a.block(layer, part)
    if not mine:  # optional, and not there
        return None
    turned = {} if stream is None else {stream.key: maps[stream.key]}
    theirs = apply_map(b.block(layer, part), spaces, turned)
    maps.update(_match_part(mine, theirs, spaces, layer, method, maps))
    del theirs
    if stream is None:
        return None
    own = {key: m for key, m in maps_in(maps, layer).items() if key != stream.key}
    return inner_products(mine, apply_map(b.block(layer, part), spaces, own), stream)


def _match_part(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, method: Method, maps: AlignmentMap
) -> AlignmentMap:
    """Attention or units of one block, each kept as it was if that is nearer."""
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
    """The best map of everything that a part of a block holds, given the others."""
    held = {space.name for space in spaces.spaces
            if space.layer == layer and any(map(space.acts_on, a))}  # fmt: skip
    for units in ("mlp_units", "shared_units"):
        if units in held:
            yield solve_units(a, b, spaces, layer, units)
    if "kv_groups" in held:
        yield solve_attention(a, b, spaces, layer, method=method)
    if "latent_heads" in held:
        yield solve_latent_attention(a, b, spaces, layer, method)
    if "experts" in held:
        yield solve_experts(a, b, spaces, layer, method)
    if "channels" in held:
        yield solve_mixer(a, b, spaces, layer, method)
