"""Held-out text within a run: bits per byte, when to stop early, and what is no success."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from statistics import fmean

import torch

from repsim.core.errors import UsageError
from repsim.evaluation.bits_per_byte import BitsPerByte, score
from repsim.pretraining.folder import Described
from repsim.pretraining.metrics import logger, read_metrics
from repsim.pretraining.step import Engine


@dataclasses.dataclass(frozen=True)
class Scores:
    """Bits per byte by language: of the text asked for, and of the part scored each time."""

    asked: Mapping[str, float]
    part: Mapping[str, float]


def held_out_scores(engine: Engine, about: Described, *, final: bool) -> Scores:
    """Score held-out text: `validation_bytes` of each language, at the end `final_bytes`."""
    saving, plan, data = about.config.saving, about.plan, about.data
    asked, part = {}, {}
    # A compiled function keeps the shape of training, so that one more graph is enough.
    rows = max(1, plan.training.batch // engine.world.size // engine.accumulation)
    engine.model.eval()
    with engine.autocast():
        for language, everything in data.held_out.items():
            whole = everything.first_bytes(saving.final_bytes)
            kept = whole.first_bytes(saving.validation_bytes)
            measured = score(
                engine.losses, whole if final else kept, plan.context, data.tokenizer.bos_id,
                world=engine.world, rows=rows if engine.compiled else None,
                fixed_shape=engine.compiled,
            )  # fmt: skip
            asked[language] = float(measured)
            count = len(kept.documents)
            part[language] = float(BitsPerByte(measured.bits[:count], kept.sizes))
    engine.model.train()
    return Scores(asked, part)


class EarlyStopping:
    """Ends a run when `patience` validations in a row were not better on average."""

    def __init__(self, about: Described, known: list[list[float]]) -> None:
        held_out = about.data.held_out
        self.patience = about.plan.training.patience or 0
        self.languages = [name for name in about.plan.languages if name in held_out]
        self.scores = {int(step): value for step, value in known}
        if not self.languages:
            raise UsageError(
                f"run '{about.plan.name}' cannot stop early: no held-out text of its languages"
            )

    def improved(self, step: int, scores: Mapping[str, float]) -> bool:
        """Take in a validation; whether it is the best one so far."""
        self.scores[step] = fmean(scores[name] for name in self.languages)
        return self.best == step

    @property
    def best(self) -> int:
        """The step of the best validation, the first of equal ones."""
        return min(self.scores, key=lambda step: self.scores[step])

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return sum(step > self.best for step in self.scores) >= self.patience

    def told(self, step: int) -> dict[str, object]:
        """What a model's provenance says of it."""
        return {"stopped": step, "best": self.best, "patience": self.patience,
                "bits_per_byte": self.scores[self.best]}  # fmt: skip


def failure(engine: Engine, about: Described, scores: Scores, metrics: str) -> str:
    """Say what ended above the unigram floor; the reason if it also ended above its beginning."""
    floors = about.data.floors
    own = [name for name in about.plan.languages if name in floors and name in scores.part]
    worse = [name for name in own if scores.asked[name] > floors[name]]
    if not worse:
        return ""
    logger.warning(
        "%s  ends worse than counting tokens (%s): train longer, or change the learning rate",
        about.plan.name,
        ", ".join(f"{n} {scores.asked[n]:.3f}, floor {floors[n]:.3f}" for n in worse),
    )
    rose = False
    if engine.world.is_main:
        first = next(row for row in read_metrics(metrics) if row["kind"] == "validation")
        rose = worse == own and all(scores.part[n] > 1.01 * first.get(n, math.inf) for n in own)
    anywhere = engine.world.sum(torch.tensor(float(rose), device=engine.world.device))
    return "it ends worse than it began and than counting tokens" if float(anywhere) else ""
