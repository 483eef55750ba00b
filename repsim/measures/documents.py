"""Rows that belong together: the rows of one document depend on each other.

An estimator that leaves out pairs of rows of one document does not take the likeness of neighbours
in a text for the likeness of two representations. Debiased CKA centers a kernel over *pairs of rows
of different documents*: the part of `k_ij` that is a sum of row effects `a_i + a_j` is projected
out, pairs within a document count as zero. The inner product of two such matrices is 0 in
expectation on independent sides, whatever the documents' sizes, does not change if either side is
translated, equals the U-centered product of Székely and Rizzo (2014) for documents of one row, and
differs from the U-statistic over different documents by O(1 / documents).
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.measures.algebra import TILE, summed, unit_chunks

#: Fewest documents that can be the unit of inference.
LEAST_DOCUMENTS = 5
#: Documents change places with others if the longest of them is at most so many times as long.
ALIKE = 1.2
#: Numbers of the Gram matrices inside documents that are held at once.
HELD = 1 << 22


def numbered(documents: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Documents as 0..g-1 in order of first appearance, `[n]` int64."""
    numbers: dict[Hashable, int] = {}
    listed = documents.tolist() if isinstance(documents, np.ndarray) else documents
    return np.array([numbers.setdefault(d, len(numbers)) for d in listed], dtype=np.int64)


def as_unit(documents: Sequence[Hashable]) -> tuple[np.ndarray | None, str]:
    """Numbers of the documents, or None where rows are the unit; and why, if that is a loss."""
    if not len(documents):
        return None, ""
    labels = numbered(documents)
    sizes = np.bincount(labels)
    if sizes.max() == 1:
        return None, ""
    if len(sizes) < LEAST_DOCUMENTS:
        what = f"{len(sizes)} documents are too few"
    elif 2 * sizes.max() >= len(labels):
        what = f"one document holds {sizes.max()} of {len(labels)} rows: too many for documents"
    else:
        return labels, ""
    return None, f"{what} to be the unit of inference: rows are, as if independent"


def blocks(n: int, length: int) -> list[int]:
    """Documents of `length` consecutive rows each, for rows that follow on one another.

    Example:
        >>> blocks(5, 2)
        [0, 0, 1, 1, 2]
    """
    return [row // length for row in range(n)]


def staying(labels: np.ndarray) -> tuple[int, float]:
    """How many documents have no other of like length, and the share of the rows that they hold."""
    sizes = np.bincount(labels)
    alone = [own[0] for own in _strata(sizes) if len(own) == 1]
    return len(alone), float(sizes[alone].sum() / len(labels))


def effective_number(sizes: Tensor) -> float:
    """Documents of equal size that would weigh as much: n^2 over the sum of squared sizes."""
    return float(sizes.sum().square() / sizes.square().sum())


def some_documents(labels: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, float]:
    """Rows of random documents, at most so many; spread over all as a share of that over them."""
    generator = np.random.default_rng([seed, len(labels), most])
    sizes = np.bincount(labels)
    drawn = generator.permutation(len(sizes))
    kept = drawn[np.cumsum(sizes[drawn]) <= most]
    shares = [float(count * (count - 1)) for count in (len(kept), len(sizes))]
    return np.flatnonzero(np.isin(labels, kept)), float(np.sqrt(shares[0] / shares[1]))


# -- shuffles -------------------------------------------------------------------------------------


def shuffled_documents(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A permutation of rows that takes documents to places of others of like length, `[n]`."""
    rows = [own.tolist() for own in _rows_of(labels)]
    order = np.empty(len(labels), dtype=np.int64)
    for stratum in _strata(np.array([len(own) for own in rows])):
        # Places in their order and rows that move there, of which the surplus follows at the end.
        into: tuple[list[int], list[int]] = ([], [])
        surplus: tuple[list[int], list[int]] = ([], [])
        for here, there in zip(stratum, generator.permutation(stratum).tolist(), strict=True):
            own, moved = rows[here], rows[there]
            start = int(generator.integers(len(moved))) if len(moved) > 1 else 0
            both = min(len(own), len(moved))
            for places, more, found in zip(
                into, surplus, (own, moved[len(moved) - start :] + moved[: len(moved) - start]),
                strict=True,
            ):  # fmt: skip
                places += found[:both]
                more += found[both:]
        order[into[0] + surplus[0]] = into[1] + surplus[1]
    return order


def shifted(n: int, apart: int, generator: np.random.Generator) -> np.ndarray:
    """All rows moved on by as many places, at least `apart` either way, the last to the first."""
    return np.roll(np.arange(n), generator.integers(apart, n - apart + 1))


def _rows_of(labels: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each document."""
    sizes = np.bincount(labels)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])


def _strata(sizes: np.ndarray) -> list[list[int]]:
    """Documents of like length."""
    strata: list[list[int]] = []
    for document in np.argsort(-sizes, kind="stable").tolist():
        if not strata or sizes[strata[-1][0]] > ALIKE * sizes[document]:
            strata.append([])
        strata[-1].append(document)
    return strata


# -- pairs of different documents ------------------------------------------------------------------


def centred_apart(kernel: Tensor, labels: Tensor) -> Tensor:
    """The part of an `[n, n]` kernel without row effects, zero within documents (U-centered)."""
    centred = _zero_within(kernel.clone(), labels, 0)
    effects = row_effects(centred.sum(dim=1, dtype=torch.float64), labels).to(kernel.dtype)
    centred -= rearrange(effects, "i -> i 1") + effects
    return _zero_within(centred, labels, 0)


def rows_apart(rows: Tensor, effects: Tensor, labels: Tensor, here: slice) -> Tensor:
    """Some rows of `centred_apart` of the Gram matrix of centered rows, `[rows, n]`."""
    kernel = rows[here] @ rows.mT
    kernel -= rearrange(effects[here], "i -> i 1") + effects
    return _zero_within(kernel, labels, here.start)


def _zero_within(kernel: Tensor, labels: Tensor, first: int) -> Tensor:
    """Rows of a kernel, from row `first` on, with zeros within documents, in place."""
    for start in range(0, len(kernel), TILE):
        rows = kernel[start : start + TILE]
        own = labels[first + start : first + start + len(rows)]
        rows.masked_fill_(rearrange(own, "i -> i 1") == labels, 0)
    return kernel


def row_effects(sums: Tensor, labels: Tensor) -> Tensor:
    """The `a` for which `k_ij - a_i - a_j` sums to 0 over rows of other documents."""
    sizes = torch.bincount(labels).to(sums.dtype)
    n, by_document = len(labels), sums.new_zeros(len(sizes)).index_add_(0, labels, sums)
    apart = n - 2 * sizes
    total = (by_document / apart).sum() / (1 + (sizes / apart).sum())
    of_document = (by_document - sizes * total) / apart
    return (sums - total + of_document[labels]) / (n - sizes[labels])


def sums_of(rows: Tensor, labels: Tensor) -> Tensor:
    """Row sums of the Gram matrix of centered rows apart from documents, `[n]` float64."""
    sums = rows.new_empty(len(rows), dtype=torch.float64)
    for units, index, place in unit_chunks(labels, rows.shape[1]):
        part = rows[index].double()
        own = summed(part, place, units.stop - units.start)
        # All rows sum to zero: what is left is minus the own document's.
        sums[index] = -(part * own[place]).sum(dim=1)
    return sums


def inside(rows: Tensor, index: Tensor) -> Tensor:
    """Gram entries inside documents of one size, off the diagonal, `[documents * size^2]`."""
    own = rows[index].double()
    grams = own @ own.mT
    grams.diagonal(dim1=1, dim2=2).zero_()
    return grams.flatten()


def by_size(labels: Tensor) -> list[Tensor]:
    """Row numbers of documents of one size, `[documents, size]`, a bounded number at a time."""
    known = labels.cpu().numpy().astype(np.int64)
    return [index.to(labels.device) for index in _by_size(known.tobytes())]


@functools.lru_cache(maxsize=4)
def _by_size(labels: bytes) -> list[Tensor]:
    rows = _rows_of(np.frombuffer(labels, dtype=np.int64))
    sizes = np.array([len(own) for own in rows])
    found: list[Tensor] = []
    for size in np.unique(sizes[sizes > 0]):
        index = torch.as_tensor(np.stack([rows[d] for d in np.flatnonzero(sizes == size)]))
        found += index.split(max(1, HELD // int(size) ** 2))
    return found
