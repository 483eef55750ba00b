"""The trim of TIES, found exactly without holding the deltas: of a tensor, or of a whole model.

A float's magnitude orders as its bits do. So the k-th largest of any number of magnitudes is found
by counting: first the leading bits of all of them, then the next bits of those that share the
leading bits of the one looked for. Each round streams through the tensors once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.merging.methods.selection import Selected, check_density, select

if TYPE_CHECKING:
    import numpy as np
    import torch

#: Bits that are counted per round.
_DIGIT = 16


def kth_largest(chunks: Callable[[], Iterable[torch.Tensor]], kept: int) -> float:
    """The `kept`-th largest magnitude over all entries of a stream of tensors.

    Args:
        chunks: Gives the stream anew each time it is called; all float32, or all float64.
        kept: Rank, from 1.

    Returns:
        The magnitude, exactly: `kept` entries or more (where some are equal) are at least as large.

    Raises:
        UsageError: There are fewer entries than `kept`, or `kept` is below 1.

    Example:
        >>> import torch
        >>> parts = [torch.tensor([1.0, -5.0]), torch.tensor([3.0])]
        >>> kth_largest(lambda: parts, 2)
        3.0
    """
    import numpy as np

    first = next(_bits(chunks()), None)
    bits = 32 if first is None else first.dtype.itemsize * 8
    prefix, rest, remaining = 0, bits, kept
    while rest > 0:
        step = min(_DIGIT, rest)
        counts = np.zeros(1 << step, dtype=np.int64)
        for magnitude in _bits(chunks()):
            found = magnitude
            if rest < bits:
                found = found[(found >> np.array(rest, found.dtype)) == prefix]
            digits = (found >> np.array(rest - step, found.dtype)) & ((1 << step) - 1)
            counts += np.bincount(digits.astype(np.int64), minlength=1 << step)
        if kept < 1 or counts.sum() < remaining:
            raise UsageError(f"no entry of rank {kept}: there are fewer, or the rank is below 1")
        above = np.concatenate([[0], np.cumsum(counts[::-1])])
        place = int(np.searchsorted(above[1:], remaining))
        remaining -= int(above[place])
        prefix = (prefix << step) | ((1 << step) - 1 - place)
        rest -= step
    kind = np.dtype(np.uint32 if bits == 32 else np.uint64)
    return float(np.array(prefix, kind).view(np.float32 if bits == 32 else np.float64))


def _bits(chunks: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
    """Bits of the magnitudes, as unsigned integers that order as the magnitudes do."""
    import numpy as np

    for chunk in chunks:
        values = chunk.detach().abs().cpu().numpy().reshape(-1)
        yield values.view(np.uint32 if values.dtype == np.float32 else np.uint64)


def model_threshold(
    deltas: Callable[[], Iterable[torch.Tensor]], entries: int, density: float
) -> float:
    """The magnitude from which on entries of a model's delta are kept.

    Args:
        deltas: Gives the deltas of all tensors, each once, in chunks.
        entries: Number of their entries.
        density: Share to be kept, in (0, 1].

    Returns:
        The `max(1, int(density * entries))`-th largest magnitude; 0 if all are kept.

    Raises:
        UsageError: The density is not a share.

    Example:
        >>> import torch
        >>> model_threshold(lambda: [torch.tensor([4.0, 3.0, 2.0, 1.0])], 4, 0.5)
        3.0
    """
    check_density(density, "of all")
    kept = max(1, int(density * entries))
    return 0.0 if kept >= entries else kth_largest(deltas, kept)


def common_density(densities: Sequence[float], model: str) -> float:
    """The one density of a model, which a whole-model trim needs.

    Raises:
        UsageError: It differs between tensors.

    Example:
        >>> common_density([0.5, 0.5], "a")
        0.5
    """
    if len(set(densities)) > 1:
        raise UsageError(
            f"scope 'model' trims model '{model}' by one density, and the recipe gives "
            f"{len(set(densities))} for different tensors",
            hint="give one number, or use scope: tensor",
        )
    return densities[0]


def tensor_cut(
    deltas: Iterable[torch.Tensor], sample: torch.Tensor, entries: int, density: float
) -> Selected | None:
    """The trim of one tensor in one pass.

    Args:
        deltas: The delta, in parts.
        sample: Some of its entries.
        entries: Number of all.
        density: Share to be kept.

    Returns:
        The least magnitude that is kept; None if the sample was misleading.

    Example:
        >>> import torch
        >>> delta = torch.tensor([4.0, -1.0, 3.0, 1.0])
        >>> tensor_cut([delta[:2], delta[2:]], delta, 4, 0.75)
        Selected(value=1.0, equal=1, surplus=1)
    """
    import numpy as np

    kept = max(1, int(density * entries))
    if kept >= entries:
        return Selected(0.0, entries, 0)
    magnitudes = (delta.abs().flatten().numpy() for delta in deltas)
    return select(magnitudes, np.sort(sample.abs().numpy()), entries, kept)


def drop_surplus(
    tensor: torch.Tensor, base: torch.Tensor, cut: Selected, kept: int, precision: torch.dtype
) -> tuple[torch.Tensor, int]:
    """Move entries at the cut that are not kept back to the base, so that they do not count.

    Args:
        tensor: Some rows of a tensor.
        base: Those of the base.
        cut: The trim of the whole tensor.
        kept: How many entries at the cut were kept in the rows before.
        precision: Type in which differences are taken.

    Returns:
        The rows, and how many entries at the cut were kept up to their end.

    Example:
        >>> import torch
        >>> rows, kept = torch.tensor([1.0, -1.0, 2.0]), 0
        >>> drop_surplus(rows, torch.zeros(3), Selected(1.0, 1, 1), 0, torch.float32)
        (tensor([1., 0., 2.]), 1)
    """
    import torch

    delta = tensor.to(precision) - base.to(precision)
    at_cut = torch.nonzero(delta.abs_().flatten() == cut.value).flatten()
    dropped = at_cut[max(0, cut.equal - kept) :]
    if len(dropped):
        tensor = tensor.clone()
        tensor.view(-1)[dropped] = base.flatten()[dropped].to(tensor.dtype)
    return tensor, kept + len(at_cut) - len(dropped)
