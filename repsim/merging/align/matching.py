"""Weight matching: the permutations that bring B's weights nearest to A's.

Coordinate descent as in Git Re-Basin (Ainsworth, Hayase and Srinivasa 2023): with everything else
fixed, the best order of one axis is a linear assignment on the summed inner products of all weights
that have that axis. Given the residual stream, blocks do not depend on each other, so one round
solves every block exactly once and then the stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from einops import rearrange

from repsim.merging.align.apply import AlignmentMap, apply_map, transform
from repsim.merging.align.attention import Method, solve_attention
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, axes_of, split_key

if TYPE_CHECKING:
    import torch

#: A round that lowers the distance by less than this share ends the descent.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Descent:
    """Outcome of a coordinate descent.

    Attributes:
        maps: The map found.
        distances: Euclidean distance of the weights before, and after each round.
        converged: Whether the last round brought nothing more.
    """

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
    """Map of B onto A by coordinate descent on the distance of their weights.

    The residual stream starts from the embeddings (and the head), whose rows are the same tokens in
    both models; the descent never ends farther from A than B was.

    Args:
        a: Weights of the reference.
        b: Weights of the other model; both folded if `method` is "orthogonal".
        spaces: Symmetries of the model.
        method: "permutation", or "orthogonal" for rotations of the stream and of the bases inside
            heads.
        residual: Whether the residual stream is aligned too. Models of one initialisation share it.
        max_iterations: Most rounds.
        on_round: Called with the number of the round and the distance after it.

    Example:
        >>> import torch
        >>> from repsim.merging.align.weights import unpack
        >>> from repsim.models.arch import ARCHITECTURES
        >>> from repsim.testing.tiny_models import tiny_model
        >>> model = tiny_model("llama")
        >>> spaces = ARCHITECTURES["llama"].spaces(model.config)
        >>> a = unpack(model.state_dict(), spaces)
        >>> order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
        >>> b = transform(a, spaces["1.mlp_units"], order)
        >>> found = match_weights(a, b, spaces)
        >>> torch.equal(order[found.maps["1.mlp_units"]], torch.arange(48)), found.distances[-1]
        (True, 0.0)
    """
    from repsim.merging.align.orthogonal import residual_rotation

    stream = spaces["residual_rotation" if method == "orthogonal" else "residual_permutation"]
    solve_stream = residual_rotation if method == "orthogonal" else best_permutation
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
    units = spaces[f"{layer}.mlp_units"]
    proposals = [
        {units.key: best_permutation(a, b, units)},
        solve_attention(a, b, spaces, layer, method=method),
    ]
    for proposal in proposals:
        known = {key: maps[key] for key in proposal if key in maps}
        costs = [distance(a, apply_map(b, spaces, m)) for m in (known, proposal)]
        # Heads are compared up to the bases inside them, which is not quite the distance itself.
        found.update(proposal if costs[1] < costs[0] else known)
    return found


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


def best_permutation(a: Weights, b: Weights, space: SymmetrySpace) -> torch.Tensor:
    """The order of B's units that maximises the summed inner products with A's.

    Returns:
        `[size]`: unit i of the result is unit `element[i]` of B.
    """
    return best_assignment(inner_products(a, b, space))


def inner_products(a: Weights, b: Weights, space: SymmetrySpace) -> torch.Tensor:
    """Inner products of the slices of A and B along the axis of a space, summed over weights.

    A weight that has the axis twice (the square map of a masked-language-model head) is left out:
    its product depends on the very order that is being sought.

    Returns:
        `[size of A, size of B]`.
    """
    total = a[next(iter(a))].new_zeros(space.size, space.size)
    for key in a:
        axes = axes_of(key)
        mine = [axis for axis in axes if axis in space.axes]
        if len(mine) != 1 or not space.acts_on(key):
            continue
        pattern = f"{' '.join(axes)} -> {mine[0]} ({' '.join(x for x in axes if x != mine[0])})"
        total.addmm_(rearrange(a[key], pattern), rearrange(b[key], pattern).T)
    return total


def best_assignment(similarity: torch.Tensor) -> torch.Tensor:
    """Column for each row such that the sum over the pairs is largest (Hungarian algorithm).

    Example:
        >>> import torch
        >>> best_assignment(torch.tensor([[1.0, 5.0], [2.0, 3.0]])).tolist()
        [1, 0]
    """
    import torch
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.as_tensor(columns, dtype=torch.long)


def distance(a: Weights, b: Weights) -> float:
    """Euclidean distance of all weights.

    Example:
        >>> import torch
        >>> distance({"embed": torch.tensor([3.0, 0.0])}, {"embed": torch.tensor([0.0, 4.0])})
        5.0
    """
    return float(sum(float((a[key] - b[key]).square().sum()) for key in a)) ** 0.5
