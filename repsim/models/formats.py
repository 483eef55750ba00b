"""What a user may hold beside a folder of safetensors, and how its weights are read.

`held_folder` gives the folder that stands for a file or folder (see `views`); `derived_weights`
reads the weights of such a folder, one tensor at a time. A further format is one line of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from repsim.models.gguf import GgufWeights, find_gguf, write_gguf_view
from repsim.models.headers import TensorHeader, read_headers, weight_files
from repsim.models.views import read_view, view_folder

if TYPE_CHECKING:
    import torch


class DerivedWeights(Protocol):
    """Weights that are computed when they are read, under the names of `transformers`."""

    @property
    def files(self) -> list[Path]:
        """The files that they are computed from."""
        ...

    @property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Type and shape of every tensor."""
        ...

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor, contiguous, of the type that its header states."""
        ...


#: Kind of a view -> what reads its weights.
KINDS: dict[str, Callable[[Mapping[str, Any]], DerivedWeights]] = {"gguf": GgufWeights}


def held_folder(path: Path, label: str | None = None) -> Path | None:
    """The folder that stands for a file or folder; None if it is none of the formats known here.

    Args:
        path: What the user named.
        label: What the model is called; the name of the path by default.

    Raises:
        InputError: It is damaged or incomplete.
        IncompatibleModelsError: Its family, or the way that it is packed, cannot be read.
    """
    if (file := find_gguf(path)) is not None:
        name = label or (file.stem if path.is_file() else path.resolve().name)
        return view_folder(name, "gguf", [file], lambda folder: write_gguf_view(file, folder))
    return None


def derived_weights(folder: Path) -> DerivedWeights | None:
    """The weights of a view; None for a folder with safetensors of its own."""
    document = read_view(folder)
    return KINDS[document["kind"]](document) if document else None


def folder_headers(folder: Path) -> dict[str, TensorHeader]:
    """Type and shape of every tensor of a model folder or view.

    Raises:
        InputError: The weights are missing or damaged.
    """
    derived = derived_weights(folder)
    return dict(derived.headers) if derived else read_headers(weight_files(folder))


class Lazy:
    """A tensor that is computed when `transformers` asks for it, as it asks of a slice on disk."""

    def __init__(self, weights: DerivedWeights, tensor: str) -> None:
        self._weights, self._tensor = weights, tensor

    def __getitem__(self, _: object) -> torch.Tensor:
        return self._weights.read(self._tensor)


def lazy_state(weights: DerivedWeights) -> dict[str, Lazy]:
    """A state dict for `from_pretrained(None, state_dict=...)` that holds no tensor."""
    return {name: Lazy(weights, name) for name in weights.headers}
