"""Parts of a block beside plain attention: hidden units, experts, latent attention and mixers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einops import einsum, rearrange

from repsim.merging.align.apply import AlignmentMap, transform
from repsim.merging.align.attention import Method, inner_products_of_maps, match_heads, nearest
from repsim.merging.align.solvers import best_assignment, best_permutation
from repsim.merging.align.weights import Weights
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces, weight_key

if TYPE_CHECKING:
    import torch

#: Random vectors on which experts are compared.
PROBES = 16


def solve_units(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, name: str
) -> AlignmentMap:
    """Order of the hidden units of one feed-forward part."""
    space = spaces[weight_key(name, layer)]
    return {space.key: best_permutation(a, b, space)}


def solve_experts(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, method: Method
) -> AlignmentMap:
    """Which expert of B is which of A, in groups where the router has them, then the units."""
    import torch

    found: AlignmentMap = {}
    groups, members = match_heads(expert_similarity(a, b, layer))
    for name, element in (("expert_groups", groups), ("experts", members)):
        key = weight_key(name, layer)
        if key in spaces:
            found[key] = element
            b = transform(b, spaces[key], element)
    units = spaces[weight_key("expert_units", layer)]
    total: torch.Tensor | float = 0.0
    for role in ("expert_gate", "expert_up", "expert_down"):
        if (key := weight_key(role, layer)) in a:
            mine, theirs = (rearrange(w[key], "g e u r -> (g e) u r") for w in (a, b))
            total = total + einsum(mine, theirs, "e u r, e v r -> e u v")
    assert not isinstance(total, float)
    found[units.key] = torch.stack([best_assignment(block) for block in total])
    return found


def expert_similarity(a: Weights, b: Weights, layer: int) -> torch.Tensor:
    """Cosines of rows of the router plus those of `down^T up` on random vectors, `[g, e, g, e]`."""
    import torch

    width = a[weight_key("router", layer)].shape[-1]
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(width, PROBES, dtype=torch.float64, generator=generator)
    described = []
    for w in (a, b):
        inner = einsum(w[weight_key("expert_up", layer)], probes, "g e u r, r p -> g e u p")
        through = einsum(inner, w[weight_key("expert_down", layer)], "g e u p, g e u r -> g e p r")
        flat = rearrange(through, "g e p r -> g e (p r)")
        rows = w[weight_key("router", layer)]
        described.append([x / x.norm(dim=-1, keepdim=True).clamp_min(1e-300) for x in (rows, flat)])
    pairs = zip(*described, strict=True)
    found: torch.Tensor = sum(einsum(x, y, "ga ea r, gb eb r -> ga ea gb eb") for x, y in pairs)
    return found


def solve_latent_attention(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, method: Method
) -> AlignmentMap:
    """Order of both latents, of the heads, and bases inside heads."""
    found: AlignmentMap = {}
    # What writes a latent does not depend on heads; what reads it does.
    for name, writes in (("query_latent", ("query_down", "query_norm")),
                         ("key_latent", ("key_value_down", "key_value_norm"))):  # fmt: skip
        space = spaces[weight_key(name, layer)]
        keys = [weight_key(role, layer) for role in writes]
        part_a, part_b = ({key: w[key] for key in keys} for w in (a, b))
        found[space.key] = best_permutation(part_a, part_b, space)
        b = transform(b, space, found[space.key])
    heads = spaces[weight_key("latent_heads", layer)]
    found[heads.key] = best_assignment(_latent_head_similarity(a, b, layer))
    b = transform(b, heads, found[heads.key])
    cross = _crossed(a, b, layer, "v_latent") + _crossed(a, b, layer, "o")
    found[weight_key("latent_value_basis", layer)] = nearest(cross, method)
    cross = _crossed(a, b, layer, "q_nope") + _crossed(a, b, layer, "k_nope")
    found[weight_key("latent_query_key_basis", layer)] = nearest(cross, method)
    return found


def _latent_head_similarity(a: Weights, b: Weights, layer: int) -> torch.Tensor:
    """How alike the heads of two models are, whatever the bases inside them."""
    total: torch.Tensor | float = 0.0
    for outer, inner in (("q_nope", "k_nope"), ("o", "v_latent")):
        many = [w[weight_key(outer, layer)] for w in (a, b)]
        many = [x if x.ndim == 4 else x[:, None] for x in many]
        one = [w[weight_key(inner, layer)] for w in (a, b)]
        sizes = [inner_products_of_maps(x, y, x, y, 0) for x, y in zip(many, one, strict=True)]
        norms = [einsum(s, "kv q kv q -> kv q").mean().clamp_min(1e-300) for s in sizes]
        cross = inner_products_of_maps(many[0], one[0], many[1], one[1], 0)
        total = total + cross[:, 0, :, 0] / (norms[0] * norms[1]).sqrt()
    mine, theirs = (w[weight_key("q_rope", layer)] for w in (a, b))
    scale = mine.norm() * theirs.norm() / len(mine)
    by_position = einsum(mine, theirs, "ka d r, kb d r -> ka kb")
    found: torch.Tensor = total + by_position / scale.clamp_min(1e-300)
    return found


def _crossed(a: Weights, b: Weights, layer: int, role: str) -> torch.Tensor:
    """Products of the dimensions of each head of A with those of B, `[heads, d, d]`."""
    one, two = (w[weight_key(role, layer)] for w in (a, b))
    if one.ndim == 4:
        one, two = one[:, 0], two[:, 0]
    return einsum(one, two, "kv d r, kv e r -> kv d e")


def solve_mixer(
    a: Weights, b: Weights, spaces: WeightSpaces, layer: int, method: Method
) -> AlignmentMap:
    """Order of channels, then of states, then the basis of the time step."""
    found: AlignmentMap = {}
    # Weights with axes that are not matched yet say nothing of the channels.
    own = ("mix_in", "mix_gate", "mix_out", "conv", "conv_bias", "step_bias", "skip")
    for name, roles in (("channels", own), ("states", ("mix_b", "mix_c", "decay"))):
        space = spaces[weight_key(name, layer)]
        keys = [key for role in roles if (key := weight_key(role, layer)) in a]
        part_a, part_b = ({key: w[key] for key in keys} for w in (a, b))
        found[space.key] = best_permutation(part_a, part_b, space)
        b = transform(b, space, found[space.key])
    basis: SymmetrySpace = spaces[weight_key("step_basis", layer)]
    one, two = ([w[weight_key("mix_step", layer)], w[weight_key("step", layer)].T] for w in (a, b))
    cross = sum(einsum(x, y, "d c, e c -> d e") for x, y in zip(one, two, strict=True))
    found[basis.key] = nearest(cross[None], method)  # type: ignore[index]
    return found
