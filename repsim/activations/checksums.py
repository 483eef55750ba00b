"""Checksums (CRC-32) of stored arrays: written with a file, compared once when it is opened."""

from __future__ import annotations

import functools
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from repsim.core.errors import InputError
from repsim.core.files import file_mark
from repsim.models.headers import read_layout

#: Entry of the header; beside the arrays it has a sum of the header itself.
KEY, HEADER = "checksums", "header"
#: Entry of the header: what the file was made for, so that no other one is taken for it.
MADE_FOR = "made_for"
#: Bytes that are read at once.
READ = 1 << 18
#: A sum inside a header, where it is JSON in JSON.
_SUM, _BLANK = re.compile(rb'\\"[0-9a-f]{8}\\"'), b'\\\\"00000000\\\\"'


def blank(keys: Any) -> dict[str, str]:
    """Sums that are not known yet: as long as those that replace them."""
    return dict.fromkeys([HEADER, *keys], "0" * 8)


def of_bytes(data: Any, before: int = 0) -> int:
    """CRC-32 of some bytes, behind others."""
    return zlib.crc32(data, before)


def of_file(handle: BinaryIO, start: int, end: int) -> str:
    """CRC-32 of a range of a file."""
    handle.seek(start)
    found, left = 0, end - start
    buffer = memoryview(bytearray(min(READ, left)))
    while left > 0 and (got := handle.readinto(buffer[:left])):  # type: ignore[attr-defined]
        found, left = of_bytes(buffer[:got], found), left - got
    return f"{found:08x}"


def of_header(text: bytes) -> str:
    """CRC-32 of a header, whatever sums it states."""
    return f"{of_bytes(_SUM.sub(_BLANK, text)):08x}"


def is_whole(path: Path) -> bool:
    """Whether a file is there and no byte of it has changed since it was written."""
    try:
        verify(path)
    except InputError:
        return False
    return True


def verify(path: Path, made_for: str = "") -> None:
    """Compare the arrays of a file with its checksums, once as long as the file does not change."""
    try:
        mark = file_mark(path)
    except OSError as error:
        raise InputError(f"activations file '{path}' is missing: {error.strerror}") from None
    if reason := _damage(path, mark, made_for):
        raise InputError(f"activations file '{path}' is damaged: {reason}")


@functools.lru_cache(maxsize=4096)
def _damage(path: Path, mark: tuple[int, ...], made_for: str) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        layout = read_layout(path)
        with path.open("rb") as handle:
            text = handle.read(8)
            text = handle.read(int.from_bytes(text, "little"))
            metadata = json.loads(text)["__metadata__"]
            if made_for and metadata.get(MADE_FOR) != made_for:
                return "it holds what another model, language or text gave"
            stated = json.loads(metadata[KEY])
            if not isinstance(stated, Mapping) or stated.keys() - {HEADER} != layout.keys():
                return "its checksums are of other arrays"
            if stated.get(HEADER, of_header(text)) != of_header(text):
                return "the checksum of its header is wrong"
            for key, stored in layout.items():
                if of_file(handle, stored.start, stored.end) != stated[key]:
                    return f"the checksum of '{key}' is wrong"
    except InputError as error:
        return error.what
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return "it has no checksums"
    return ""
