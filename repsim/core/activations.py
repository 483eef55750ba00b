"""What a model makes of the sentences of one language."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.core.formatting import ShownAsTable
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
class Activations(ShownAsTable):
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

    @classmethod
    def from_arrays(
        cls,
        name: str,
        layers: Sequence[Any],
        *,
        language: str = "",
        names: Sequence[str] | None = None,
        documents: Sequence[str] = (),
        covariates: Mapping[str, Sequence[float]] | None = None,
    ) -> Activations:
        """Activations that something else has extracted; what is not stated stays unknown.

        Args:
            name: Whose.
            layers: `[n, d]` arrays (numpy or torch), numbered from 0; their hook point is "".
            language: Language of the sentences, if known.
            names: Name of each row; their numbers if left out.
            documents: Document of each row.
            covariates: Name -> `[n]`, properties of each row.

        Raises:
            InputError: No layer, a layer that is not `[n, d]`, or another number of rows.

        Example:
            >>> len(Activations.from_arrays("m", [np.zeros((3, 4)), np.ones((3, 2))]))
            3
        """
        arrays = [np.asarray(layer.detach().float().cpu() if hasattr(layer, "detach") else layer)
                  for layer in layers]  # fmt: skip
        shapes = [list(array.shape) for array in arrays]
        if not arrays or any(array.ndim != 2 for array in arrays):
            raise InputError(
                f"'{name}' needs layers of shape [rows, units], got {shapes}",
                hint=f"{{'{name}': [layer_0, layer_1]}}",
            )
        n = len(arrays[0])
        columns = {
            "names": names,
            "documents": documents if len(documents) else None,
            **(covariates or {}),
        }
        lengths = {what: len(given) for what, given in columns.items() if given is not None}
        lengths |= {f"layer {i}": len(array) for i, array in enumerate(arrays)}
        for what, length in lengths.items():
            if length != n:
                raise InputError(f"'{name}' has {n} rows in layer 0 and {length} in {what}")
        return cls(
            model=ModelRef(name, ""),
            language=language,
            ids=tuple(names if names is not None else map(str, range(n))),
            layers={"": tuple(range(len(arrays)))},
            pooling="mean",
            corpus_hash="",
            source=ArraysInMemory({("", i): array for i, array in enumerate(arrays)}),
            covariates={key: np.asarray(v, np.float64) for key, v in (covariates or {}).items()},
            documents=tuple(map(str, documents)),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def points(self) -> tuple[str, ...]:
        """Hook points that were extracted."""
        return tuple(self.layers)

    def array(self, point: str = "resid", layer: int = -1) -> np.ndarray:
        """Read one `[n, d]` float32 array; `layer=-1` means the last."""
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

    def describe(self) -> dict[str, Any]:
        """What there is of which model."""
        return {
            "model": self.model.name,
            "language": self.language,
            "sentences": len(self.ids),
            "documents": len(set(self.documents)) or None,
            "layers": [f"{point} {layer}".strip() for point in self.layers
                       for layer in self.layers[point]],
            "pooling": self.pooling,
        }  # fmt: skip
