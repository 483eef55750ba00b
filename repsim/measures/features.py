"""An `[n, d]` array with everything the measures derive from it, computed once in a sweep.

Shuffled rows (for a null) and subsets (for an interval) index the factors of the original.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from repsim.core.errors import InputError, UsageError
from repsim.measures.algebra import (
    average_ranks,
    column_means,
    row_chunks,
    square_eigen,
    squared_lengths,
    symmetric_product,
    triangle,
    truncated_svd,
    unit_columns,
    unit_length,
)
from repsim.measures.factors import (
    Remembering,
    by_pair,
    by_row,
    by_row_and_column,
    each_by_row,
    factor,
    first_by_row,
    recentred,
    renamed_rows,
    same,
)
from repsim.measures.nearest import Metric, Neighbours, Points, nearest_rows, points_of, remaining
from repsim.measures.row_input import as_index, validated

#: Squared length of a row over the mean from which products are taken in float64.
LONG_ROW = 64

#: Singular values up to this share of the largest one do not count towards the rank.
RANK_TOLERANCE = 1e-10


class Features(Remembering):
    """Matched rows of one representation, with lazily computed factors.

    Column means are taken in float64 before anything else, whatever `dtype` is: uncentered sums of
    activations with a few massive dimensions cancel to nothing in float32.

    Args:
        x: `[n, d]` numpy array, torch tensor or nested list; row i is sentence i.
        dtype: Precision of the factors; sums over them are always float64.
        device: Where to compute; where `x` lies if left out.
        documents: Number of each row's document, `[n]`, where rows of one document depend on each
            other: `cka` then leaves out pairs of rows of one document.

    Raises:
        InputError: Not two-dimensional, empty, complex, or not finite.

    Example:
        >>> features = Features([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])
        >>> features.n, features.d, features.rank
        (3, 2, 2)
    """

    def __init__(
        self,
        x: Any,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        documents: Any = None,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"dtype {dtype} is not possible", hint="use float64 or float32")
        super().__init__()
        self._held: Tensor | None = validated(x, device)
        self._read: Callable[[], Tensor] | None = None
        self._is_fresh = False
        self._shape, self._device = tuple(self._held.shape), self._held.device
        self._dtype = dtype
        self.documents: Tensor | None = (
            None if documents is None else torch.as_tensor(documents, device=self._device)
        )

    def paged(self, read: Callable[[], Any], *, fresh: bool = False) -> Features:
        """The same rows, read again by `read` when asked for; `fresh` ones may be overwritten."""
        device = self._device
        made = self._derived(lambda: validated(read(), device), self.n, is_paged=True)
        made._is_fresh = fresh
        return made

    def _derived(self, read: Callable[[], Tensor], n: int, *, is_paged: bool) -> Features:
        """Features like these, of `n` rows that `read` gives."""
        other = copy.copy(self)
        Remembering.__init__(other)
        other._held, other._read, other._shape = None, read, (n, self.d)
        other._stays = n * self.d if is_paged else None
        return other

    @property
    def _raw(self) -> Tensor:
        if self._held is not None:
            return self._held
        assert self._read is not None
        rows = self._read()
        if not self.is_paged:
            self._held = rows
        return rows

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows and of what is kept beside them."""
        return self.kept_bytes + (0 if self._held is None else int(self._held.nbytes))

    def __repr__(self) -> str:
        return f"Features(n={self.n}, d={self.d}, {self._dtype}, {self.device})"

    # -- shape ---------------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._shape[0]

    @property
    def d(self) -> int:
        """Number of columns (units)."""
        return self._shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the factors."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where the factors lie."""
        return self._device

    @property
    def labels(self) -> Tensor:
        """Number of each row's document, or of each row where none is known, `[n]`."""
        rows = torch.arange(self.n, device=self.device)
        return rows if self.documents is None else self.documents

    # -- the array -----------------------------------------------------------------------------

    @property
    def x(self) -> Tensor:
        """The rows as they came, `[n, d]` float64: what is not centred needs all its digits."""
        return self._raw.double()

    def rows_at(self, index: Tensor | slice) -> Tensor:
        """Some rows as they came, `[m, d]` float64, without widening the others."""
        return self._raw[index].double()

    @property
    @factor(permuted=same)
    def mean(self) -> Tensor:
        """Column means, `[d]` float64."""
        return column_means(self._raw)

    @property
    def centered(self) -> Tensor:
        """Rows with the column means taken out, `[n, d]`; constant columns are exactly zero."""
        return self._centred_rows[0]

    @property
    def centered64(self) -> Tensor:
        """The same in float64, not kept beside them; never written to."""
        if self._dtype == torch.float64:
            return self.centered
        rows = torch.empty(self.n, self.d, dtype=torch.float64, device=self.device)
        for here, part in self._centred_chunks(self.mean, self._raw):
            rows[here] = part
        return rows

    def _centred_chunks(self, mean: Tensor, raw: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Centered rows in float64, a few at a time."""
        # Where three rows agree, all of them may.
        alike = (raw[0] == raw[-1]) & (raw[0] == raw[self.n // 2])
        columns = torch.nonzero(alike).squeeze(1)
        some = raw[:, columns]
        constant = columns[some.amin(dim=0) == some.amax(dim=0)]
        for here in row_chunks(self.n, self.d):
            part = raw[here].double()
            part = part - mean if part.data_ptr() == raw[here].data_ptr() else part.sub_(mean)
            part[:, constant] = 0
            yield here, part

    @property
    @factor(permuted=each_by_row)
    def _centred_rows(self) -> tuple[Tensor, Tensor]:
        """Centered rows, and their squared lengths in float64."""
        mean, raw = self.mean, self._raw  # in this order: no two readings at once
        squares = torch.empty(self.n, dtype=torch.float64, device=self.device)
        own = self._is_fresh and raw.dtype == self._dtype
        rows = raw if own else torch.empty_like(raw, dtype=self._dtype)
        for here, part in self._centred_chunks(mean, raw):
            rows[here], squares[here] = part, squared_lengths(part)
        return rows, squares

    def _rank_tolerance(self) -> float:
        return max(RANK_TOLERANCE, torch.finfo(self._raw.dtype).eps)

    @property
    @factor(permuted=same)
    def norm(self) -> float:
        """Frobenius norm of the centered rows."""
        return float(self.gram_diagonal.sum().sqrt())

    @property
    def is_constant(self) -> bool:
        """Whether all rows are equal."""
        return self.norm == 0.0

    @property
    @factor(permuted=by_row)
    def unit_rows(self) -> Tensor:
        """Uncentered rows scaled to length one, `[n, d]` float64; zero rows stay zero."""
        return unit_length(self.x)

    @property
    @factor(permuted=by_row)
    def unit_columns(self) -> Tensor:
        """Centered columns of length one, whose products are correlations; constant ones stay 0."""
        return unit_columns(self.centered)

    @property
    def unit_columns64(self) -> Tensor:
        """The same in float64, not kept."""
        return unit_columns(self.centered64)

    # -- factorisations ------------------------------------------------------------------------

    @property
    @factor(permuted=by_row)
    def gram_diagonal(self) -> Tensor:
        """Squared lengths of the centered rows, `[n]` float64."""
        return self._centred_rows[1]

    @property
    @factor(permuted=by_row)
    def row_codes(self) -> Tensor:
        """A number for each row, `[n]` int64, the same for equal rows only."""
        bits = self._raw.contiguous().view(torch.int32)
        generator = torch.Generator().manual_seed(0)
        odd = torch.randint(-(2**31), 2**31 - 1, (2, bits.shape[1]), generator=generator)
        odd = (odd | 1).int().to(bits.device)
        sums = torch.empty(2, self.n, dtype=torch.int64, device=bits.device)
        for here in row_chunks(*bits.shape):
            for own, some in zip(sums, odd, strict=True):
                own[here] = (bits[here] * some).sum(dim=1)
        high, low = sums  # of 32 bits each, which overflow as they like
        return (high << 32) ^ (low & 0xFFFFFFFF)

    @property
    def has_long_rows(self) -> bool:
        """Whether a few rows hold most of every sum, so that float32 rounds off the others."""
        return bool(self.gram_diagonal.max() > LONG_ROW * self.gram_diagonal.mean())

    @property
    @factor(permuted=by_row_and_column, subset=recentred)
    def gram(self) -> Tensor:
        """Gram matrix of the centered rows, `[n, n]`."""
        return symmetric_product(self.centered)

    @property
    @factor(permuted=by_row)
    def compact(self) -> Tensor:
        """Centered rows in at most n coordinates, `[n, min(n, d)]`, the same up to a rotation."""
        if self.d <= self.n:
            return self.centered
        return torch.linalg.qr(self.centered.mT, mode="r").R.mT.contiguous()

    @property
    @factor(permuted=first_by_row)
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD of the centered rows, cut at the rank: `[n, r]`, `[r]`, `[r, d]`, float64.

        Singular values count from 1e-10 of the largest, or from what the array's own precision
        resolves. Small directions matter to CCA as much as large ones, hence float64 throughout.
        """
        if self._dtype == torch.float32 and self.d < self.n:
            leading = self.leading_svd
            if len(leading[1]) == self.d:
                return leading
        return truncated_svd(self.centered64, self._rank_tolerance())

    @property
    @factor(permuted=first_by_row)
    def leading_svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """The part of `svd` with singular values over 1e-4 of the largest, at half the cost."""
        if self.d >= self.n:
            u, s, vh = self.svd
        else:
            centered = self.centered64
            # Of the eigenvectors of the covariance the error stays under 1e-7 down to 1e-4.
            squares, vectors = square_eigen(centered)
            s, vectors = squares.clamp(min=0).sqrt().flip(0), vectors.flip(1)
            u, vh = centered @ (vectors / s.clamp(min=1e-300)), vectors.mT
        kept = int((s > 1e-4 * s[0]).sum())
        return u[:, :kept], s[:kept], vh[:kept]

    @property
    @factor(permuted=first_by_row)
    def svd_uncentered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD of the rows as they came, cut at the rank, float64."""
        return truncated_svd(self._raw.double(), self._rank_tolerance())

    @property
    def rank(self) -> int:
        """Rank of the centered rows."""
        return len(self.svd[1])

    # -- distances and neighbours --------------------------------------------------------------

    @factor(permuted=by_row_and_column, subset=by_row_and_column)
    def distances(self, metric: Metric = "euclidean") -> Tensor:
        """Distances between rows, `[n, n]`, zero diagonal.

        Args:
            metric: "euclidean", "sqeuclidean", "cosine" (1 - cosine of the uncentered rows) or
                "correlation" (1 - Pearson correlation of two rows over the units). A zero row has
                cosine 0 with every row, and a constant row correlation 0.

        Raises:
            UsageError: Another metric.
        """
        if metric == "euclidean":
            return self.distances("sqeuclidean").sqrt()
        if metric == "sqeuclidean":
            return self._squared_distances(self.gram_diagonal, self.gram)
        rows, squares = self.points(metric, self._dtype)
        return self._squared_distances(squares, symmetric_product(rows)).div_(2)

    def _squared_distances(self, squares: Tensor, gram: Tensor) -> Tensor:
        sums = rearrange(squares, "i -> i 1") + rearrange(squares, "j -> 1 j")
        sums = sums.to(self._dtype)
        squared = torch.add(sums, gram, alpha=-2)
        # Equal rows: what is left of their distance is rounding.
        squared.masked_fill_(squared < sums.mul_(16 * torch.finfo(self._dtype).eps), 0)
        return squared.fill_diagonal_(0)

    def points(self, metric: Metric, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rows whose squared distances are those of the metric (twice it), and float64 squares."""
        if metric in ("euclidean", "sqeuclidean"):
            return self.centered.to(dtype), self.gram_diagonal
        rows, apart, _ = self._points(metric)
        squares = squared_lengths(rows)
        return rows.to(dtype), squares if apart is None else squares + apart

    def _points(self, metric: str) -> Points:
        """Rows whose squared distances order neighbours as the metric does, centred, float64."""
        if metric in ("euclidean", "sqeuclidean"):
            return Points(self.centered64)
        return points_of(self._raw, metric)

    @factor(permuted=by_pair)
    def rdm(self, metric: Metric = "euclidean") -> Tensor:
        """Upper triangle of the distances, row by row: `[n (n - 1) / 2]`."""
        return triangle(self.distances(metric))

    @factor(permuted=by_pair)
    def rdm_ranks(self, metric: Metric = "euclidean") -> Tensor:
        """Ranks of the upper triangle, ties averaged, float64."""
        return average_ranks(self.rdm(metric))

    @factor(permuted=renamed_rows)
    def neighbours(self, k: int = 10, metric: Metric = "cosine") -> Neighbours:
        """The k nearest rows of each row, the row itself left out; ties share the last places.

        Raises:
            UsageError: k is not in 1..n-2, or another metric.
        """
        if not 1 <= k <= self.n - 2:
            raise UsageError(f"k={k} neighbours of {self.n} rows", hint=f"use 1 to {self.n - 2}")
        known = self._remaining_neighbours(k, metric)
        return known if known is not None else nearest_rows(self._points(metric), k, torch.float32)

    def _remaining_neighbours(self, k: int, metric: Metric) -> Neighbours | None:
        """Out of the whole array's lists, if these are most of its rows in its order."""
        origin, rows = self._origin, self._rows
        if origin is None or rows is None or self.is_permutation or self.n < 0.75 * origin.n:
            return None
        if not bool((rows.index.diff() > 0).all()):
            return None
        listed = origin.neighbours(min(2 * k + 20, origin.n - 2), metric)
        return remaining(listed, rows.index, origin.n, k)

    # -- other rows ----------------------------------------------------------------------------

    def permuted(self, order: Any) -> Features:
        """The rows in another order: row i becomes row `order[i]`; no factor is computed twice.

        Raises:
            InputError: Not a permutation of 0..n-1.
        """
        index = as_index(order, self.n, self.device)
        everything = torch.arange(self.n, device=self.device)
        if len(index) != self.n or not torch.equal(index.sort().values, everything):
            raise InputError(f"not a permutation of {self.n} rows", hint="use rng.permutation(n)")
        if self.is_permutation and self._origin is not None and self._rows is not None:
            return self._origin._with_rows(self._rows.index[index], is_permutation=True)
        return self._with_rows(index, is_permutation=True)

    def take(self, rows: Any) -> Features:
        """Some rows (indices, which may repeat, or a mask), centered anew.

        Distances and Gram matrix come from the whole where it has them.

        Raises:
            InputError: No row, or an index out of range.
        """
        index = as_index(rows, self.n, self.device)
        return self._with_rows(index, is_permutation=False)

    def residualised(self, covariates: Any) -> Features:
        """Each column minus its linear regression on the covariates, `[n]` or `[n, c]`; means stay.

        Raises:
            InputError: Another number of rows, not finite, or no degrees of freedom left.
        """
        values = np.asarray(covariates, dtype=np.float64)
        if values.ndim == 1:
            values = rearrange(values, "n -> n 1")
        others = Features(values, device=self.device)
        require_same_rows(self, others)
        columns = others.unit_columns
        basis = (
            truncated_svd(columns, RANK_TOLERANCE)[0] if not others.is_constant else columns[:, :0]
        )
        if basis.shape[1] >= self.n - 2:
            raise InputError(
                f"{basis.shape[1]} covariates leave nothing of {self.n} rows",
                hint="use fewer covariates or more sentences",
            )

        def rest() -> Tensor:
            rows = self.centered64
            rows = rows.clone() if rows is self.centered else rows
            lengths = rows.norm(dim=0)
            rows.addmm_(basis, basis.mT @ rows, alpha=-1)
            rows[:, rows.norm(dim=0) <= 1e-12 * lengths] = 0
            return rows.add_(self.mean)

        made = Features(rest(), dtype=self._dtype, documents=self.documents)
        return made.paged(rest) if self.is_paged else made

    def _with_rows(self, index: Tensor, *, is_permutation: bool) -> Features:
        other = self._derived(lambda: self._raw[index], len(index), is_paged=self.is_paged)
        other.documents = None if self.documents is None else self.documents[index]
        other._follow(self, index, is_permutation=is_permutation)
        return other


#: Layers of one side, all of the same rows.
Side = Sequence[Features]
#: Which cells `[len(xs), len(ys)]` of a grid are wanted; None for all.
Mask = np.ndarray | None


def as_features(x: Any) -> Features:
    """Features of an array; features are returned as they are."""
    return x if isinstance(x, Features) else Features(x)


def require_same_rows(x: Features, y: Features) -> None:
    """Check that two sides have as many rows."""
    if x.n != y.n:
        raise InputError(
            f"the two sides have different numbers of rows: [{x.n}, {x.d}] and [{y.n}, {y.d}]",
            hint="row i of both must come from the same sentence",
        )
