"""What a model may ask of the machine: memory for its weights, and text that a tokenizer makes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError
from repsim.models.headers import BITS, TensorHeader

#: Characters that a normaliser may make of one at most: real ones make up to three.
MOST_EXPANSION = 64


def memory_left() -> int:
    """Bytes that this process may still take: of the machine, its container and `ulimit -v`."""
    found = [_free()]
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int((group / limit).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):  # no such container, or no limit ("max")
            continue
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(most - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError):
        pass
    return max(0, min(found))


def _free() -> int:
    """Memory of the machine that is free or can be freed; without bound where it is not told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(told.get("MemAvailable", "4611686018427387 kB").split()[0]) * 1024


def require_memory(name: str, headers: Iterable[TensorHeader], bits: int | None) -> None:
    """Refuse a model whose weights do not fit into memory, before any of them is read.

    Args:
        name: The model.
        headers: Its tensors.
        bits: Of an entry in memory; as stored if None.

    Raises:
        ResourceError: More is needed than there is.
    """
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
    """Characters that a normaliser makes of one at most, from what it says that it puts in.

    Example:
        >>> once = {"type": "Replace", "pattern": {"String": "a"}, "content": "bbbb"}
        >>> expansion({"type": "Sequence", "normalizers": [once, once]})
        16.0
    """
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
    """Refuse a token that a model has no row for: on a GPU it would end the process.

    Raises:
        InputError: There is none.
    """
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
