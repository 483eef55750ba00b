"""Lineage: what models share, told from a sample of their weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.merging.checkpoint import TensorSource
from repsim.merging.pair_readings import PairReadings, read_pair
from repsim.merging.sampling import Models, open_sources

#: Standard deviations above every other order of units from which one origin is taken as found.
FOUND = 6.0
#: Correlation of norm gains from which training was shared, and not the initial weights alone: at
#: most 0.47 where only initial weights are shared, at least 0.54 where a fifth of the training is;
#: see figures/lineage.md for the models that it was chosen and tested on.
SHARED_TRAINING = 0.5
#: Distance, in mean norms, under which one is a fine-tuned copy of the other or both of one base.
FINE_TUNED = 0.1
#: Share of units found under another number from which a model is a re-ordered copy.
REORDERED = 0.5
#: Relation -> what it means.
RELATIONS = {
    "same weights": "the same weights",
    "fine-tuned": "one is fine-tuned from the other, or both from one base",
    "shared training": "forks: they share initial weights and a fifth of their training or more",
    "shared initialisation": "the same initial weights, trained apart for the most part",
    "re-ordered copy": "the units of one in another order",
    "unrelated": "no common origin is seen (a rotated copy would look the same)",
    "other shapes": "no matrices of one name and shape",
}
#: Relations of models with one origin, whose weights stand in the same coordinates.
ONE_ORIGIN = ("same weights", "fine-tuned", "shared training", "shared initialisation")


class LineageTable(Table):
    """One row per pair of models: what they share, and what it was told from."""

    SCHEMA = "repsim/lineage/1"
    STEM = "lineage"
    COLUMNS: ClassVar = {
        "model_a": ("string", "one model"),
        "model_b": ("string", "the other"),
        "relation": ("string", "; ".join(f"{name}: {text}" for name, text in RELATIONS.items())),
        "cosine": ("float", "mean cosine of the body's matrices"),
        "distance": ("float", "distance over the mean norm of the two"),
        "deviations": ("float", "standard deviations by which units resemble their namesakes"),
        "unit_match": ("float", "share of units most like their namesake, beyond chance"),
        "reordered": ("float", "share of units found under another number, if looked for"),
        "gain_correlation": ("float", "mean correlation of norm gains"),
        "tensors": ("int", "matrices of which rows were read"),
        "megabytes": ("float", "read from both models"),
    }

    def relation(self, a: str, b: str) -> str:
        """The relation of two models, in either order; a UsageError if the pair is not there."""
        found = [*self.where(model_a=a, model_b=b).rows(), *self.where(model_a=b, model_b=a).rows()]
        if not found:
            raise UsageError(f"no row for '{a}' and '{b}'", hint=f"models: {self.models()}")
        return str(found[0]["relation"])

    def models(self) -> list[str]:
        """Names of the models."""
        return self.unique("model_a", "model_b")


def lineage(models: Models, *, max_megabytes: float = 300) -> LineageTable:
    """What every two of some models share: weights, training, initial weights, or nothing.

    Args:
        models: Two models or more: folders, files of safetensors, "zoo:NAME", hub ids, `ModelRef`,
            or arrays of numpy or torch by name. A mapping gives them names.
        max_megabytes: Most that is read of a pair; rows of matrices are sampled to stay below.

    Returns:
        A row per pair. "Fine-tuned" and "shared training" are read from distance and norm gains at
        thresholds that were set on models of known history; see the columns for the raw readings.

    Raises:
        InputError: A model is not there, or its files are damaged.
        UsageError: Fewer than two models.

    Example:
        >>> table = lineage(["zoo:eng-fork", "zoo:deu-fork", "zoo:eng-2"])
        >>> table.relation("eng-fork", "deu-fork"), table.relation("eng-fork", "eng-2")
        ('shared training', 'unrelated')
        >>> import numpy as np
        >>> weights = {"layers.0.weight": np.random.default_rng(0).normal(size=(64, 64))}
        >>> lineage({"mine": weights, "yours": dict(weights)}).relation("mine", "yours")
        'same weights'
    """
    pairs = itertools.combinations(open_sources(models), 2)
    return LineageTable([_row(a, b, max_megabytes) for a, b in pairs], {"thresholds": {
        "deviations": FOUND, "gain_correlation": SHARED_TRAINING, "distance": FINE_TUNED,
        "reordered": REORDERED,
    }})  # fmt: skip


def relation_of(found: PairReadings | None) -> str:
    """The relation that the readings of a pair speak for."""
    if found is None:
        return "other shapes"
    if found.distance == 0:
        return "same weights"
    if found.reordered >= REORDERED:
        return "re-ordered copy"
    if not found.deviations > FOUND:
        return "unrelated"
    if found.distance < FINE_TUNED:
        return "fine-tuned"
    gains = found.gain_correlation
    if math.isnan(gains):  # no gains that differ: told by the matrices alone
        gains = found.cosine
    return "shared training" if gains >= SHARED_TRAINING else "shared initialisation"


def _row(a: TensorSource, b: TensorSource, megabytes: float) -> dict[str, Any]:
    found = read_pair(a, b, megabytes)
    row: dict[str, Any] = {"model_a": a.name, "model_b": b.name, "relation": relation_of(found)}
    if found is None:
        return row | {"tensors": 0, "megabytes": 0.0}
    values = dataclasses.asdict(found)
    del values["gap"]
    missing = [name for name, value in values.items() if value != value]
    return row | {k: (None if k in missing else v) for k, v in values.items()}
