"""What a diagnosis is told from: files of the merge and its parents, and readings on text."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.model_ref import ModelRef
from repsim.mergeability.diagnosis.readings import DiagnosisTable
from repsim.merging.ancestry import BaseFinding, check_base
from repsim.merging.checkpoint import FLOATS, Checkpoint
from repsim.merging.lineage import LineageTable, lineage
from repsim.merging.parts import PartsTable, take_apart
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models.inspect import locate, read_config

ModelName = str | Path | ModelRef
#: Keys of a config that change what the same weights compute.
DECIDING = (
    "model_type", "hidden_act", "activation_function", "num_attention_heads", "n_head",
    "num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "rope_parameters",
    "rotary_pct", "partial_rotary_factor", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon",
    "tie_word_embeddings", "sliding_window", "attention_bias", "logit_scale", "attn_scale",
    "embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling",
    "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Opened:
    """One model of the case: its folder, config, vocabulary and weights."""

    name: str
    folder: Path
    config: dict[str, Any]
    vocabulary: Vocabulary | None
    weights: Checkpoint

    @classmethod
    def of(cls, model: ModelName, label: str | None = None) -> Opened:
        """Open a model; nothing is loaded."""
        found = locate(model, label=label)
        config = read_config(found.folder, generic=True)[0].to_dict()
        return cls(found.name, found.folder, config, read_vocabulary(found.folder, found.name),
                   Checkpoint(found.folder, found.name))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """Everything that causes are looked for in."""

    merge: Opened
    parents: tuple[Opened, ...]
    base: Opened | None  # that the merge was made with, if one is stated
    parts: PartsTable | None  # weight of each parent, and the base, in each part
    lineage: LineageTable | None
    base_finding: BaseFinding | None  # whether it can be their ancestor
    broken: tuple[str, ...]  # tensors of the merge that hold NaN or infinity
    readings: DiagnosisTable = dataclasses.field(default_factory=DiagnosisTable)

    def blocks(self) -> list[str]:
        """Numbers of the blocks that could be taken apart."""
        parts = self.parts.unique("part") if self.parts else []
        return [part for part in parts if part.isdigit()]

    def weights(self, part: str) -> dict[str, float]:
        """Weight of each parent in a part; empty where the part could not be taken apart."""
        rows = self.parts.where(part=part).rows() if self.parts else ()
        return {row["parent"]: row["weight"] for row in rows}

    def residual(self, part: str) -> float:
        """What the parents do not explain of a part, in distances of the parents."""
        found = self.parts.where(part=part)["residual"] if self.parts else np.empty(0)
        return float(found[0]) if len(found) else float("nan")

    def reading(self, name: str, part: str) -> float:
        """The reading of a part that is furthest from its parents', over languages; NaN if none."""
        rows = [r for r in self.readings.where(reading=name, part=part).rows() if r["value"]]
        worst = max(rows, key=lambda r: abs(math.log(r["value"])), default={"value": math.nan})
        return float(worst["value"])

    def restored(self, part: str) -> float:
        """Largest share of a language's loss that the parent's part restores; 0 if unknown."""
        found = self.readings.where(reading="restored", part=part)["value"]
        return float(max(np.nanmax(found), 0.0)) if len(found) and np.isfinite(found).any() else 0.0


def open_case(merge: ModelName, parents: Sequence[ModelName], base: ModelName | None) -> Case:
    """Open the models and read what their weights tell."""
    made, *named = _opened([merge, *parents, *([base] if base is not None else [])])
    opened, root = named[: len(parents)], (named[-1] if base is not None else None)
    folders = {one.name: one.folder for one in named}
    broken = tuple(_not_finite(made.weights))
    comparable = not broken and all(_same_shapes(made, one) for one in named)
    return Case(
        merge=made, parents=tuple(opened), base=root,
        parts=take_apart(made.folder, folders) if comparable else None,
        lineage=lineage(folders) if len(named) > 1 else None,
        base_finding=check_base(root.folder, {one.name: one.folder for one in opened})
        if root else None,
        broken=broken,
    )  # fmt: skip


def _opened(models: Sequence[ModelName]) -> list[Opened]:
    """Open some models; those of one name are numbered, so that a name is one model everywhere."""
    found = [Opened.of(model) for model in models]
    counts = Counter(one.name for one in found)
    return [
        one if counts[one.name] == 1 else Opened.of(model, f"{one.name} ({number})")
        for number, (one, model) in enumerate(zip(found, models, strict=True), start=1)
    ]


def _same_shapes(a: Opened, b: Opened) -> bool:
    shared = a.weights.headers.keys() & b.weights.headers.keys()
    return bool(shared) and any(
        a.weights.headers[name].shape == b.weights.headers[name].shape for name in shared
    )


def _not_finite(weights: Checkpoint) -> list[str]:
    return [
        name for name, header in weights.headers.items()
        if header.dtype in FLOATS and not bool(weights.read(name).isfinite().all())
    ]  # fmt: skip
