"""OPT: decoder with learned positions, pre-norm except for the 350M model.

That model (`do_layer_norm_before=False`) ends each block in a norm, so its `attn` and `mlp` do not
add up to `resid`; it also has a narrower embedding, projected in before block 1 and out after the
last. The feed-forward part runs on `[batch * tokens, width]`, which `read_activation` unfolds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from repsim.models.arch.base import ArchSpec

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class OptSpec(ArchSpec):
    """OPT's spec: what follows the last block may be a norm, a projection, both or nothing."""

    def final_norm(self, model: nn.Module) -> nn.Module | None:
        """Final norm and output projection, as far as the model has them."""
        from torch import nn

        body = self.body(model)
        parts = [getattr(body, name, None) for name in ("final_layer_norm", "project_out")]
        there = [part for part in parts if part is not None]
        return nn.Sequential(*there) if there else None


OPT = OptSpec(
    name="opt",
    model_types=("opt",),
    decoder=True,
    body_path="decoder",
    blocks="layers",
    attn="self_attn.out_proj",
    heads="self_attn.out_proj",
    mlp="fc2",
    mlp_hidden="fc2",
    additive_when=lambda config: bool(config.do_layer_norm_before),
)
