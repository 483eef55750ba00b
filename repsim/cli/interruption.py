"""What an interrupted command leaves behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from repsim.core.files import cache_folder

_OUT = ("-o", "--out")


def kept_since(start: float, arguments: Sequence[str]) -> list[Path]:
    """Folders that a command has stored something in since a time: results, merges, caches."""
    return [folder for folder in _candidates(arguments) if _has_newer(folder, start)]


def _candidates(arguments: Sequence[str]) -> Iterator[Path]:
    words = [word for word in arguments[1:] if not word.startswith("-")]
    for option, value in itertools.pairwise(arguments):
        if option in _OUT:
            yield Path(value)
    for word in arguments:
        if word.startswith("--out="):
            yield Path(word.partition("=")[2])
    if arguments[:1] == ["merge"]:
        yield from (Path(word).with_name(f".{Path(word).name}.merging") for word in words
                    if Path(word).name)  # fmt: skip
    yield cache_folder() / "activations"


def _has_newer(folder: Path, start: float) -> bool:
    """Whether a file was finished there; those in the making have names that begin with a dot."""
    try:
        return any(
            path.is_file() and not path.name.startswith(".") and path.stat().st_mtime >= start
            for path in folder.rglob("*")
        )
    except OSError:
        return False
