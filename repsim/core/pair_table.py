"""Pairs of models whose merge was scored in the language of each, as others publish them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from repsim.core.table import Table

#: Sides of a pair.
SIDES = ("a", "b")


class PairTable(Table):
    """One row per pair: scores of merge, parents and an untrained model in two languages."""

    SCHEMA = "repsim/pairs/1"
    STEM = "pairs"
    COLUMNS: ClassVar = {
        "a": ("string", "first model, called by its language"),
        "b": ("string", "second model"),
        "merged_a": ("float", "score of the merge in the language of the first; empty: none"),
        "merged_b": ("float", "in that of the second"),
        "parent_a": ("float", "score of the first model in its own language"),
        "parent_b": ("float", "of the second in its own"),
        "floor_a": ("float", "score of an untrained model in the language of the first"),
        "floor_b": ("float", "in that of the second"),
        "weight_cosine": ("float", "cosine of all weights"),
        "weight_l2": ("float", "distance of all weights"),
        "cka_english": ("float", "mean over blocks, both models read English"),
        "cka_in_language": ("float", "mean over blocks, each model reads its own language"),
        "cka_numerals": ("float", "mean over blocks, both models read numerals"),
    }
    HINT = "read one with repsim.studies.multimerge.files.read_multimerge"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of the two models of each row."""
        return list(zip(map(str, self["a"]), map(str, self["b"]), strict=True))

    def retention(self, side: str) -> np.ndarray:
        """(merge - untrained) / (parent - untrained) in one language; NaN without a score."""
        merged, parent, floor = (self[f"{part}_{side}"] for part in ("merged", "parent", "floor"))
        room = parent - floor
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(room > 0, (merged - floor) / room, np.nan)

    @property
    def both(self) -> np.ndarray:
        """Retention `[pairs, 2]`, NaN where a language has no score."""
        return np.stack([self.retention(side) for side in SIDES], axis=1)

    @property
    def worst(self) -> np.ndarray:
        """Least retention over the languages that were scored."""
        both = self.both
        least = np.where(np.isfinite(both), both, np.inf).min(axis=1)
        return np.where(np.isfinite(least), least, np.nan)

    @property
    def loss(self) -> np.ndarray:
        """Score of the merge minus that of the parents, the mean over scored languages."""
        return mean_known(np.stack(
            [self[f"merged_{side}"] - self[f"parent_{side}"] for side in SIDES], axis=1
        ))  # fmt: skip


class BlockTable(Table):
    """Similarity of pairs block by block."""

    SCHEMA = "repsim/pair-blocks/1"
    STEM = "blocks"
    COLUMNS: ClassVar = {
        "a": ("string", "first model"),
        "b": ("string", "second model"),
        "text": ("string", "english, in_language or numerals"),
        "block": ("int", "number of the block, from 1"),
        "cka": ("float", "linear CKA as its makers computed it"),
    }


def mean_known(values: np.ndarray) -> np.ndarray:
    """Mean of each row over what is known; NaN if nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
