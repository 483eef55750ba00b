"""One limit of memory, set while a unit of a sweep is computed; what is large takes its share."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

#: Bytes of layers, as they come from memory or disk, above which they are not all held.
HELD_BYTES = 2 << 30

_held = contextvars.ContextVar("bytes of layers that are held", default=HELD_BYTES)


def held_bytes() -> int:
    """Bytes of layers above which they are read again instead of held."""
    return _held.get()


def share(most: int) -> int:
    """What is left of `most` bytes or numbers, which go with `HELD_BYTES`, where less is held."""
    return most * min(held_bytes(), HELD_BYTES) // HELD_BYTES


@contextlib.contextmanager
def holding(most: int) -> Iterator[None]:
    """Hold at most so many bytes of layers inside."""
    token = _held.set(most)
    try:
        yield
    finally:
        _held.reset(token)
