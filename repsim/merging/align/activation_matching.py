"""Activation matching: units, heads and streams paired by what they do on the same text.

Units and channels by correlation (Li et al. 2015; Ainsworth, Hayase and Srinivasa 2023), heads by
the linear CKA of their outputs, whatever the bases inside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from einops import einsum, rearrange

from repsim.core.errors import UsageError
from repsim.merging.align.apply import AlignmentMap, apply_map
from repsim.merging.align.attention import Method, solve_attention
from repsim.merging.align.blocks import Blocks, parts_of
from repsim.merging.align.checking import as_source, open_model
from repsim.merging.align.solvers import best_assignment, rotation_from
from repsim.merging.align.weights import StateDict
from repsim.merging.checkpoint import TensorSource
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import WeightSpaces, weight_key
from repsim.models.check import read_streams
from repsim.models.inspect import ModelLike

if TYPE_CHECKING:
    import torch

#: (hook point, layer) -> `[rows, width]`; the same rows (tokens, sentences) for all models.
UnitActivations = Mapping[tuple[str, int], "torch.Tensor"]


def collect_activations(
    config: Any,
    state: StateDict | TensorSource | ModelLike,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
) -> dict[tuple[str, int], torch.Tensor]:
    """Activations of single tokens at the points that matching needs.

    The first position and padding are left out: norms explode at the first token.

    Args:
        config: Config of the model.
        state: Its tensors, or the folder that holds them, of which one module is read at a time.
        input_ids: `[batch, tokens]`.
        attention_mask: 1 for tokens, 0 for padding on the right; no padding if None.

    Returns:
        "resid" of layers 0..L, "heads" and "mlp_hidden" of layers 1..L, `[rows, width]`.

    Raises:
        IncompatibleModelsError: The tensors do not make up a model.

    Example:
        >>> import torch
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("llama")
        >>> ids = torch.arange(12).reshape(2, 6)
        >>> seen = collect_activations(tiny.config, tiny.state_dict(), ids)
        >>> tuple(seen["mlp_hidden", 2].shape)
        (10, 48)
    """
    import torch

    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    spec = spec_for(config.model_type)
    model = open_model(config, as_source(state))
    streams, _ = read_streams(spec, model, input_ids, mask, ("resid", "heads", "mlp_hidden"))
    kept = mask.bool().clone()
    kept[:, 0] = False
    return {where: values[kept] for where, values in streams.items()}


def match_activations(
    a: Blocks,
    b: Blocks,
    spaces: WeightSpaces,
    of_a: UnitActivations,
    of_b: UnitActivations,
    *,
    method: Method = "permutation",
    residual: bool = True,
) -> AlignmentMap:
    """Map of B onto A from what both make of the same text."""
    _check_rows(of_a, of_b, spaces, residual)
    maps: AlignmentMap = {}
    if residual and method == "orthogonal":
        space = spaces["residual_rotation"]
        maps[space.key] = rotation_from(_stream_products(of_a, of_b, spaces), space)
    elif residual:
        space = spaces["residual_permutation"]
        total = correlations(of_a["resid", 0], of_b["resid", 0])
        for layer in range(1, spaces.layers + 1):
            total += correlations(of_a["resid", layer], of_b["resid", layer])
        maps[space.key] = best_assignment(total)
    stream = dict(maps)
    kv, q = spaces.sizes["kv"], spaces.sizes["q"]
    for layer in range(spaces.layers):
        units = correlations(of_a["mlp_hidden", layer + 1], of_b["mlp_hidden", layer + 1])
        maps[f"{layer}.mlp_units"] = best_assignment(units)
        alike = head_cka(of_a["heads", layer + 1], of_b["heads", layer + 1], kv=kv, q=q)
        part = next(p for p in parts_of(spaces, layer) if weight_key("q", layer) in p)
        parts = (a.block(layer, part), apply_map(b.block(layer, part), spaces, stream))
        maps |= solve_attention(*parts, spaces, layer, method=method, similarity=alike)
    return maps


def correlations(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of all columns of two `[rows, d]`; 0 with a column that is constant."""
    import torch

    standard = []
    for values in (x, y):
        centred = values.to(torch.float64) - values.to(torch.float64).mean(0)
        norms = centred.norm(dim=0)
        standard.append(centred / torch.where(norms > 0, norms, torch.inf))
    found: torch.Tensor = standard[0].T @ standard[1]
    return found


def head_cka(x: torch.Tensor, y: torch.Tensor, *, kv: int, q: int) -> torch.Tensor:
    """Linear CKA of all pairs of heads, `[kv of A, q of A, kv of B, q of B]`."""
    import torch

    heads = [
        rearrange(values.to(torch.float64), "n (kv q dim) -> n kv q dim", kv=kv, q=q)
        for values in (x, y)
    ]
    a, b = (values - values.mean(0) for values in heads)
    cross = einsum(a, b, "n ka qa d, n kb qb e -> ka qa kb qb d e").square().sum((-1, -2))
    sizes = [
        einsum(values, values, "n kv q d, n kv q e -> kv q d e").norm(dim=(-1, -2))
        for values in (a, b)
    ]
    scale = einsum(sizes[0], sizes[1], "ka qa, kb qb -> ka qa kb qb")
    return torch.where(scale > 0, cross / scale, 0.0)


def _stream_products(
    of_a: UnitActivations, of_b: UnitActivations, spaces: WeightSpaces
) -> torch.Tensor:
    """Cross products of the stream, each row of unit norm: what the norms make of it."""
    import torch

    total = torch.zeros((), dtype=torch.float64)
    for layer in range(spaces.layers + 1):
        rows = []
        for acts in (of_a, of_b):
            values = acts["resid", layer].to(torch.float64)
            if spaces.centred:
                values = values - values.mean(-1, keepdim=True)
            rows.append(values / values.norm(dim=-1, keepdim=True).clamp_min(1e-30))
        total = total + rows[0].T @ rows[1]
    return total


def _check_rows(
    of_a: UnitActivations, of_b: UnitActivations, spaces: WeightSpaces, residual: bool
) -> None:
    layers = range(1, spaces.layers + 1)
    needed = [(point, i) for point in ("mlp_hidden", "heads") for i in layers]
    if residual:
        needed += [("resid", i) for i in range(spaces.layers + 1)]
    for where in needed:
        if where not in of_a or where not in of_b:
            raise UsageError(
                f"activation matching needs '{where[0]}' of layer {where[1]} of every model",
                hint="extract resid (from layer 0), heads and mlp_hidden; see collect_activations",
            )
        shapes = tuple(of_a[where].shape), tuple(of_b[where].shape)
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"activations '{where[0]}' of layer {where[1]} have shapes {shapes[0]} and "
                f"{shapes[1]}: models must read the same rows"
            )
