"""Which entries of a task vector are kept: as many as asked for, the same ones every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from repsim.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch

#: Size of the sample that brackets a cut.
SAMPLE = 1 << 14


def check_density(density: float, name: str) -> float:
    """The density, if it is a share.

    Raises:
        UsageError: It is not in (0, 1].

    Example:
        >>> check_density(0.5, "norm")
        0.5
    """
    if not 0 < density <= 1:
        raise UsageError(
            f"density must lie in (0, 1], got {density:g} for tensor '{name}'",
            hint="a model of density 0 adds nothing: leave it out",
        )
    return density


def largest(values: torch.Tensor, kept: int) -> torch.Tensor:
    """Mark the `kept` largest values, those of lowest index where values at the cut are equal.

    The cut is found by selection, which costs a fraction of a sort, and the choice among equal
    values is stated, so that it cannot depend on an unstable sort: differences of bfloat16 weights
    hold thousands of equal magnitudes.

    Args:
        values: Float32 or float64, of any shape.
        kept: How many, from 0 to all.

    Returns:
        Boolean tensor of the same shape with exactly `kept` true entries.

    Example:
        >>> import torch
        >>> largest(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3).tolist()
        [True, True, False, True]
    """
    import torch

    flat = values.flatten()
    if kept in (0, flat.numel()):
        return torch.full_like(values, bool(kept), dtype=torch.bool)
    return _mark(flat, kept, _kth_largest(flat, kept)).reshape(values.shape)


def _mark(flat: torch.Tensor, kept: int, cut: float) -> torch.Tensor:
    """Mark values above the cut, and as many of those at it as are needed, by lowest index."""
    import torch

    mask = flat >= cut
    surplus = int(mask.count_nonzero()) - kept
    if surplus:
        mask[torch.nonzero(flat == cut).flatten()[-surplus:]] = False
    return mask


def _kth_largest(flat: torch.Tensor, kept: int) -> float:
    """The `kept`-th largest value, exactly; by sampling first where that pays."""
    import numpy as np
    import torch

    n = flat.numel()
    if flat.device.type != "cpu":
        return float(torch.kthvalue(flat, n - kept + 1).values)
    values = flat.numpy()
    if n > 4 * SAMPLE:
        found = select([values], np.sort(values[:: n // SAMPLE]), n, kept)
        if found is not None:
            return found.value
    return float(np.partition(values, n - kept)[n - kept])


class Selected(NamedTuple):
    """The least of some number of largest values.

    Attributes:
        value: That value.
        equal: How many of the values that equal it are among them.
        surplus: How many more values equal it.

    Example:
        >>> Selected(value=7.0, equal=2, surplus=1).equal  # of three entries of 7, two are kept
        2
    """

    value: float
    equal: int
    surplus: int


def select(
    chunks: Iterable[np.ndarray], sample: np.ndarray, entries: int, kept: int
) -> Selected | None:
    """The `kept`-th largest of many values, exactly, in one pass over them.

    A sample tells between which values it must lie, and only what lies there is selected from.

    Args:
        chunks: The values, in parts.
        sample: Some of them, ascending.
        entries: Number of values.
        kept: Rank, from 1.

    Returns:
        The value; None if the sample was misleading.

    Example:
        >>> import numpy as np
        >>> values = np.arange(10.0)
        >>> select([values[:5], values[5:]], values[::2], 10, 3)
        Selected(value=7.0, equal=1, surplus=0)
    """
    import numpy as np

    rank = entries - kept
    place, spread = rank / entries * len(sample), 4 * len(sample) ** 0.5
    low = sample[int(place - spread)] if place > spread else -np.inf
    high = sample[int(place + spread)] if place + spread < len(sample) else np.inf
    below, parts = 0, []
    for values in chunks:
        inside = values >= low
        below += len(values) - int(np.count_nonzero(inside))
        inside &= values <= high
        parts.append(values[inside])
    within = np.concatenate(parts)
    if not 0 <= rank - below < len(within):
        return None
    cut = np.partition(within, rank - below)[rank - below]
    surplus = rank - below - int(np.count_nonzero(within < cut))
    return Selected(float(cut), int(np.count_nonzero(within == cut)) - surplus, surplus)


def keep_largest(delta: torch.Tensor, density: float) -> torch.Tensor:
    """Zero all but the `max(1, int(density * n))` entries of largest magnitude.

    Example:
        >>> import torch
        >>> keep_largest(torch.tensor([1.0, -3.0, 1.0, 2.0]), 0.75).tolist()
        [1.0, -3.0, 0.0, 2.0]
    """
    n = delta.numel()
    kept = min(n, max(1, int(density * n)))
    if kept == n:
        return delta
    size = delta.abs().flatten()
    cut = _kth_largest(size, kept)
    if int((size >= cut).count_nonzero()) > kept:
        return delta * _mark(size, kept, cut).reshape(delta.shape)
    return keep_from(delta, cut)


def keep_from(delta: torch.Tensor, cut: float) -> torch.Tensor:
    """Zero entries whose magnitude is below the cut, in one pass.

    Example:
        >>> import torch
        >>> keep_from(torch.tensor([1.0, -3.0, 2.0]), 2.0).tolist()
        [0.0, -3.0, 2.0]
    """
    import numpy as np
    from torch.nn.functional import hardshrink

    if cut <= 0:
        return delta
    # hardshrink zeroes what is not larger: from the next smaller number on, the cut itself stays.
    kind = np.float64 if delta.element_size() == 8 else np.float32
    return hardshrink(delta, float(np.nextafter(kind(cut), kind(0))))


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Rank of each value within its row (last axis), from 0; equal values by index.

    Example:
        >>> import torch
        >>> ranks(torch.tensor([[3.0, 1.0, 1.0]])).tolist()
        [[2, 0, 1]]
    """
    return values.argsort(dim=-1, stable=True).argsort(dim=-1)
