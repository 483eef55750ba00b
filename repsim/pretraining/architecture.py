"""Shapes of decoders, and the names of usual ones."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from repsim.core.config import Switch, Whole
from repsim.core.errors import UsageError, unknown_name
from repsim.pretraining.stable import StableConfig

#: Named sizes: what `architecture.size` stands for. Parameters with tied embeddings at the
#: vocabulary in brackets: 1m 1.2M (4k), 5m 4.9M (8k), 10m 9.6M (16k), 30m 30M (16k), 60m 60M (16k),
#: 125m 126M (16k), 350m 336M (32k).
SIZES: dict[str, dict[str, int]] = {
    "1m": {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "context": 128},
    "5m": {"hidden": 256, "layers": 4, "heads": 4, "kv_heads": 4, "context": 256},
    "10m": {"hidden": 256, "layers": 8, "heads": 4, "kv_heads": 4, "context": 512},
    "30m": {"hidden": 512, "layers": 8, "heads": 8, "kv_heads": 8, "context": 512},
    "60m": {"hidden": 640, "layers": 10, "heads": 10, "kv_heads": 10, "context": 512},
    "125m": {"hidden": 768, "layers": 16, "heads": 12, "kv_heads": 12, "context": 1024},
    "350m": {"hidden": 1024, "layers": 24, "heads": 16, "kv_heads": 16, "context": 1024},
}


class ArchitectureConfig(StableConfig):
    """Shape of the decoder. `size` fills in what is not given; see `SIZES`."""

    family: Literal["llama", "gpt2"] = "llama"
    size: str | None = None
    hidden: Whole = Field(default=0, ge=0, le=1 << 20)
    layers: Whole = Field(default=0, ge=0, le=2_000)
    heads: Whole = Field(default=0, ge=0, le=1 << 20)
    kv_heads: Whole = Field(default=0, ge=0, le=1 << 20)
    intermediate: Whole = Field(default=0, ge=0, le=1 << 22)
    context: Whole = Field(default=0, ge=0, le=1 << 24)
    tied: Switch = True
    init: Literal["plain", "depth-scaled"] = "plain"
    unsaid: ClassVar = {"init": "plain"}

    def resolved(self) -> ArchitectureConfig:
        """With every number filled in and checked."""
        if self.size is not None and self.size not in SIZES:
            raise unknown_name("architecture.size", self.size, SIZES)
        preset = dict(SIZES[self.size]) if self.size else {}
        if self.heads or self.family == "gpt2":  # the preset's key/value heads go with its heads
            preset.pop("kv_heads", None)
        given = {k: v for k in ("hidden", "layers", "heads", "kv_heads", "intermediate", "context")
                 if (v := getattr(self, k))}  # fmt: skip
        values = preset | given
        for key in ("hidden", "layers", "heads", "context"):
            if key not in values:
                raise UsageError(f"'architecture.{key}' is missing", hint="give it, or a size")
        values.setdefault("kv_heads", values["heads"])
        values.setdefault("intermediate", _mlp_width(self.family, values["hidden"]))
        if values["hidden"] % values["heads"] or (values["hidden"] // values["heads"]) % 2:
            raise UsageError(
                f"'architecture.hidden' ({values['hidden']}) over 'architecture.heads' "
                f"({values['heads']}) must be an even whole number"
            )
        if values["heads"] % values["kv_heads"]:
            raise UsageError(
                f"'architecture.kv_heads' ({values['kv_heads']}) must divide "
                f"'architecture.heads' ({values['heads']})"
            )
        if self.family == "gpt2" and values["kv_heads"] != values["heads"]:
            raise UsageError("'architecture.kv_heads' is for the llama family")
        if self.family == "gpt2" and self.init != "plain":
            raise UsageError("'architecture.init' is for the llama family; gpt2 is so always")
        return ArchitectureConfig(family=self.family, tied=self.tied, init=self.init, **values)


def _mlp_width(family: str, hidden: int) -> int:
    return 4 * hidden if family == "gpt2" else 32 * math.ceil(8 * hidden / 3 / 32)
