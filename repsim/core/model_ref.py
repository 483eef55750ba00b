"""Which model: its identity and its history, never its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from repsim.core.formatting import ShownAsTable
from repsim.core.provenance import shown_path

Role = Literal["monolingual", "mixed", "fine-tuned", "merged", "other"]


@dataclasses.dataclass(frozen=True)
class ModelRef(ShownAsTable):
    """Identity and provenance of one model.

    Attributes:
        name: Short label, unique within a run; shown in tables and plots.
        path: Local folder, or the identifier on a hub.
        revision: Revision on a hub, if any.
        role: What the model is in a study.
        languages: Languages that it was trained on, FLORES-style codes; empty if not known.
        architecture: Family name of its `ArchSpec` ("llama", "bert").
        width: Size of the residual stream.
        layers: Number of blocks; the layer axis runs from 0 (embedding) to `layers`.
        parameters: Number of parameters, 0 if not known.
        init_seed: Seed of the initial weights; the same seed is the same starting point.
        data_seed: Seed of the data order.
        forked_from: `weights_hash` or name of the run that it was forked from.
        fork_step: Step of that run at which it was forked.
        step: Step of its training, if it is a checkpoint or states it.
        tokens: Tokens that it was trained on, if stated.
        tokenizer_hash: SHA-256 of the tokenizer's files.
        weights_hash: SHA-256 of the weight files.

    Example:
        >>> ModelRef(name="en", path="runs/en", languages=("eng_Latn",)).role
        'other'
    """

    name: str
    path: str
    revision: str | None = None
    role: Role = "other"
    languages: tuple[str, ...] = ()
    architecture: str = ""
    width: int = 0
    layers: int = 0
    parameters: int = 0
    init_seed: int | None = None
    data_seed: int | None = None
    forked_from: str | None = None
    fork_step: int | None = None
    step: int | None = None
    tokens: int | None = None
    tokenizer_hash: str = ""
    weights_hash: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; `from_dict` is its inverse."""
        return {**dataclasses.asdict(self), "languages": list(self.languages)}

    def stated(self) -> dict[str, Any]:
        """As `to_dict`, for tables and reports: the path does not tell where the machine has it."""
        return {**self.to_dict(), "path": shown_path(self.path)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ModelRef:
        """Build from `to_dict`; keys that this version does not know are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in document.items() if key in known}
        values["languages"] = tuple(values.get("languages", ()))
        return cls(**values)
