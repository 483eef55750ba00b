"""What comes from outside as rows or as their numbers, checked once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import InputError


def validated(x: Any, device: torch.device | str | None) -> Tensor:
    """A real, finite, two-dimensional tensor; float32 and float64 are kept, others are widened."""
    if not isinstance(x, Tensor):
        array = np.asarray(x)
        if array.dtype.kind not in "fiubc":
            raise InputError(f"an array of {array.dtype} is not numeric", hint="use floats")
        # torch takes neither foreign byte orders nor, without a warning, read-only memory.
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        x = torch.from_numpy(array if array.flags.writeable else array.copy())
    x = x.detach()
    if x.is_complex():
        raise InputError("the array is complex", hint="use real activations")
    if x.ndim != 2:
        raise InputError(
            f"expected [rows, units], got shape {list(x.shape)}",
            hint="pool tokens into one row per sentence first",
        )
    if x.shape[0] < 1 or x.shape[1] < 1:
        raise InputError(f"the array of shape {list(x.shape)} is empty")
    if not x.is_floating_point():
        x = x.double()
    elif x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if device is not None:
        x = x.to(device)
    # A sum shows whether there is anything to look for; it may overflow.
    finite = torch.isfinite(x) if not math.isfinite(float(x.sum())) else None
    if finite is not None and not bool(finite.all()):
        row, column = (int(i) for i in torch.nonzero(~finite)[0])
        raise InputError(
            f"{int((~finite).sum())} of {x.numel()} values are NaN or infinite, the first at row "
            f"{row}, column {column}",
            hint="extract in float32 or bfloat16: float16 overflows on massive activations",
        )
    return x


def as_index(rows: Any, n: int, device: torch.device) -> Tensor:
    """Row numbers of an index list or a boolean mask, `[m]`."""
    index = torch.as_tensor(np.array(rows.cpu() if isinstance(rows, Tensor) else rows))
    if index.dtype == torch.bool:
        index = torch.nonzero(index).squeeze(1)
    if index.ndim != 1 or len(index) == 0 or int(index.min()) < 0 or int(index.max()) >= n:
        raise InputError(f"rows must be indices from 0 to {n - 1}, at least one")
    return index.long().to(device)
