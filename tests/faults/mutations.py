"""Changes to documents and texts, drawn at random: structure, values, bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

#: Values that stand where others are expected.
ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 0.5, -0.5, 1.5, 1e-300, 1e308, 10**6, 10**9, 10**30,
    int("9" * 300), float("nan"), float("inf"), "", " ", "x", "x" * 5000, "\u0000", "../../x",
    "/etc/passwd", "a\nb", "<script>alert(1)</script>", "| a | b |", "💥\u202e", "nan", "1e3", "-",
    [], {}, [[]], [None], [1, "a"], {"a": {"b": {}}}, ["eng_Latn"] * 3, "eng_Latn", "float8",
    [0, 4], [-4, 4], [4, 0], ["0", "4"], [0, 10**18],
)  # fmt: skip


def changed_document(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A JSON or YAML document with one value, key or byte changed."""
    if rng.random() < 0.25:
        return changed_text(data, rng)
    document = _read(data)
    if document is None:
        return changed_text(data, rng)
    document = copy.deepcopy(document)
    places = list(_places(document))
    if not places:
        return changed_text(data, rng)
    holder, key, name = places[int(rng.integers(len(places)))]
    way = str(rng.choice(["replace", "replace", "replace", "scale", "delete", "rename", "nest"]))
    if way == "scale" and isinstance(holder[key], int | float):
        factor = float(rng.choice([-1, 0.5, 2, 1000]))
        holder[key] = type(holder[key])(holder[key] * factor)
        what = f"{name} = {holder[key]}"
    elif way == "delete":
        del holder[key]
        what = f"no {name}"
    elif way == "rename" and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
        what = f"{name} renamed"
    elif way == "nest":
        levels = int(rng.choice([3, 60, 3000]))
        return _nested(document, holder, key, levels), f"{name} {levels} levels deep"
    else:
        holder[key] = ODD[int(rng.integers(len(ODD)))]
        what = f"{name} = {holder[key]!r:.60}"
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"), what


def _read(data: bytes) -> Any:
    import yaml

    try:
        return json.loads(data)
    except ValueError:
        return yaml.safe_load(data)


def _places(document: Any, name: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every value with what holds it, up to a few of long lists."""
    if isinstance(document, dict):
        items: Any = list(document.items())[:200]
    elif isinstance(document, list):
        items = list(enumerate(document))[:5]
    else:
        return
    for key, value in items:
        where = f"{name}.{key}" if name else str(key)
        yield document, key, where
        yield from _places(value, where)


def _nested(document: Any, holder: Any, key: Any, levels: int) -> bytes:
    holder[key] = "HERE"
    text = json.dumps(document, ensure_ascii=False)
    return text.replace('"HERE"', "[" * levels + "]" * levels, 1).encode()


def changed_text(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Bytes with a wound."""
    at = int(rng.integers(len(data))) if data else 0
    ways = {
        "truncated": lambda: data[:at],
        "byte flipped": lambda: data[:at] + bytes([data[at] ^ 128]) + data[at + 1 :],
        "NUL put in": lambda: data[:at] + b"\x00" + data[at:],
        "latin-1 put in": lambda: data[:at] + b"\xe9\xff" + data[at:],
        "empty": lambda: b"",
        "byte order mark": lambda: b"\xef\xbb\xbf" + data,
        "utf-16": lambda: data.decode("utf-8", "replace").encode("utf-16"),
        "carriage returns": lambda: data.replace(b"\n", b"\r\n"),
        "tabs and quotes": lambda: data[:at] + b'\t"\t' + data[at:],
        "lines doubled": lambda: data + data,
        "lines shuffled": lambda: b"\n".join(rng.permutation(np.array(data.split(b"\n"), object))),
        "a long line": lambda: data[:at] + b"x" * 300_000 + data[at:],
        "deep": lambda: b"[" * 5000,
        "white space": lambda: b" \n\t\n" * 20,
        "random": lambda: rng.bytes(200),
        "digits": lambda: data[:at] + b"9" * 5000 + data[at:],
        "nan": lambda: data.replace(b"0", b"nan", 1),
    }
    way = list(ways)[int(rng.integers(len(ways)))]
    try:
        return ways[way](), f"{way} at {at}"
    except IndexError:
        return b"", "empty"
