"""Does config.json describe the weights beside it? Told from headers, before anything is built.

`transformers` loads a config of one layer beside weights of four without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch import ArchSpec
from repsim.models.headers import TensorHeader

Headers = Mapping[str, TensorHeader]

#: What a config may state of sizes at most, whatever the weights: more is built by no machine, and
#: lists of such lengths are built while a config is read.
MOST_LAYERS, MOST_ENTRIES = 2_000, 1 << 31
_LAYERS = re.compile(r"(^n_?|(?<!feature)_|^num_?)(layers?|blocks)$")  # not: which layer is read
_SIZES = re.compile(
    r"^(vocab_size|num_labels|d_\w+|n_(embd|inner|positions|head)|dim)$|(_size|_dim|_heads)$"
)
_NUMBERED = re.compile(r"^(?:.*\.)?(?:layers|layer|h|blocks|block)\.(\d+)\.")
_TOKENS = re.compile(
    r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|embeddings|shared)\.weight$"
)


class _Stated(SimpleNamespace):
    """A raw config as specs read one: what it does not state is None."""

    def __getattr__(self, name: str) -> Any:
        return None


def shortest(value: float) -> float:
    """The shortest decimal of the same float32: 1e-06 for 9.999999974752427e-07."""
    return float(str(np.float32(value)))


def stated(document: Mapping[str, Any]) -> Any:
    """A config.json as an object, without the defaults of its family."""
    return _Stated(**{str(key): value for key, value in document.items()})


def beyond_measure(document: Mapping[str, Any], depth: int = 0) -> str | None:
    """Why a config cannot even be read; None if it can."""
    named = [] if depth else document.get("architectures")
    listed = isinstance(named, list) and all(isinstance(name, str) for name in named)
    if named is not None and not listed:
        return "architectures is not a list of names"
    for key, value in document.items():
        is_size = bool(_LAYERS.search(key) or _SIZES.search(key))
        if not depth and is_size and isinstance(value, str | dict):
            return f"{key} is {str(value)[:40]!r}, not a number"
        inner = value if isinstance(value, Mapping) and depth < 4 else {}
        if reason := beyond_measure(inner, depth + 1):
            return reason
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        most = MOST_LAYERS if _LAYERS.search(key) else MOST_ENTRIES if _SIZES.search(key) else 1e30
        if not abs(value) <= most:
            return f"{key} is {_short(value)}, more than any model has"
        if value < 0 and is_size:
            return f"{key} is {_short(value)}"
    return None


def _short(value: float) -> str:
    return str(value) if abs(value) < 10**40 else "a number of more than 40 digits"


def contradictions(config: Any, spec: ArchSpec, headers: Headers) -> list[str]:
    """What a config says otherwise than the weights, in words, at most one finding per kind."""
    if getattr(config, "text_config", None) is not None:
        return []  # several models in one; transformers compares them when it loads them
    if getattr(config, "quantization_config", None) is not None:
        return []  # packed: shapes are those of no layer
    checks = (_types, _blocks, _vocabulary, _sizes)
    return [found for check in checks if (found := check(config, spec, headers))]


def _types(config: Any, spec: ArchSpec, headers: Headers) -> str | None:
    for name, header in headers.items():
        whole = header.dtype not in ("F64", "F32", "F16", "BF16")
        if whole and len(header.shape) == 2 and name.endswith(".weight"):
            return f"it states no quantisation, and '{name}' is stored as {header.dtype}"
    return None


def block_number(name: str, spec: ArchSpec) -> int | None:
    """The block that a tensor belongs to; None if it is in no block of the family's."""
    if not spec.blocks:
        match = _NUMBERED.match(name)
        return int(match[1]) if match else None
    path = f"{spec.body_path}.{spec.blocks}.".lstrip(".")
    before, inside, after = name.partition(path)
    number = after.partition(".")[0]
    return int(number) if inside and before in _starts(spec) and number.isdecimal() else None


def _starts(spec: ArchSpec) -> tuple[str, ...]:
    """What the names of a base model's tensors start with: saved without its head, or with it."""
    return ("", f"{spec.prefix}.") if spec.prefix else ("",)


def _blocks(config: Any, spec: ArchSpec, headers: Headers) -> str | None:
    found = {number for name in headers if (number := block_number(name, spec)) is not None}
    try:
        said = spec.n_layers(config)
    except (IncompatibleModelsError, TypeError, ValueError):
        return "it does not state how many blocks it has" if found else None
    # Blocks that predict later tokens are published, and left out when transformers saves a model.
    more = int(getattr(config, "num_nextn_predict_layers", None) or 0)
    if not found or (getattr(config, "is_encoder_decoder", False) and not spec.blocks):
        return None
    held = max(found) + 1
    if len(found) < held:
        return f"its blocks are numbered to {held - 1}, and the weights hold {len(found)} of them"
    if held in (said, said + more) or (not spec.blocks and held < said):  # some share blocks
        return None
    return f"it states {said} block{'s' if said != 1 else ''}, and the weights hold {held}"


def _vocabulary(config: Any, spec: ArchSpec, headers: Headers) -> str | None:
    said = getattr(config, "vocab_size", None)
    tokens = {n: h for n, h in headers.items() if _TOKENS.search(n) and len(h.shape) == 2}
    if said is None:
        return "it does not state how many tokens it has" if tokens else None
    if not isinstance(said, int) or isinstance(said, bool):
        return f"its vocab_size is {str(said)[:40]!r}, not a whole number"
    for name, header in tokens.items():
        if header.shape[0] != said:
            return f"it states {said:,} tokens, and '{name}' has {header.shape[0]:,} rows"
    return None


def _sizes(config: Any, spec: ArchSpec, headers: Headers) -> str | None:
    for name, shapes in _expected(config, spec):
        for start in _starts(spec):
            header = headers.get(start + name)
            if header is not None and not any(_fits(header.shape, shape) for shape in shapes):
                said = " or ".join(str(_shown(shape)) for shape in shapes)
                return f"by its sizes '{start + name}' is {said}, and it is {list(header.shape)}"
    return None


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(
        size is None or size == have for size, have in zip(expected, found, strict=True)
    )


def _shown(shape: tuple[int | None, ...]) -> list[Any]:
    return ["any" if size is None else size for size in shape]


def _expected(config: Any, spec: ArchSpec) -> Iterator[tuple[str, list[tuple[int | None, ...]]]]:
    """Names of tensors and the shapes that the config's sizes give them."""
    try:
        sizes = spec.sizes(config)
        known = {**sizes, "resid_out": sizes["resid"], "entry": None, "tap": None, "1": 1}
        if spec.n_layers(config) > MOST_LAYERS or spec.why_unalignable(config):
            return
        weights = spec.stored_weights(config)
    except (IncompatibleModelsError, TypeError, ValueError, ArithmeticError):
        return
    for weight in weights:
        if weight.tensor[0] != "/":
            yield weight.tensor, _shapes(weight.stored, {**known, "part": len(weight.roles)})


def _shapes(stored: str, sizes: Mapping[str, int | None]) -> list[tuple[int | None, ...]]:
    """Shapes of a tensor that holds one weight, or several behind one another along one axis."""
    parts = [_shape(part, sizes) for part in re.split(r" [|+] ", stored)]
    if len(parts) == 1:
        return parts
    if " + " in stored:  # inside each head, whose number is the first axis of each
        rows = sum(part[1] or 0 for part in parts)
        return [((parts[0][0] or 0) * rows, *parts[0][2:])]
    joined = []
    for axis in range(len(parts[0])):
        shape = list(parts[0])
        shape[axis] = sum(part[axis] or 0 for part in parts)
        joined.append(tuple(shape))
    return joined


def _shape(pattern: str, sizes: Mapping[str, int | None]) -> tuple[int | None, ...]:
    """Lengths of the axes of an einops pattern."""
    groups = re.findall(r"\(([^)]*)\)|(\S+)", pattern)
    found: list[int | None] = []
    for several, one in groups:
        lengths = [sizes[name] for name in (several or one).split()]
        whole = [length for length in lengths if length is not None]
        found.append(math.prod(whole) if len(whole) == len(lengths) else None)
    return tuple(found)
