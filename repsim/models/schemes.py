"""How quantised matrices are stored, and how each way unpacks: one scheme per way, in torch alone.

Each unpacks to float32 by its published rule, exactly. A further way is one entry of `SCHEMES`.

MXFP4: Open Compute Project, Microscaling Formats (MX) 1.0, 2023. LLM.int8: Dettmers et al. 2022,
arXiv:2208.07339. NF4 and double quantisation: Dettmers et al. 2023, arXiv:2305.14314. GPTQ: Frantar
et al. 2022, arXiv:2210.17323. AWQ: Lin et al. 2023, arXiv:2306.00978.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.models.headers import TensorHeader

if TYPE_CHECKING:
    import torch

    Headers = Mapping[str, TensorHeader]
    Parts = Mapping[str, torch.Tensor]
    Settings = Mapping[str, Any]

_SMALL = ("F8_E4M3", "F8_E5M2", "I8")


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One way to store a quantised matrix."""

    name: str  # What people call it
    mark: str  # Ending of the part that it is recognised by
    root: str  # What the parts' names begin with: it takes the place of `mark`
    target: str  # The same for the name of the unpacked tensor
    parts: tuple[str, ...]  # Endings of its parts behind the root; those with a "?" may be absent
    fits: Callable[[Headers], bool]  # Whether parts of these types and shapes are of this scheme
    #: Shape of the unpacked tensor, from types and shapes of its parts and what reads one.
    shape: Callable[[Headers, Callable[[str], torch.Tensor]], tuple[int, ...]]
    #: The unpacked tensor, float32, from its parts and the checkpoint's settings.
    unpack: Callable[[Parts, Settings], torch.Tensor]


def _expanded(scale: torch.Tensor, shape: torch.Size, settings: Settings) -> torch.Tensor:
    """Scales of a tensor, of its rows, of groups within rows or of blocks, as large as it is."""
    scale = scale.float()
    if scale.ndim < 2 or len(shape) < 2:
        rows = scale.numel() == shape[0] and scale.numel() > 1 and len(shape) > 1
        return scale.reshape(-1, 1) if rows else scale
    for axis in (-2, -1):
        size, count = shape[axis], scale.shape[axis]
        if count in (1, size):
            continue
        block = (settings.get("block") or [0, 0])[axis]
        if not block or math.ceil(size / block) != count:
            block = size // count
        if math.ceil(size / block) != count:
            raise InputError(f"scales {tuple(scale.shape)} do not fit weights {tuple(shape)}")
        scale = scale.repeat_interleave(block, axis).narrow(axis, 0, size)
    return scale


def _scaled(parts: Parts, settings: Settings) -> torch.Tensor:
    """(q - z) s: FP8 and int8 with a scale for all, for rows, groups or blocks."""
    q = parts[""].float()
    if "_zero_point" in parts:
        q = q - _expanded(parts["_zero_point"], q.shape, settings)
    scale = parts.get("_scale_inv", parts.get("_scale"))
    assert scale is not None
    return q * _expanded(scale, q.shape, settings)


def _unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The unsigned numbers in the words of the last axis, lowest bits first."""
    import torch

    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    found = (words[..., None] >> shifts) & ((1 << bits) - 1)
    return found.flatten(-2)


def _bits(entries: int, words: int) -> int:
    """Bits of an entry, of which some fill some words."""
    found = [bits for bits in (2, 4, 8) if math.ceil(entries * bits / 32) == words]
    if len(found) != 1:
        raise IncompatibleModelsError(
            f"{entries} numbers in {words} words are not of 2, 4 or 8 bits each",
            hint="other sizes are not unpacked here; take the unquantised model",
        )
    return found[0]


def _packed(parts: Parts, settings: Settings) -> torch.Tensor:
    """compressed-tensors, `pack-quantized`: integers of a row in words, with an offset."""
    rows, columns = (int(n) for n in parts["_shape"])
    bits = _bits(columns, parts["_packed"].shape[1])
    middle = 1 << (bits - 1)
    q = (_unpacked(parts["_packed"], bits)[:, :columns] - middle).float()
    scale = parts["_scale"].float()
    zero = parts.get("_zero_point")
    if zero is not None:
        zero = (_unpacked(zero.T.contiguous(), bits).T[:rows] - middle).float()
    if (groups := parts.get("_g_idx")) is not None and bool((groups >= 0).all()):
        scale = scale[:, groups.long()]
        zero = zero if zero is None else zero[:, groups.long()]
    if zero is not None:
        q = q - _expanded(zero, q.shape, settings)
    return q * _expanded(scale, q.shape, settings)


#: The numbers of four bits, sign last: FP4 e2m1.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def _e2m1(packed: torch.Tensor) -> torch.Tensor:
    """Two numbers e2m1 in each byte of the last axis, lower one first."""
    import torch

    levels = torch.tensor([*_E2M1, *(-value for value in _E2M1)])
    return levels[torch.stack([packed & 15, packed >> 4], -1).flatten(-2).int()]


def _fp4(parts: Parts, settings: Settings) -> torch.Tensor:
    """compressed-tensors, `nvfp4-pack-quantized`: FP4 times the scale of a group and one of all."""
    q, scale = _e2m1(parts["_packed"]), parts["_scale"].float() / parts["_global_scale"].float()
    return q * _expanded(scale, q.shape, settings)


def _mxfp4(parts: Parts, settings: Settings) -> torch.Tensor:
    """MXFP4 of GPT-OSS: FP4 times a power of two for each group of an expert's columns."""
    import torch

    q = _e2m1(parts["_blocks"])
    exponent = parts["_scales"].int().unsqueeze(-1) - 127
    return torch.ldexp(q, exponent).flatten(-2).transpose(-2, -1)


def _bnb_state(parts: Parts) -> dict[str, Any]:
    """The JSON that bitsandbytes keeps in a tensor of bytes."""
    found = next(value for key, value in parts.items() if "quant_state" in key)
    state: dict[str, Any] = json.loads(bytes(found.tolist()))
    return state


def _bnb_4bit(parts: Parts, settings: Settings) -> torch.Tensor:
    """bitsandbytes, NF4 or FP4: a table of 16 numbers, times the largest one of each block."""
    import torch

    state, packed = _bnb_state(parts), parts[""].flatten().long()
    largest = parts[".absmax"]
    if ".nested_absmax" in parts:
        inner = parts[".nested_quant_map"].float()[largest.long()]
        outer = parts[".nested_absmax"].float().repeat_interleave(int(state["nested_blocksize"]))
        largest = inner * outer[: len(inner)] + float(state["nested_offset"])
    shape = tuple(int(n) for n in state["shape"])
    levels = parts[".quant_map"].float()
    q = levels[torch.stack([packed >> 4, packed & 15], -1).flatten()][: math.prod(shape)]
    scale = largest.float().repeat_interleave(int(state["blocksize"]))[: len(q)]
    return (q * scale).reshape(shape)


def _gptq(parts: Parts, settings: Settings) -> torch.Tensor:
    """GPTQ: integers of a column in words, a scale and a zero point for each group of rows."""
    import torch

    words, scale = parts[".qweight"], parts[".scales"].float()
    rows = len(parts[".g_idx"])
    bits = _bits(rows, words.shape[0])
    q = _unpacked(words.T.contiguous(), bits).T[:rows]
    zero = _unpacked(parts[".qzeros"], bits)[:, : scale.shape[1]]
    if settings.get("checkpoint_format") != "gptq_v2":
        zero = (zero + 1) & ((1 << bits) - 1)
    groups = parts[".g_idx"].long()
    return ((q - zero[groups]) * scale[groups]).T.to(torch.float32)


#: Where AWQ puts the eight numbers of a word.
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _awq(parts: Parts, settings: Settings) -> torch.Tensor:
    """AWQ, `gemm`: integers of a row in words, interleaved, with scale and zero point by group."""
    import torch

    scale = parts[".scales"].float()

    def ordered(words: torch.Tensor) -> torch.Tensor:
        found = _unpacked(words, 4).unflatten(-1, (-1, 8))
        return found[..., list(_AWQ_ORDER)].flatten(-2)

    q, zero = ordered(parts[".qweight"]), ordered(parts[".qzeros"])
    group = len(q) // len(scale)
    q = q - zero.repeat_interleave(group, 0)
    return (q * scale.repeat_interleave(group, 0)).T.to(torch.float32)


def _same(parts: Headers, read: object) -> tuple[int, ...]:
    return parts[""].shape


def _experts(parts: Headers, read: object) -> tuple[int, ...]:
    """`[experts, input, output]` of `[experts, output, groups, bytes]`."""
    *experts, rows, groups, size = parts["_blocks"].shape
    return (*experts, groups * size * 2, rows)


def _columns_of(parts: Headers) -> bool:
    """Whether words of integers lie along the input, as in GPTQ, and not along the output."""
    return parts[".qweight"].shape[1] == parts[".scales"].shape[1]


#: The schemes, the more particular ones first.
SCHEMES: tuple[Scheme, ...] = (
    Scheme(
        "bitsandbytes 4-bit", ".weight.absmax", ".weight", ".weight",
        ("", ".absmax", ".quant_map", "?.nested_absmax", "?.nested_quant_map",
         "?.quant_state.bitsandbytes__nf4", "?.quant_state.bitsandbytes__fp4"),
        lambda parts: parts[""].dtype == "U8",
        lambda parts, read: tuple(
            int(n) for n in _bnb_state({key: read(key) for key in parts if "state" in key})["shape"]
        ), _bnb_4bit,
    ),
    Scheme(
        "bitsandbytes 8-bit", ".SCB", "", ".weight", (".weight", ".SCB"),
        lambda parts: parts[".weight"].dtype == "I8",
        lambda parts, _: parts[".weight"].shape,
        lambda parts, _: parts[".weight"].float() * (parts[".SCB"].float() / 127)[:, None],
    ),
    Scheme(
        "GPTQ", ".qweight", "", ".weight", (".qweight", ".qzeros", ".scales", ".g_idx"),
        _columns_of, lambda parts, _: (parts[".qweight"].shape[1], parts[".g_idx"].shape[0]), _gptq,
    ),
    Scheme(
        "AWQ", ".qweight", "", ".weight", (".qweight", ".qzeros", ".scales"),
        lambda parts: not _columns_of(parts),
        lambda parts, _: (parts[".scales"].shape[1], parts[".qweight"].shape[0]), _awq,
    ),
    Scheme(
        "NVFP4", ".weight_packed", ".weight", ".weight", ("_packed", "_scale", "_global_scale"),
        lambda parts: parts["_packed"].dtype == "U8",
        lambda parts, _: (parts["_packed"].shape[0], 2 * parts["_packed"].shape[1]), _fp4,
    ),
    Scheme(
        "MXFP4", "_blocks", "", "", ("_blocks", "_scales"),
        lambda parts: {part.dtype for part in parts.values()} == {"U8"}, _experts, _mxfp4,
    ),
    Scheme(
        "packed integers", ".weight_packed", ".weight", ".weight",
        ("_packed", "_scale", "_shape", "?_zero_point", "?_g_idx"),
        lambda parts: parts["_packed"].dtype == "I32",
        lambda _, read: tuple(int(n) for n in read("_shape")), _packed,
    ),
    Scheme(
        "scaled", "_scale_inv", "", "", ("", "_scale_inv"),
        lambda parts: parts[""].dtype in _SMALL, _same, _scaled,
    ),
    Scheme(
        "scaled", "_scale", "", "", ("", "_scale", "?_zero_point"),
        lambda parts: parts[""].dtype in _SMALL, _same, _scaled,
    ),
)  # fmt: skip
