"""Merge methods, one file per family. Each is a function of the same tensor of several models.

Which definition each one follows, where there is more than one (`w_i` tensors, `w_0` base,
`d_i = w_i - w_0`, `a_i` weights; the exact formula is each method's `definition`):

==================== =============================================================================
method               definition
==================== =============================================================================
linear, slerp,       mergekit 0.1.5, formula for formula. A zero tensor takes the straight line in
nuslerp, multislerp, slerp (mergekit: sin(pi/4) of the other one), weights that add up to 0 are an
karcher, passthrough error in linear and multislerp, t outside [0, 1] is one in slerp.
task_arithmetic      mergekit, which is Ilharco et al.
ties                 mergekit: trimmed per tensor, weights before the election, weighted mean.
                     `scope: model` trims as the paper does, `weighting: after` merges as PEFT does.
                     Exactly max(1, int(density n)) entries stay, equal magnitudes by lowest index.
dare_*, della*       the papers: each entry over its probability of being kept (unbiased).
                     `rescale: l1` is mergekit's: back to the L1 norm of the whole tensor.
breadcrumbs*         mergekit: int(density n) entries stay, whatever gamma says.
model_stock          Jang et al. with the mean pairwise cosine, t clamped to [0, 1];
                     `clamp: false` is mergekit's.
sce                  mergekit, but weights are kept for deltas of any size, and identical models
                     give their common delta (mergekit: equal weights below a mean square of 1e-6;
                     the base).
nearswap, ram,       mergekit 0.1.5, formula for formula; arcee_fusion with exact quartiles
ramplus_tl,          (mergekit: of a random sample of a million entries), and with divergences that
arcee_fusion         float32 does not round away.
ramplus              Yuan et al.: as ramplus_tl, counted over the whole model.
widen                Yu et al., by columns of `[outputs, inputs]`; changes of directions from the
                     deltas, which keep the digits that 1 - cosine loses.
tsv_m, iso_c         the papers' and FusionBench's, per tensor; embeddings and heads get the mean
                     delta as vectors do; directions of zero singular values are left out.
knots                Stoica et al. with TIES, trimmed per tensor; adapters are given as
                     BASE+ADAPTER.
regmean              Jin et al. with per-token means, in float64, and a ridge that draws to the
                     plain mean.
fisher               Matena and Raffel with the true diagonal Fisher information (labels drawn from
                     the model, gradients squared per text).
==================== =============================================================================

Deltas, thresholds and sums are float32 (float64 on request), and the caller casts once. Degenerate
inputs raise an error, or have their outcome stated in `TensorContext.notes`. What each method
declares of itself is tested by `repsim.testing.merge_checks.check_merge_method`.
"""

from typing import Any

# A file of methods registers what it declares when it is imported: one line for each.
from repsim.merging.base import METHODS, MergeMethod
from repsim.merging.methods import (
    averaging,  # noqa: F401
    consensus,  # noqa: F401
    data_aware,  # noqa: F401
    disentangled,  # noqa: F401
    selective,  # noqa: F401
    spectral,  # noqa: F401
    spherical,  # noqa: F401
    task_vectors,  # noqa: F401
)


def find_method(name: Any) -> MergeMethod:
    """The merge method of that name; an error that lists the others if there is none."""
    return METHODS[str(name)]


def list_methods() -> list[MergeMethod]:
    """All merge methods, in the order of their families.

    Example:
        >>> [method.name for method in list_methods()][:2]
        ['linear', 'passthrough']
    """
    return [METHODS[name] for name in METHODS]
