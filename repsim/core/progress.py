"""One progress line on stderr, with rate and time left; silent where nobody is watching."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Bar(Protocol):
    """The part of a progress bar that work needs."""

    def update(self, n: float = 1) -> Any:
        """Advance by `n`."""
        ...

    def set_postfix_str(self, text: str) -> Any:
        """Show a short text after the bar."""
        ...


def wanted() -> bool:
    """Whether to draw: stderr is a terminal, and neither `REPSIM_QUIET` nor `CI` is set."""
    quiet = os.environ.get("REPSIM_QUIET") or os.environ.get("CI")
    return not quiet and sys.stderr.isatty()


@contextmanager
def progress(description: str, total: float | None = None, unit: str = "it") -> Iterator[Bar]:
    """A bar for work that reports its own advance."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=total is not None and total >= 1e6,
        disable=not wanted(),
        dynamic_ncols=True,
        smoothing=0.1,
        leave=False,
    ) as bar:
        yield bar


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar."""
    count = total if total is not None else (len(items) if isinstance(items, Sized) else None)
    with progress(description, total=count) as bar:
        for item in items:
            yield item
            bar.update()


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
