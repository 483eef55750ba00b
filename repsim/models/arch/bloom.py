"""BLOOM: pre-norm decoder with ALiBi positions and a norm on the embeddings.

Its attention and MLP modules return their sum with the residual stream; `attn` and `mlp` are read
at the projections inside, before that sum.
"""

from __future__ import annotations

from typing import Any

from repsim.models.arch.base import ArchSpec


def _sliced_projections(config: Any) -> str | None:
    """The projections are not called as modules in the tensor-parallel emulation of BLOOM."""
    if config.slow_but_exact and config.pretraining_tp > 1:
        return "a BLOOM config with slow_but_exact and pretraining_tp > 1 hides its projections"
    return None


BLOOM = ArchSpec(
    name="bloom",
    model_types=("bloom",),
    decoder=True,
    blocks="h",
    attn="self_attention.dense",
    heads="self_attention.dense",
    mlp="mlp.dense_4h_to_h",
    mlp_hidden="mlp.dense_4h_to_h",
    norm="ln_f",
    additive_when=lambda config: not config.apply_residual_connection_post_layernorm,
    refuses=_sliced_projections,
)
