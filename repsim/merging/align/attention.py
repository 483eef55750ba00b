"""Which head of B is which head of A, and how the bases inside the heads are turned.

Heads are compared by `Q^T K` and `O^T V` over the residual stream, which no basis inside them
changes (Theus et al. 2025); with rotary positions `Q^T K` per frequency, all that legal rotations
keep. Query heads stay inside their key-value group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from einops import einsum, rearrange, repeat

from repsim.merging.align.apply import AlignmentMap, transform
from repsim.merging.align.solvers import best_assignment, polar_factor
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, weight_key

if TYPE_CHECKING:
    import torch

Method = Literal["permutation", "orthogonal"]


def solve_attention(
    a: Weights,
    b: Weights,
    spaces: WeightSpaces,
    layer: int,
    *,
    method: Method,
    similarity: torch.Tensor | None = None,
) -> AlignmentMap:
    """Map of the attention part of one block of B onto that of A."""
    key = {name: weight_key(name, layer) for name in
           ("kv_groups", "query_heads", "value_basis", "query_key_basis")}  # fmt: skip
    rotary = spaces[key["query_key_basis"]].rotary if key["query_key_basis"] in spaces else 0
    if similarity is None:
        similarity = head_similarity(a, b, layer, rotary=rotary)
    groups, queries = match_heads(similarity)
    found: AlignmentMap = {key["kv_groups"]: groups}
    b = transform(b, spaces[key["kv_groups"]], groups)
    if key["query_heads"] in spaces:
        found[key["query_heads"]] = queries
        b = transform(b, spaces[key["query_heads"]], queries)
    found[key["value_basis"]] = value_basis(a, b, layer, method)
    if key["query_key_basis"] in spaces:
        space = spaces[key["query_key_basis"]]
        found[space.key] = query_key_basis(a, b, space, method)
    return found


def head_similarity(a: Weights, b: Weights, layer: int, *, rotary: int = 0) -> torch.Tensor:
    """How alike the heads of two models are, whatever the bases inside them."""
    total: torch.Tensor | float = 0.0
    for outer, inner, turning in (("q", "k", rotary), ("o", "v", 0)):
        many_a, one_a = _with_bias(a, layer, outer), _with_bias(a, layer, inner)
        many_b, one_b = _with_bias(b, layer, outer), _with_bias(b, layer, inner)
        size_a = inner_products_of_maps(many_a, one_a, many_a, one_a, turning)
        size_b = inner_products_of_maps(many_b, one_b, many_b, one_b, turning)
        norms = [
            einsum(size, "kv q kv q -> kv q").mean().clamp_min(1e-300) for size in (size_a, size_b)
        ]
        cross = inner_products_of_maps(many_a, one_a, many_b, one_b, turning)
        total = total + cross / (norms[0] * norms[1]).sqrt()
    assert not isinstance(total, float)
    return total


def inner_products_of_maps(
    many_a: torch.Tensor,
    one_a: torch.Tensor,
    many_b: torch.Tensor,
    one_b: torch.Tensor,
    rotary: int,
) -> torch.Tensor:
    """Frobenius products of all pairs of maps `many^T one`, the first `rotary` per frequency."""
    plain = [x[..., rotary:, :] for x in (many_a, one_a, many_b, one_b)]
    over_many = einsum(plain[0], plain[2], "ka qa d r, kb qb e r -> ka qa kb qb d e")
    over_one = einsum(plain[1], plain[3], "ka d r, kb e r -> ka kb d e")
    total = einsum(over_many, over_one, "ka qa kb qb d e, ka kb d e -> ka qa kb qb")
    if not rotary:
        return total
    turned = [_as_complex(x[..., :rotary, :]) for x in (many_a, one_a, many_b, one_b)]
    over_many = einsum(
        turned[0].conj(), turned[2], "ka qa f r, kb qb f r -> ka qa kb qb f"
    )  # fmt: skip
    over_one = einsum(turned[1].conj(), turned[3], "ka f r, kb f r -> ka kb f")
    per_frequency = einsum(
        over_many.conj(), over_one, "ka qa kb qb f, ka kb f -> ka qa kb qb"
    )  # fmt: skip
    return total + per_frequency.real


def match_heads(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Best assignment of key-value groups, query heads assigned inside each pair of groups."""
    import torch

    kv, q = similarity.shape[:2]
    values = torch.empty(kv, kv, dtype=torch.float64)
    inner = torch.empty(kv, kv, q, dtype=torch.long)
    for i in range(kv):
        for j in range(kv):
            block = similarity[i, :, j, :]
            inner[i, j] = best_assignment(block)
            values[i, j] = block[torch.arange(q), inner[i, j]].sum()
    groups = best_assignment(values)
    return groups, inner[torch.arange(kv), groups]


def value_basis(a: Weights, b: Weights, layer: int, method: Method) -> torch.Tensor:
    """Basis of the values of each key-value group: Procrustes over V and all O that read it."""
    values = [_with_bias(w, layer, "v") for w in (a, b)]
    outputs = [w[weight_key("o", layer)] for w in (a, b)]
    cross = einsum(values[0], values[1], "kv d r, kv e r -> kv d e")
    cross = cross + einsum(outputs[0], outputs[1], "kv q d r, kv q e r -> kv d e")
    return nearest(cross, method)


def query_key_basis(a: Weights, b: Weights, space: SymmetrySpace, method: Method) -> torch.Tensor:
    """Basis of queries and keys of each group, as far as rotary positions allow one."""
    import torch

    q = [_with_bias(w, space.layer, "q") for w in (a, b)]
    k = [_with_bias(w, space.layer, "k") for w in (a, b)]
    found = torch.eye(space.size, dtype=torch.float64).repeat(space.copies, 1, 1)
    n = space.rotary
    if n and method == "orthogonal":
        found[:, :n, :n] = _rotary_basis([x[..., :n, :] for x in q], [x[..., :n, :] for x in k])
    if n < space.size:
        plain_q, plain_k = ([x[..., n:, :] for x in pair] for pair in (q, k))
        cross = einsum(plain_q[0], plain_q[1], "kv q d r, kv q e r -> kv d e")
        cross = cross + einsum(plain_k[0], plain_k[1], "kv d r, kv e r -> kv d e")
        found[:, n:, n:] = nearest(cross, method)
    return found


def _rotary_basis(q: list[torch.Tensor], k: list[torch.Tensor]) -> torch.Tensor:
    """Per frequency `q -> c e^(i t) q`, `k -> (1/c) e^(i t) k`, nearest to A."""
    import torch

    qa, qb = (_as_complex(x) for x in q)
    ka, kb = (_as_complex(x) for x in k)
    with_q = einsum(qa, qb.conj(), "kv q f r, kv q f r -> kv f")
    with_k = einsum(ka, kb.conj(), "kv f r, kv f r -> kv f")
    sizes = [rearrange(x.abs().square(), "kv q f r -> kv f (q r)").sum(-1) for x in (qa, qb)]
    sizes += [x.abs().square().sum(-1) for x in (ka, kb)]
    least = torch.finfo(torch.float64).tiny
    ratio = (sizes[0] * sizes[3]).clamp_min(least) / (sizes[1] * sizes[2]).clamp_min(least)
    best, best_cost = torch.ones_like(with_q), torch.full_like(ratio, torch.inf)
    for c in (torch.ones_like(ratio), ratio.pow(0.25)):
        product = c * with_q + with_k / c
        cost = c.square() * sizes[1] + sizes[3] / c.square() - 2 * product.abs()
        z = torch.polar(c, product.angle())
        better = cost < best_cost
        best, best_cost = torch.where(better, z, best), torch.where(better, cost, best_cost)
    half = best.shape[1]
    matrix = torch.zeros(len(best), 2 * half, 2 * half, dtype=torch.float64)
    i = torch.arange(half)
    matrix[:, i, i] = matrix[:, i + half, i + half] = best.real
    matrix[:, i, i + half], matrix[:, i + half, i] = -best.imag, best.imag
    return matrix


def nearest(cross: torch.Tensor, method: Method) -> torch.Tensor:
    """The orthogonal (or permutation) matrix per group that maximises `<M, cross>`."""
    import torch

    if method == "orthogonal":
        return polar_factor(cross)
    eye = torch.eye(cross.shape[-1], dtype=torch.float64)
    return torch.stack([eye[best_assignment(block)] for block in cross])


def _as_complex(x: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + n/2) of the axis before the last as complex numbers."""
    import torch

    real, imaginary = rearrange(x, "... (two f) r -> two ... f r", two=2)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def _with_bias(weights: Weights, layer: int | None, role: str) -> torch.Tensor:
    """A weight with its bias as one more column: both are in the same basis."""
    import torch

    weight = weights[weight_key(role, layer)]
    bias = weights.get(weight_key(f"{role}_bias", layer))
    if bias is None or bias.ndim != weight.ndim - 1:
        return weight
    return torch.cat([weight, repeat(bias, "... -> ... 1")], dim=-1)
