"""An existing model that a family starts from: any causal model that transformers builds."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.core.files import read_json
from repsim.core.model_ref import ModelRef
from repsim.models.formats import folder_headers
from repsim.models.inspect import PROVENANCE_FILE, describe, locate, read_config
from repsim.models.views import copy_tokenizer

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Parent:
    """The model of `init_from`, found and checked; its weights are not in memory."""

    ref: ModelRef
    folder: Path
    config: Any
    dtype: str
    history: dict[str, Any]

    @property
    def origin(self) -> str:
        """Hash of the weights at the root: models of one origin share initial weights."""
        found: dict[str, Any] = self.history.get("init_from") or {}
        return str(found.get("origin") or self.ref.weights_hash)

    @property
    def step(self) -> int:
        """Step at which its own history ends, 0 if that is not known."""
        phases = self.history.get("history")
        return int(phases[-1]["last_step"]) if phases else 0

    @property
    def tokens(self) -> int | None:
        """Tokens that it has read, if it states its history."""
        tokens = self.history.get("tokens")
        return int(tokens) if self.history.get("history") and tokens is not None else None

    def stated(self) -> dict[str, Any]:
        """What the provenance of a model that starts from it says; no path, for folders move."""
        return {
            "name": self.ref.name,
            "revision": self.ref.revision,
            "weights_hash": self.ref.weights_hash,
            "origin": self.origin,
        }

    def load(self) -> nn.Module:
        """The model with its head, float32, on the CPU, ready to be trained."""
        from repsim.models.load import load_weights

        model = load_weights(self.folder, self.config, "AutoModelForCausalLM", "float32")
        return model.float().requires_grad_(True).train()

    def copy_tokenizer(self, target: Path) -> None:
        """The tokenizer's files as they are, with chat template and generation settings."""
        copy_tokenizer(self.folder, target)


def open_parent(init_from: str, *, allow_network: bool = False) -> Parent:
    """Find the model of `init_from` ("@revision" behind a hub id)."""
    return _open(init_from, allow_network)


@functools.lru_cache(maxsize=4)
def _open(name: str, allow_network: bool) -> Parent:
    located = locate(name, allow_network=allow_network)
    config, spec = read_config(located.folder, generic=True)
    if not spec.decoder:
        raise IncompatibleModelsError(
            f"model '{located.name}' ({config.model_type}) does not predict the next token",
            hint="training needs a causal language model",
        )
    provenance = located.folder / PROVENANCE_FILE
    headers = folder_headers(located.folder)
    kinds = {header.dtype for header in headers.values()}
    return Parent(
        ref=describe(located, config, spec),
        folder=located.folder,
        config=config,
        dtype="bfloat16" if kinds == {"BF16"} else "float32",
        history=read_json(provenance) if provenance.is_file() else {},
    )


def check_names(parent: Parent, model: nn.Module) -> None:
    """Refuse a model whose tensors bear other names on disk than in memory."""
    stored = folder_headers(parent.folder).keys()
    unknown = [name for name, _ in model.named_parameters() if name not in stored]
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    unknown = [name for name in unknown if name not in tied]
    if unknown:
        raise IncompatibleModelsError(
            f"transformers keeps '{parent.ref.name}' under other names in memory than on disk "
            f"('{unknown[0]}' is not in its files)",
            hint="save it once with this version of transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )


def longest_context(parent: Parent) -> int | None:
    """Tokens that the model takes, where it states that."""
    found = getattr(parent.config, "max_position_embeddings", None)
    return int(found) if found else None


def check_context(parent: Parent, context: int) -> None:
    """Refuse windows that are longer than the model takes."""
    longest = longest_context(parent)
    if longest and context > longest:
        raise UsageError(
            f"model '{parent.ref.name}' takes {longest} tokens, not a context of {context}",
            hint="choose a smaller context",
        )
