"""Methods on the singular vectors of the differences to a base: TSV-M, Iso-C and KnOTS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from repsim.merging.arrays import Array, Stream, cast, combined, kind_of_array, mean_of, namespace
from repsim.merging.base import TensorContext, merge_method
from repsim.merging.methods.task_vectors import DENSITY, ties
from repsim.merging.parameters import per_model


def _is_spectral(context: TensorContext, stream: Stream) -> bool:
    """Whether a tensor is a map with singular vectors: embeddings and heads are look-up tables."""
    return len(stream.shape) == 2 and context.kind == "matrix"


def _mean_delta(stream: Stream, scale: float) -> Iterator[Array]:
    return combined(stream, [scale / stream.models] * stream.models, "deltas")


def _added(stream: Stream, step: Array) -> Iterator[Array]:
    """Parts of the base and a step from it."""
    flat = step.reshape(-1)
    for part in stream.parts():
        yield part.base + flat[part.start : part.stop]


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    """Singular triples that are not zero to working precision; the vectors of others are noise."""
    xp = namespace(matrix)
    u, s, vt = xp.linalg.svd(matrix, full_matrices=False)
    rank = int((s > s.max() * max(matrix.shape) * xp.finfo(s.dtype).eps).sum())
    return u[:, :rank], s[:rank], vt[:rank]


@merge_method(
    name="tsv_m",
    label="TSV-M",
    definition="keep floor(r / T) singular triples of each of T deltas, put them side by side, "
    "make left and right vectors orthonormal (polar factor), multiply out; mean delta for vectors, "
    "embeddings and heads",
    reference="Gargiulo et al. 2025, arXiv:2412.00081",
    needs_base=True,
    gpu=True,
)
def tsv_m(stream: Stream, *, context: TensorContext, scale: float = 1.0) -> Iterator[Array]:
    """Task singular vectors with interference removed."""
    if not _is_spectral(context, stream):
        yield from _mean_delta(stream, scale)
        return
    kept = max(1, min(stream.shape) // stream.models)
    triples = []
    for model in range(stream.models):  # one at a time: only what is kept of it is held
        u, s, vt = _svd(stream.whole(model) - stream.whole(-1))
        triples.append((u[:, :kept] + 0, s[:kept], vt[:kept] + 0))
    xp = namespace(triples[0][0])
    left = xp.concatenate([u for u, _, _ in triples], 1)
    values = xp.concatenate([s for _, s, _ in triples])
    right = xp.concatenate([vt for _, _, vt in triples], 0)
    if len(values) == 0:
        context.note("no model differs from the base here: it is kept")
        yield from _mean_delta(stream, 0.0)
        return
    step = scale * (_polar(left, context) * values) @ _polar(right, context)
    yield from _added(stream, step)


def _polar(vectors: Array, context: TensorContext) -> Array:
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
    gpu=True,
)
def iso_c(stream: Stream, *, context: TensorContext, scale: float = 1.0) -> Iterator[Array]:
    """Task arithmetic with an isotropic spectrum; directions that the sum lacks stay zero."""
    if not _is_spectral(context, stream):
        yield from _mean_delta(stream, scale)
        return
    u, s, vt = _svd(stream.gathered(mean_of(stream, "deltas")) * stream.models)
    least = min(stream.shape)
    if len(s) == 0:
        context.note("the deltas are zero or cancel out here: the base is kept")
        yield from _mean_delta(stream, 0.0)
        return
    if len(s) < least:
        context.note(f"the sum of the deltas has rank {len(s)} of {least}: stays so")
    yield from _added(stream, scale * float(s.sum() / least) * (u @ vt))


@merge_method(
    name="knots",
    label="KnOTS (TIES)",
    definition="[d_1 ... d_T] side by side = U S [V_1 ... V_T]; w_0 + lambda U times what TIES "
    "makes of the S V_i, each trimmed to its `density` largest entries; TIES of the deltas for "
    "vectors, embeddings and heads",
    reference="Stoica et al. 2025, arXiv:2410.19735",
    min_models=1,
    needs_base=True,
    idempotent=True,
    endpoints=True,
    gpu=True,
)
def knots(
    stream: Stream,
    *,
    context: TensorContext,
    weight: Sequence[float] = per_model(1.0),
    density: Sequence[float] = per_model(1.0, **DENSITY),
    lambda_: float = 1.0,
    normalize: bool = True,
) -> Iterator[Array]:
    """TIES in directions that all models share: for adapters of low rank, which hardly align."""
    own: dict[str, Any] = {
        "weight": weight, "density": density, "normalize": normalize, "lambda_": lambda_,
        "scope": "tensor", "weighting": "before", "rescale": "none", "context": context,
    }  # fmt: skip
    if not _is_spectral(context, stream):
        yield from ties.function(stream, **own)
        return
    deltas = [stream.whole(model) - stream.whole(-1) for model in range(stream.models)]
    basis = _common_basis(deltas)
    if basis.shape[1] == 0:
        context.note("no model differs from the base here: it is kept")
        yield from _mean_delta(stream, 0.0)
        return
    parts = [(basis.T @ delta).reshape(-1) for delta in deltas]
    aligned = Stream([*parts, parts[0] * 0], (basis.shape[1], stream.shape[1]), has_base=True)
    yield from _added(stream, basis @ aligned.gathered(ties.function(aligned, **own)))


def _common_basis(deltas: Sequence[Array]) -> Array:
    """Left singular vectors of matrices side by side, by float64 products; no null space."""
    first = deltas[0]
    xp, kind = namespace(first), kind_of_array(first)
    wide = xp.concatenate([cast(delta, "float64") for delta in deltas], 1)
    tall = wide.shape[0] > wide.shape[1]
    squares, vectors = xp.linalg.eigh(wide.T @ wide if tall else wide @ wide.T)
    size, eps = max(wide.shape), xp.finfo(wide.dtype).eps
    least = max(size * xp.finfo(first.dtype).eps, (size * eps) ** 0.5)
    there = squares > squares.max() * least**2 if float(squares.max()) > 0 else squares > squares
    found = vectors[:, there]
    return cast(wide @ found / squares[there] ** 0.5 if tall else found, kind)
