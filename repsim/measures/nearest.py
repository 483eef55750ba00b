"""The nearest rows of each row: the same in any precision and in any order of rows.

Row j is the nearer to row i the larger `v_i'v_j - |v_j|^2 / 2`, v the centred rows. (Cosines of
rows with a common mean are all nearly 1; those of unit rows *after* their mean was taken out order
them alike, and keep their digits.) float32 products find the neighbours of nearly all rows; a row
two of whose scores lie closer together than float32 resolves is searched again in float64.

What float64 cannot tell apart is a tie. It is not broken, by no rule: the tied rows share the
places that are left (`weight`) and take the mean of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange, reduce
from torch import Tensor

from repsim.core.errors import UsageError
from repsim.measures.algebra import (
    CHUNK_NUMBERS,
    TEMPORARY_NUMBERS,
    column_means,
    symmetric_product,
)
from repsim.measures.limits import share

Metric = Literal["euclidean", "sqeuclidean", "cosine", "correlation"]

#: Rows whose neighbours are sought at once.
BLOCK = 1024
#: Columns that are looked at again in float64, as a multiple of k.
CANDIDATES = 2


class Neighbours(NamedTuple):
    """Neighbours of each row, nearest first; where a tie reaches over place k, m exceeds k."""

    near: Tensor  # their numbers, [n, m]; what a row does not need holds its own
    rank: Tensor | None = None  # ranks from 1, tied ones share the mean; None: 1..k
    weight: Tensor | None = None  # shares of places, that sum to k; None: all 1

    def ranks(self) -> Tensor:
        """The ranks, `[n, m]` float64."""
        if self.rank is not None:
            return self.rank
        places = torch.arange(1, self.near.shape[1] + 1, device=self.near.device)
        return places.double().expand(self.near.shape)

    def weights(self) -> Tensor:
        """The weights, `[n, m]` float64."""
        if self.weight is not None:
            return self.weight
        return torch.ones((), dtype=torch.float64, device=self.near.device).expand(self.near.shape)


class Points(NamedTuple):
    """Rows whose distances are compared."""

    rows: Tensor  # centred, [n, d] float64
    apart: Tensor | None = None  # added to squared distances from and to each row, [n]
    rounding: float = 0.0  # absolute error of the rows' entries

    def bias(self, lengths: Tensor) -> Tensor:
        """What a row's score has beside the product, `[n]` float64, from its length."""
        half = lengths.square() / 2
        return -half if self.apart is None else -half - self.apart / 2


def points_of(raw: Tensor, metric: str) -> Points:
    """Rows whose squared distances order neighbours as an angular metric does, centred, float64."""
    if metric == "cosine":
        rows = raw.double()
    elif metric == "correlation":
        rows = raw.double()
        rows = rows - reduce(rows, "n d -> n 1", "mean")
        rows[raw.amin(dim=1) == raw.amax(dim=1)] = 0
    else:
        known = ", ".join(get_args(Metric))
        raise UsageError(f"unknown metric '{metric}'", hint=f"use one of: {known}")
    # A zero row has cosine 0 with every other: squared distance 2.
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    zero = lengths.squeeze(1) == 0
    apart = zero.double() if bool(zero.any()) else None
    lengths = torch.where(lengths > 0, lengths, 1.0)
    rows = rows / lengths if rows is raw else rows.div_(lengths)
    return Points(rows.sub_(column_means(rows)), apart, rounding=2.0**-50)


def nearest_rows(points: Points, k: int, dtype: torch.dtype) -> Neighbours:
    """The k nearest rows of each; float32 is searched first where given, with the same result."""
    n = len(points.rows)
    lengths = torch.linalg.vector_norm(points.rows, dim=1)
    bias = points.bias(lengths)
    index = torch.empty(n, k, dtype=torch.int64, device=bias.device)
    searched = _Searched([], [], torch.arange(n, device=bias.device))
    if dtype == torch.float32:
        searched = _screened(points, lengths.float(), bias.float(), index)
    found = []
    for part, columns in searched.parts():
        if columns is None:
            scores = points.rows[part] @ points.rows.mT + bias
            scores[torch.arange(len(part), device=bias.device), part] = -torch.inf
        else:
            own = rearrange(part, "b -> b 1")
            scores = torch.einsum("b m d, b d -> b m", points.rows[columns], points.rows[part])
            scores = (scores + bias[columns]).masked_fill_(columns == own, -torch.inf)
        near, starts, count = _with_ties(scores, points, lengths[part], k)
        near = near if columns is None else columns.gather(1, near)
        found.append((part, _cut(near, starts, count, k, part)))
    if any(one.weight is not None for _, one in found):
        return _merged(index, found)
    for part, one in found:
        index[part] = one.near
    return Neighbours(index)


class _Searched(NamedTuple):
    """Rows that are searched in float64: some among a few columns `[b, m]`, others among all."""

    rows: list[Tensor]
    columns: list[Tensor]
    among_all: Tensor

    def parts(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Rows with the columns to look at; None for all."""
        yield from zip(self.rows, self.columns, strict=True)
        yield from ((part, None) for part in self.among_all.split(BLOCK))


def _screened(points: Points, lengths: Tensor, bias: Tensor, index: Tensor) -> _Searched:
    """Fill `index` by float32 products; the rows of which that is not sure."""
    rows, (n, k) = points.rows.float(), index.shape
    whole = symmetric_product(rows) if n**2 <= share(TEMPORARY_NUMBERS) else None
    searched, wide = _Searched([], [], index[:0, 0]), min(CANDIDATES * k, n)
    at_once = max(1, CHUNK_NUMBERS // (wide * rows.shape[1]))
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        scores = rows[part] @ rows.mT if whole is None else whole[part]
        scores += bias
        here = torch.arange(len(scores), device=bias.device)
        scores[here, here + start] = -torch.inf
        values, columns = torch.topk(scores, k + 1, dim=1)
        index[part] = columns[:, :k]
        gap = (values[:, :-1] - values[:, 1:]).amin(dim=1)
        error = _error(lengths[part], values[:, k - 1], points, torch.float32)
        doubtful = torch.nonzero(gap <= 2 * error).squeeze(1)
        values, columns = torch.topk(scores[doubtful], wide, dim=1)
        # What float64 could count among the nearest is not further behind the last of them.
        few = values[:, -1] < values[:, k - 1] - 3 * error[doubtful]
        searched.rows.extend((doubtful[few] + start).split(at_once))
        searched.columns.extend(columns[few].split(at_once))
        searched = searched._replace(
            among_all=torch.cat([searched.among_all, doubtful[~few] + start])
        )
    return searched


def _error(lengths: Tensor, last: Tensor, points: Points, dtype: torch.dtype) -> Tensor:
    """How far a score that reaches `last` may be off, `[b]`."""
    # A row that lies as near as the last neighbour is not longer than the row itself and that
    # distance together. The error of a product of d terms grows with the root of d.
    unit = torch.finfo(dtype).eps / 2
    distance = (lengths.square() - 2 * last).clamp(min=0).sqrt()
    longest = lengths + distance
    error = unit * ((8 + points.rows.shape[1] ** 0.5) * lengths + 4 * longest) * longest
    return error + points.rounding * (lengths + longest + points.rounding)


def _with_ties(
    scores: Tensor, points: Points, lengths: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns of the k best scores and their ties, which start a new tie, and their number."""
    values, columns = torch.topk(scores, k + 1, dim=1)
    last = values[:, k - 1]
    tied = 2 * _error(lengths, last, points, torch.float64)
    count = torch.full_like(columns[:, 0], k)
    over = torch.nonzero(values[:, k] >= last - tied).squeeze(1)
    if len(over):
        reach = rearrange(last[over] - tied[over], "b -> b 1")
        count[over] = (scores[over] >= reach).sum(dim=1)
        values, columns = torch.topk(scores, int(count.max()), dim=1)
    starts = torch.ones_like(columns, dtype=torch.bool)
    starts[:, 1:] = values[:, :-1] - values[:, 1:] > rearrange(tied, "b -> b 1")
    return columns, starts, count


def _cut(columns: Tensor, starts: Tensor, count: Tensor, k: int, rows: Tensor) -> Neighbours:
    """The first k places of ordered columns, those of a tie at the end shared."""
    width = columns.shape[1]
    place = torch.arange(width, device=columns.device).expand(columns.shape)
    starts = starts | (place == rearrange(count, "b -> b 1"))
    first = torch.cummax(torch.where(starts, place, 0), dim=1).values
    following = torch.where(starts, place, width).roll(-1, dims=1)
    following[:, -1] = width
    following = torch.cummin(following.flip(1), dim=1).values.flip(1)
    weight = ((k - first).double() / (following - first)).clamp(0, 1)
    if bool((following[:, :k] - first[:, :k] == 1).all()):
        return Neighbours(columns[:, :k])
    used = int((weight > 0).sum(dim=1).max())
    weight, columns = weight[:, :used], columns[:, :used]
    rank = ((first + following + 1) / 2).double()[:, :used]
    return Neighbours(torch.where(weight > 0, columns, rearrange(rows, "b -> b 1")), rank, weight)


def _merged(index: Tensor, found: list[tuple[Tensor, Neighbours]]) -> Neighbours:
    """Lists without ties, and those of some rows, in one width."""
    (n, k), width = index.shape, max(one.near.shape[1] for _, one in found)
    own = rearrange(torch.arange(n, device=index.device), "n -> n 1")
    whole = torch.cat([index, own.expand(n, width - k)], dim=1)
    plain = Neighbours(whole)
    rank, weight = plain.ranks().clone(), plain.weights().clone()
    weight[:, k:] = 0
    for part, one in found:
        have = one.near.shape[1]
        whole[part] = torch.cat([one.near, own[part].expand(len(part), width - have)], dim=1)
        rank[part, :have], weight[part, :have] = one.ranks(), one.weights()
        weight[part, have:] = 0
    return Neighbours(whole, rank, weight)


def remaining(listed: Neighbours, rows: Tensor, n: int, k: int) -> Neighbours | None:
    """Neighbours among rows that are left, out of lists of all n; None if one ends too soon."""
    index = listed.near[rows]
    position = torch.full((n,), -1, device=index.device)
    position[rows] = torch.arange(len(rows), device=index.device)
    columns, ranks = position[index], listed.ranks()[rows]
    there = (columns >= 0) & (listed.weights()[rows] > 0)
    count = there.sum(dim=1)
    if int(count.min()) < k:
        return None
    order = torch.argsort((~there).to(torch.uint8), dim=1, stable=True)
    columns, ranks = columns.gather(1, order), ranks.gather(1, order)
    starts = torch.ones_like(columns, dtype=torch.bool)
    starts[:, 1:] = ranks[:, 1:] != ranks[:, :-1]
    own = torch.arange(len(rows), device=index.device)
    return _cut(columns, starts, count, k, own)
