"""What a model may ask of the machine: memory for its weights, and text that a tokenizer makes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError
from repsim.core.machine import memory_left
from repsim.models.headers import BITS, TensorHeader

#: Characters that a normaliser may make of one at most: real ones make up to three.
MOST_EXPANSION = 64


def require_memory(name: str, headers: Iterable[TensorHeader], bits: int | None) -> None:
    """Refuse a model whose weights do not fit into memory, before any of them is read."""
    needed = sum(math.prod(h.shape) * (bits or BITS[h.dtype]) // 8 for h in headers)
    require_bytes(f"model '{name}'", needed, "load it as bfloat16, or on a larger machine")


def require_bytes(what: str, needed: int, hint: str) -> None:
    """Refuse what needs more memory than is left, before it is taken."""
    if needed > (left := memory_left()):
        need = f"{what} needs {needed / 1e9:.1f} GB of memory, {left / 1e9:.1f} GB are left"
        raise ResourceError(need, hint=hint)


def check_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Refuse a tokenizer that multiplies its input: a page of text would fill the memory."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normaliser = getattr(backend, "normalizer", None)
    if normaliser is None:
        return
    times = expansion(json.loads(normaliser.__getstate__()))
    if times > MOST_EXPANSION:
        raise InputError(
            f"the tokenizer in '{folder}' makes up to {times:.0e} characters of one",
            hint="its normalizer is damaged: copy or download tokenizer.json again",
        )


def expansion(normaliser: Any) -> float:
    """Characters that a normaliser makes of one at most, from what it says that it puts in."""
    if not isinstance(normaliser, Mapping):
        return 1.0
    if normaliser.get("type") == "Sequence":
        return math.prod(map(expansion, normaliser.get("normalizers", ())))
    added = len(normaliser.get("prepend", "")) + len(normaliser.get("content", ""))
    pattern = normaliser.get("pattern")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    if text:
        return max(1.0, added / len(text))
    return max(1.0, 1.0 + added if pattern is None else float(added))


def check_ids(highest: int, rows: int | None, name: str) -> None:
    """Refuse a token that a model has no row for: on a GPU it would end the process."""
    if rows is not None and highest >= rows:
        raise InputError(
            f"the tokenizer of model '{name}' gives token {highest}, and its embedding has "
            f"{rows} rows",
            hint="the tokenizer is of another model: copy the right one into the folder",
        )


def embedding_rows(model: Any) -> int | None:
    """Rows of a model's token embedding; None if it does not say which that is."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    return int(weight.shape[0])
