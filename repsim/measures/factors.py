"""Values that belong to the rows of one array: computed once, and carried along by their rows.

Shuffling rows (for a null) or taking some of them (for an interval) must not recompute a Gram
matrix: each value knows how it follows the rows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import torch
from torch import Tensor

from repsim.measures.algebra import double_centred

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Remembering")


class Rows:
    """Which rows of another array these are: row i here is row `index[i]` there."""

    def __init__(self, index: Tensor) -> None:
        self.index = index

    @functools.cached_property
    def inverse(self) -> Tensor:
        """Position here of each row there (permutations only)."""
        inverse = torch.empty_like(self.index)
        inverse[self.index] = torch.arange(len(self.index), device=self.index.device)
        return inverse

    @functools.cached_property
    def pairs(self) -> Tensor:
        """Position in the other's triangle of each pair of this one's triangle."""
        n = len(self.index)
        i, j = torch.triu_indices(n, n, 1, device=self.index.device)
        a, b = self.index[i], self.index[j]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        return low * (2 * n - low - 1) // 2 + high - low - 1


def same(value: Any, rows: Rows) -> Any:
    """The order of rows does not matter."""
    return value


def by_row(value: Tensor, rows: Rows) -> Tensor:
    """One entry per row."""
    return value[rows.index]


def each_by_row(value: tuple[Tensor, ...], rows: Rows) -> tuple[Tensor, ...]:
    """Several, one entry per row each."""
    return tuple(part[rows.index] for part in value)


def by_row_and_column(value: Tensor, rows: Rows) -> Tensor:
    """One row and one column per row."""
    return value[rows.index][:, rows.index]


def recentred(value: Tensor, rows: Rows) -> Tensor:
    """A centered Gram matrix: of a subset, centered anew."""
    return double_centred(by_row_and_column(value, rows))


def by_pair(value: Tensor, rows: Rows) -> Tensor:
    """One entry per pair of rows: the upper triangle, row by row."""
    return value[rows.pairs]


def first_by_row(value: tuple[Tensor, Tensor, Tensor], rows: Rows) -> tuple[Tensor, ...]:
    """A factorisation whose first factor has one entry per row."""
    return value[0][rows.index], value[1], value[2]


def renamed_rows(value: tuple[Tensor | None, ...], rows: Rows) -> tuple[Tensor | None, ...]:
    """A named tuple: numbers of rows, one list per row, and what belongs to each of them."""
    index, *beside = (None if part is None else part[rows.index] for part in value)
    return type(value)(rows.inverse[index], *beside)


class Remembering:
    """Keeps values by name, and takes them from the array that its rows come from if it can."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}
        self._origin: Self | None = None
        self._rows: Rows | None = None
        #: Whether these are all rows of another array, in another order.
        self.is_permutation = False
        #: Bytes of the values that stay while it is not open; None where all do.
        self._stays: int | None = None
        self._readers = 0

    @property
    def is_paged(self) -> bool:
        """Whether large values are kept only while it is open."""
        return self._stays is not None

    @contextlib.contextmanager
    def opened(self) -> Iterator[Self]:
        """Keep large values too, until the last one that opened it leaves."""
        self._readers += 1
        try:
            yield self
        finally:
            self._readers -= 1
            if self._stays is not None and not self._readers:
                self.forget(larger_than=self._stays)

    def _follow(self, origin: Self, index: Tensor, *, is_permutation: bool) -> None:
        """Declare that row i here is row `index[i]` of the origin."""
        self._origin, self._rows, self.is_permutation = origin, Rows(index), is_permutation

    def _take_over(
        self,
        key: Any,
        compute: Callable[[Any], T],
        permuted: Callable[[Any, Rows], Any],
        subset: Callable[[Any, Rows], Any] | None = None,
    ) -> T:
        """The value kept under `key`; made here, or out of the origin's, if there is none."""
        if key in self._kept:
            return cast("T", self._kept[key])
        origin, rows = self._origin, self._rows
        if origin is not None and rows is not None and self.is_permutation:
            value = permuted(origin._take_over(key, compute, permuted, subset), rows)
        elif origin is not None and rows is not None and subset and key in origin._kept:
            value = subset(origin._kept[key], rows)
        else:
            value = compute(self)
        if self._stays is None or self._readers > 0 or _bytes_of(value) <= self._stays:
            self._kept[key] = value
        return cast("T", value)

    def remember(self, key: str, compute: Callable[[Self], T]) -> T:
        """A value of a measure that does not depend on the order of rows, computed once."""
        return self._take_over(key, compute, same)

    def remember_rows(self, key: str, compute: Callable[[Self], Tensor]) -> Tensor:
        """An `[n]` vector of a measure, one entry per row, computed once."""
        return self._take_over(key, compute, by_row)

    def remember_matrix(self, key: str, compute: Callable[[Self], Tensor]) -> Tensor:
        """An `[n, n]` matrix of a measure, one row and one column per row, computed once."""
        return self._take_over(key, compute, by_row_and_column)

    @property
    def kept_bytes(self) -> int:
        """Bytes that the kept tensors take."""
        return sum(_bytes_of(value) for value in self._kept.values())

    def forget(self, *, larger_than: int = 0) -> None:
        """Drop values; they are computed again when asked for."""
        for key, value in list(self._kept.items()):
            if larger_than == 0 or _bytes_of(value) > larger_than:
                del self._kept[key]

    @contextlib.contextmanager
    def temporarily(self) -> Iterator[Self]:
        """Drop on leaving what was computed inside: one layer's values at a time in a sweep."""
        before = set(self._kept)
        try:
            yield self
        finally:
            for key in set(self._kept) - before:
                del self._kept[key]


def _bytes_of(value: Any) -> int:
    """Bytes of a tensor or of a tuple of them; other values are too small to count."""
    if isinstance(value, tuple):
        return sum(_bytes_of(part) for part in value)
    return int(value.nbytes) if isinstance(value, Tensor) else 0


def factor(
    permuted: Callable[[Any, Rows], Any], subset: Callable[[Any, Rows], Any] | None = None
) -> Callable[[Callable[Concatenate[S, P], T]], Callable[Concatenate[S, P], T]]:
    """Remember what a method returns, and say how it follows the rows."""

    def decorate(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
        @functools.wraps(method)
        def remembered(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            key = (method.__name__, *args, *kwargs.values())
            return self._take_over(
                key, lambda origin: method(origin, *args, **kwargs), permuted, subset
            )

        return cast("Callable[Concatenate[S, P], T]", remembered)

    return decorate
