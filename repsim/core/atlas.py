"""The atlas: what studies found. Models, merges with their outcomes, and features of their parents.

Long tables that belong together; models are named `FAMILY/RUN` in all of them, and the
parents of a merge are joined by " + " in the order in which they were merged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from repsim.core.errors import InputError
from repsim.core.files import read_json, write_json
from repsim.core.formatting import ShownAsTable
from repsim.core.table import Table

#: Between the names of parents.
JOIN = " + "
SCHEMA = "repsim/atlas/1"
#: Retention of the worst language below which a merge has collapsed.
COLLAPSE = 0.5


def join_parents(names: Sequence[str]) -> str:
    """One string for an ordered group of parents."""
    return JOIN.join(names)


def split_parents(joined: str) -> tuple[str, ...]:
    """Inverse of `join_parents`."""
    return tuple(joined.split(JOIN))


class ModelTable(Table):
    """One row per model and language that it was scored on."""

    SCHEMA = "repsim/atlas-models/1"
    STEM = "models"
    COLUMNS: ClassVar = {
        "model": ("string", "FAMILY/RUN"),
        "arm": ("string", "arm of the study that made it first"),
        "role": ("string", "monolingual, mixed, control"),
        "trained_on": ("string", "languages of its own last phase, joined by +"),
        "history": ("string", "languages of its whole history, joined by +"),
        "tokenizer": ("string", "joint, per-language or bytes"),
        "content": ("string", "same or disjoint"),
        "init_seed": ("int", "seed of the initial weights at the root of its history"),
        "data_seed": ("int", "seed of its own data order"),
        "forked_from": ("string", "run that it left; empty if it began from scratch"),
        "fork_fraction": ("float", "share of its whole training that was spent in its trunk"),
        "tokens": ("int", "of its whole history"),
        "own_tokens": ("int", "of its own last phase"),
        "learning_rate": ("float", "peak of its own last phase"),
        "parameters": ("int", "number of parameters"),
        "tokenizer_hash": ("string", "SHA-256 of the tokenizer"),
        "weights_hash": ("string", "SHA-256 of the weights"),
        "language": ("string", "language that it was scored on"),
        "bits_per_byte": ("float", "on held-out text"),
        "ci_low": ("float", "lower end of the 95 % interval over documents"),
        "ci_high": ("float", "upper end"),
        "unigram_floor": ("float", "bits per byte of the unigram model"),
    }


class MergeTable(Table):
    """One row per merge and language; what concerns the whole merge is repeated in each."""

    SCHEMA = "repsim/atlas-merges/1"
    STEM = "merges"
    COLUMNS: ClassVar = {
        "merge": ("string", "name of the merge: parents, method, alignment"),
        "parents": ("string", "names joined by ' + '"),
        "k": ("int", "number of parents"),
        "arm": ("string", "arm of the study"),
        "control": ("string", "kind of control with a known answer; empty for none"),
        "shared_init": ("int", "1 if all parents descend from one set of initial weights"),
        "fork_fraction": ("float", "least share of their training that two parents had in common"),
        "method": ("string", "merge method"),
        "alignment": (
            "string",
            "none, permutation, orthogonal, learned; +counts: rows by counts",
        ),
        "base": ("string", "base of methods on differences: a model, or 'zero'; empty for none"),
        "parameters": ("string", "of the method, as JSON"),
        "language": ("string", "language that was scored"),
        "bits_per_byte": ("float", "of the merge"),
        "parent_bits": ("float", "of the parent that is best on the language"),
        "parent": ("string", "that parent"),
        "unigram_floor": ("float", "bits per byte of the unigram model"),
        "retention": ("float", "(floor - merge) / (floor - best parent)"),
        "base_bits": ("float", "bits per byte of the model that the parents were trained from"),
        "gain_kept": ("float", "(base - merge) / (base - best parent); null if none gained"),
        "ci_low": ("float", "lower end of the 95 % interval over documents"),
        "ci_high": ("float", "upper end"),
        "worst_retention": ("float", "least retention over the languages of the merge"),
        "kept": ("float", "mean over languages of max(retention, 0)"),
        "advantage": ("float", "kept minus what the best single parent keeps"),
        "collapsed": ("int", "1 if the worst retention is below 0.5"),
        "useful": ("int", "1 if it beats every single parent"),
        "seconds": ("float", "to merge and evaluate"),
    }


class FeatureTable(Table):
    """One row per group of parents, feature, and language where the feature has one."""

    SCHEMA = "repsim/atlas-features/1"
    STEM = "features"
    COLUMNS: ClassVar = {
        "parents": ("string", "names joined by ' + '"),
        "language": ("string", "language that it was measured in; empty: concerns all"),
        "tier": ("string", "T0 metadata, T1 weights, T2 activations, T3 gradients, oracle"),
        "feature": ("string", "name"),
        "value": ("float", "value"),
    }


class CostTable(Table):
    """One row per group of parents and tier: what it took to measure."""

    SCHEMA = "repsim/atlas-costs/1"
    STEM = "costs"
    COLUMNS: ClassVar = {
        "parents": ("string", "names joined by ' + '"),
        "tier": ("string", "tier of features"),
        "seconds": ("float", "processor seconds"),
    }


class PathTable(Table):
    """One row per pair of parents, alignment, language and point of the straight path between."""

    SCHEMA = "repsim/atlas-paths/1"
    STEM = "paths"
    COLUMNS: ClassVar = {
        "parents": ("string", "names joined by ' + '; the first is at t = 0"),
        "alignment": ("string", "how the second was brought to the first"),
        "language": ("string", "language that was scored"),
        "t": ("float", "share of the second parent"),
        "bits_per_byte": ("float", "on held-out text"),
        "above_chord": ("float", "bits per byte above the straight line between the ends"),
    }


@dataclasses.dataclass(frozen=True)
class Atlas(ShownAsTable):
    """What a study found: models, merges, features, costs and paths, each a table.

    Attributes:
        features: Of groups of parents, before they are merged.
        costs: What features took to measure.
        info: Study, seeds, versions (JSON-able).
        paths: Loss along the paths between parents; empty where a study asks for none.
    """

    models: ModelTable
    merges: MergeTable
    features: FeatureTable
    costs: CostTable
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    paths: PathTable = dataclasses.field(default_factory=lambda: PathTable([]))

    def describe(self) -> dict[str, Any]:
        """How much it holds."""
        return {
            "study": self.info.get("study", {}).get("name"),
            "models": len(self.models.unique("model")),
            "merges": len(self.merges.unique("merge")),
            "features": len(self.features.unique("feature")),
            "paths": len(self.paths.unique("parents")),
        }

    def save(self, folder: str | Path) -> Path:
        """Write the tables as parquet, and `atlas.json` with the info, into a folder."""
        target = Path(folder)
        for table in (self.models, self.merges, self.features, self.costs, self.paths):
            table.save(target)
        write_json(target / "atlas.json", {"schema": SCHEMA, "info": self.info})
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; InputError if it is missing, damaged or no atlas."""
        source = Path(folder)
        if not (source / "atlas.json").exists():
            raise InputError(
                f"'{source}' holds no atlas: there is no atlas.json",
                hint="make one with: repsim study run STUDY.yaml -o DIR",
            )
        document = read_json(source / "atlas.json")
        if document.get("schema") != SCHEMA:
            raise InputError(f"'{source}' holds an atlas of another kind than {SCHEMA}")
        return cls(
            ModelTable.load(source),
            MergeTable.load(source),
            FeatureTable.load(source),
            CostTable.load(source),
            document["info"],
            PathTable.load(source) if (source / "paths.parquet").exists() else PathTable([]),
        )
