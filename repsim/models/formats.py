"""What a user may hold beside a folder of safetensors, and how its weights are read.

A further format is one line of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.models.adapters import CONFIG, AdaptedWeights, Base, adapter_files, write_adapter_view
from repsim.models.gguf import GgufWeights, find_gguf, stem_of, write_gguf_view
from repsim.models.headers import TensorHeader, weight_files
from repsim.models.in_memory import KIND, MemoryWeights
from repsim.models.quantised import QuantisedWeights, is_quantised, write_quantised_view
from repsim.models.stored import StoredWeights, Weights
from repsim.models.views import VIEW, read_view, view_folder

if TYPE_CHECKING:
    import torch


#: Kind of a view -> what reads its weights, given its document and what opens other folders.
KINDS: dict[str, Callable[[Mapping[str, Any], Callable[[Path], Weights]], Weights]] = {
    "gguf": lambda document, _: GgufWeights(document),
    "adapter": AdaptedWeights,
    "quantised": lambda document, _: QuantisedWeights(document),
    KIND: lambda document, _: MemoryWeights(document),
}


def held_folder(path: Path) -> Path | None:
    """The folder that stands for a file or folder; None if it is none of the formats known here."""
    if files := find_gguf(path):
        name = stem_of(path) if path.is_file() else path.resolve().name
        return view_folder(name, "gguf", files, lambda folder: write_gguf_view(files, folder))
    if is_quantised(path) and not (path / VIEW).is_file():
        return view_folder(
            path.resolve().name, "quantised", weight_files(path),
            lambda folder: write_quantised_view(path, folder), beside=[path / "config.json"],
        )  # fmt: skip
    return None


def adapter_folder(base: Path, adapter: Path) -> Path:
    """The folder that stands for an adapter on a base; arguments and errors as in `held_folder`."""
    weights = open_weights(base)
    name = adapter.resolve().name
    if name == "adapter":  # as fine-tuning names it: its folder has the name
        name = f"{adapter.resolve().parent.name}-{name}"
    return view_folder(
        name, "adapter", [*weights.files, *adapter_files(adapter)],
        lambda folder: write_adapter_view(adapter, Base(base, weights), folder),
        beside=[base / "config.json", adapter / CONFIG],
    )  # fmt: skip


def derived_weights(folder: Path) -> Weights | None:
    """The weights of a view; None for a folder with safetensors of its own."""
    document = read_view(folder)
    return KINDS[document["kind"]](document, open_weights) if document else None


def open_weights(folder: Path) -> Weights:
    """The weights of a model folder or view."""
    return derived_weights(folder) or StoredWeights(weight_files(folder))


def folder_headers(folder: Path) -> dict[str, TensorHeader]:
    """Type and shape of every tensor of a model folder or view; errors as in `open_weights`."""
    return dict(open_weights(folder).headers)


class Lazy:
    """A tensor that is computed when `transformers` asks for it, as it asks of a slice on disk."""

    def __init__(self, weights: Weights, tensor: str) -> None:
        self._weights, self._tensor = weights, tensor

    def __getitem__(self, _: object) -> torch.Tensor:
        return self._weights.read(self._tensor)


def lazy_state(weights: Weights) -> dict[str, Lazy]:
    """A state dict for `from_pretrained(None, state_dict=...)` that holds no tensor."""
    return {name: Lazy(weights, name) for name in weights.headers}
