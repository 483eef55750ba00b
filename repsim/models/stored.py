"""Tensors of a model by name, read one at a time, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from repsim.models.headers import TensorHeader, read_layouts

if TYPE_CHECKING:
    import torch


class Weights(Protocol):
    """Weights under the names of `transformers`; some are computed when they are read."""

    @property
    def files(self) -> list[Path]:
        """The files that they are in, or are computed from."""
        ...

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Type and shape of every tensor."""
        ...

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor, contiguous, of the type that its header states."""
        ...


class StoredWeights:
    """Weights in safetensors files, quantised types among them."""

    def __init__(self, files: Sequence[Path]) -> None:
        layouts = read_layouts(files)
        self.files = list(files)
        self.headers = {name: stored.header for name, (_, stored) in layouts.items()}
        self._files = {name: file for name, (file, _) in layouts.items()}

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor as it is stored."""
        from safetensors import safe_open

        with safe_open(self._files[tensor], framework="pt") as file:
            found: torch.Tensor = file.get_tensor(tensor)
        return found
