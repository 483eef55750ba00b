"""Text files, plain or compressed, read strictly: what is wrong is named by file and line."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from pathlib import Path

from repsim.core.errors import InputError

#: Suffixes of compressed files that are read.
COMPRESSED = (".gz", ".xz", ".bz2")

# C0 and C1 controls but tab and newline: no text holds them, damaged or wrongly decoded files do.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def stem(path: Path) -> str:
    """File name without its compression suffix."""
    return path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path.name


def read_bytes(path: Path) -> bytes:
    """Contents of a file, decompressed by its suffix."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"file '{path}' does not exist") from None
    except IsADirectoryError:
        raise InputError(f"'{path}' is a folder, not a file") from None
    except PermissionError:
        raise InputError(f"file '{path}' may not be read (permission denied)") from None
    decompress = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
    if path.suffix not in decompress:
        return data
    try:
        return decompress[path.suffix](data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"file '{path}' is damaged or not {path.suffix[1:]}: {error}",
            hint="it may have been cut off while it was copied",
        ) from None


def read_lines(path: Path) -> list[str]:
    r"""Lines of a UTF-8 text file, without their ends (`\n`, `\r\n`) and byte order mark."""
    data = read_bytes(path)
    text = _decode(data, path)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    if _CONTROL.search(text.replace("\r\n", "\n")):
        _refuse_control(lines, path)
    return lines


def _decode(data: bytes, path: Path) -> str:
    if data.startswith(_UTF16_MARKS):
        raise InputError(
            f"file '{path}' is UTF-16, not UTF-8",
            hint=f"convert it: iconv -f UTF-16 -t UTF-8 '{path.name}'",
        )
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"file '{path}', line {line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset "
            f"{error.start})",
            hint="if it is Latin-1 or Windows-1252, convert it: "
            f"iconv -f WINDOWS-1252 -t UTF-8 '{path.name}'",
        ) from None


def _refuse_control(lines: list[str], path: Path) -> None:
    for number, line in enumerate(lines, start=1):
        check_control(line, f"file '{path}', line {number}")


def check_control(text: str, place: str) -> None:
    """Refuse a control character other than tab and newline."""
    found = _CONTROL.search(text)
    if found is None:
        return
    code = ord(found[0])
    hints = {
        0x00: "NUL bytes come from UTF-16 or from a binary file",
        0x0D: "a carriage return inside a line; lines end with \\n or \\r\\n",
    }
    hint = "C1 controls come from text decoded as Latin-1" if code >= 0x80 else "remove it"
    raise InputError(
        f"{place}, column {found.start() + 1}: control character U+{code:04X}",
        hint=hints.get(code, hint),
    )
