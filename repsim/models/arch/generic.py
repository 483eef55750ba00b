"""A fallback for families without a spec: `embed` and `resid` at the longest list of blocks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch.base import ArchSpec

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GenericSpec(ArchSpec):
    """Finds the list of blocks in the model instead of knowing it."""

    def body(self, model: nn.Module) -> nn.Module:
        """The model without its head; of an encoder-decoder, the encoder."""
        base: Any = getattr(model, "base_model", model)
        if getattr(model.config, "is_encoder_decoder", False):
            base = base.get_encoder()
        body: nn.Module = base
        return body

    def block_path(self, model: nn.Module) -> str:
        """Path of the longest `ModuleList` of modules of one class, two or more of them."""
        from torch import nn

        found, longest = "", 1
        for path, module in self.body(model).named_modules():
            if not isinstance(module, nn.ModuleList):
                continue
            same = len({type(block) for block in module}) == 1
            if same and len(module) > longest:
                found, longest = path, len(module)
        if not found:
            raise IncompatibleModelsError(
                f"{type(model).__name__} holds no list of equal blocks to hook into",
                hint="write an ArchSpec for it; see the entry points repsim.architectures",
            )
        return found


GENERIC = GenericSpec(name="generic", model_types=())
