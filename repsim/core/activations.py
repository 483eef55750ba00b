"""What a model makes of the sentences of one language."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef

Pooling = Literal["mean", "last", "position-weighted", "tokens"]


class ArraySource(Protocol):
    """Where the arrays lie; read one at a time."""

    def read(self, point: str, layer: int) -> np.ndarray:
        """The `[n, d]` float32 array of one hook point and layer."""
        ...


@dataclasses.dataclass(frozen=True)
class ArraysInMemory:
    """An `ArraySource` over arrays that are at hand."""

    arrays: dict[tuple[str, int], np.ndarray]

    def read(self, point: str, layer: int) -> np.ndarray:
        """The array of one point and layer."""
        return np.asarray(self.arrays[point, layer], dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Activations:
    """One model on one language: `[n, d]` per hook point and layer, row i = sentence i.

    Attributes:
        model: Whose activations.
        language: Language of the sentences.
        ids: Sentence ids, one per row.
        layers: Hook point -> layers that are there, ascending. Layer 0 of `resid` is the embedding.
        pooling: How tokens became one row.
        corpus_hash: Hash of the sentences that were read.
        source: Where the arrays are; `array` reads them lazily.
        covariates: Name -> `[n]`, properties of each sentence (length in characters, tokens).
        documents: Document id of each row.
        info: Further facts for reports: token policy, dtype, truncated sentences.

    Example:
        >>> x = np.zeros((3, 4), dtype=np.float32)
        >>> acts = Activations(ModelRef("m", "m"), "eng_Latn", ("a", "b", "c"), {"resid": (0,)},
        ...                    "mean", "hash", ArraysInMemory({("resid", 0): x}))
        >>> acts.array("resid", 0).shape
        (3, 4)
    """

    model: ModelRef
    language: str
    ids: tuple[str, ...]
    layers: dict[str, tuple[int, ...]]
    pooling: Pooling
    corpus_hash: str
    source: ArraySource
    covariates: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    documents: tuple[str, ...] = ()
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def points(self) -> tuple[str, ...]:
        """Hook points that were extracted."""
        return tuple(self.layers)

    def array(self, point: str = "resid", layer: int = -1) -> np.ndarray:
        """Read one `[n, d]` float32 array; `layer=-1` means the last.

        Raises:
            UsageError: The point or layer was not extracted.
        """
        if point not in self.layers:
            raise UsageError(
                f"hook point '{point}' was not extracted for {self.model.name}/{self.language}",
                hint=f"extracted: {', '.join(self.layers)}",
            )
        number = self.layers[point][-1] if layer == -1 else layer
        if number not in self.layers[point]:
            raise UsageError(
                f"layer {layer} of '{point}' was not extracted for {self.model.name}",
                hint=f"extracted: {list(self.layers[point])}",
            )
        return self.source.read(point, number)
