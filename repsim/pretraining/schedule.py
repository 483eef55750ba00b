"""Learning rate as a function of the step."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate over a run of `steps` steps."""

    kind: Literal["wsd", "cosine", "constant"]
    peak: float
    steps: int
    warmup: int = 0
    decay: int = 0
    final: float = 0.0

    def __call__(self, step: int) -> float:
        """Rate of the update number `step`, counted from 0; the last one's is above the final."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        return self.peak * (self.final + (1.0 - self.final) * self._above_final(step))

    def _above_final(self, step: int) -> float:
        """Where between the final rate (0) and the peak (1) the step lies."""
        if self.kind == "wsd":
            start = self.steps - self.decay
            gone = (step - start + 1) / (self.decay + 1) if self.decay else 0.0
            return 1.0 - min(1.0, max(0.0, gone))
        if self.kind == "cosine":
            gone = (step - self.warmup) / max(1, self.steps - self.warmup)
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, gone)))
        return 1.0
