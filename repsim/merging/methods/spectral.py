"""Methods on the singular vectors of the differences to a base: TSV-M and Iso-C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repsim.merging.base import TensorContext, merge_method
from repsim.merging.methods.averaging import weighted_sum
from repsim.merging.methods.task_vectors import deltas_to

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor"]


def is_spectral(context: TensorContext, tensor: torch.Tensor) -> bool:
    """Whether a tensor is a map with singular vectors: embeddings and heads are look-up tables.

    Example:
        >>> import torch
        >>> is_spectral(TensorContext(kind="matrix"), torch.zeros(2, 3)), is_spectral(
        ...     TensorContext(kind="embedding"), torch.zeros(2, 3))
        (True, False)
    """
    return tensor.dim() == 2 and context.kind == "matrix"


def _mean_delta(base: torch.Tensor, deltas: Tensors, scale: float) -> torch.Tensor:
    return base + scale * weighted_sum(deltas, [1 / len(deltas)] * len(deltas))


def _svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular triples that are not zero to working precision; the vectors of others are noise."""
    import torch

    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > s.max() * max(matrix.shape) * torch.finfo(s.dtype).eps).sum())
    return u[:, :rank], s[:rank], vt[:rank]


@merge_method(
    name="tsv_m",
    label="TSV-M",
    definition="keep floor(r / T) singular triples of each of T deltas, put them side by side, "
    "make left and right vectors orthonormal (polar factor), multiply out; mean delta for vectors, "
    "embeddings and heads",
    reference="Gargiulo et al. 2025, arXiv:2412.00081",
    needs_base=True,
)
def tsv_m(
    tensors: Tensors, *, base: torch.Tensor, context: TensorContext, scale: float = 1.0
) -> torch.Tensor:
    """Task singular vectors with interference removed.

    Zero singular values, and directions that several models share, are left out of the polar
    factors, which would otherwise turn the others towards arbitrary vectors.
    """
    import torch

    deltas = deltas_to(base, tensors)
    if not is_spectral(context, base):
        return _mean_delta(base, deltas, scale)
    kept = max(1, min(base.shape) // len(deltas))
    triples = [_svd(delta) for delta in deltas]
    left = torch.cat([u[:, :kept] for u, _, _ in triples], dim=1)
    values = torch.cat([s[:kept] for _, s, _ in triples])
    right = torch.cat([vt[:kept] for _, _, vt in triples], dim=0)
    if len(values) == 0:
        context.note("no model differs from the base here: it is kept")
        return base.clone()
    return base + scale * (_polar(left, context) * values) @ _polar(right, context)


def _polar(vectors: torch.Tensor, context: TensorContext) -> torch.Tensor:
    """Nearest matrix with orthonormal columns or rows, within the span of the vectors."""
    u, s, vt = _svd(vectors)
    if len(s) < min(vectors.shape):
        context.note("models share singular vectors here: each such direction counts once")
    return u @ vt


@merge_method(
    name="iso_c",
    label="Iso-C",
    definition="sum of the deltas with all singular values set to their mean; mean delta for "
    "vectors, embeddings and heads",
    reference="Marczak et al. 2025, arXiv:2502.04959",
    needs_base=True,
)
def iso_c(
    tensors: Tensors, *, base: torch.Tensor, context: TensorContext, scale: float = 1.0
) -> torch.Tensor:
    """Task arithmetic with an isotropic spectrum.

    A sum of deltas that lacks rank (low-rank updates) has no singular vectors for its zero singular
    values: those count in the mean but stay zero, where arbitrary vectors would be added otherwise.
    """
    deltas = deltas_to(base, tensors)
    if not is_spectral(context, base):
        return _mean_delta(base, deltas, scale)
    u, s, vt = _svd(weighted_sum(deltas, [1.0] * len(deltas)))
    if len(s) == 0:
        context.note("the deltas are zero or cancel out here: the base is kept")
        return base.clone()
    if len(s) < min(base.shape):
        context.note(f"the sum of the deltas has rank {len(s)} of {min(base.shape)}: stays so")
    return base + scale * float(s.sum() / min(base.shape)) * (u @ vt)
