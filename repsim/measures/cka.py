"""Centered kernel alignment: how alike are the two similarity structures of the rows?

For centered rows the Gram matrices K and L have zero row sums, and every linear estimator follows
from three numbers: `<K, L> = ||X'Y||^2`, the traces, and `sum k_ii l_ii`. So no n x n matrix is
centered, and nothing is added inside roots or clipped: a debiased value under zero is reported.

A few long rows make the diagonals most of `<K, L>`. So what is summed over tiles in the arrays' own
precision leaves the diagonals out; they are added, where wanted, in float64.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import InputError, UsageError
from repsim.core.measure import Rung
from repsim.measures.algebra import inner, u_centred
from repsim.measures.base import ROTATION_BLIND, similarity_measure
from repsim.measures.cka_by_units import effects_apart, sums_apart
from repsim.measures.cka_jackknife import cka_by_document, cka_replicates
from repsim.measures.cka_null import cka_moments
from repsim.measures.documents import by_size, centred_apart, inside
from repsim.measures.features import Features, Side, require_same_rows
from repsim.measures.pair_tiles import gram_tiles, tile_products

KORNBLITH = "Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414"

Estimator = Literal["debiased", "biased", "lange"]


def gram_inner(x: Features, y: Features) -> float:
    """`<K, L> = ||X'Y||^2` of the centered rows, by the cheaper of its two forms."""
    if x.n <= 4096 and 8 * x.n <= x.d * y.d:
        return inner(x.gram, y.gram)
    cross = x.compact.mT @ y.compact
    return inner(cross, cross)


def _estimate(
    cross: np.ndarray, traces: np.ndarray, diagonals: np.ndarray, n: int, estimator: Estimator
) -> np.ndarray:
    """HSIC up to a factor that only depends on n; `cross` without the diagonals."""
    if estimator == "biased":
        return cross + diagonals
    if estimator == "lange":
        return cross
    return cross - diagonals * 2 / (n - 2) + traces / ((n - 1) * (n - 2))


@dataclasses.dataclass(frozen=True)
class GramProducts:
    """What linear CKA of all pairs needs: inner products of Gram matrices off their diagonals."""

    cross: np.ndarray
    self_x: np.ndarray
    self_y: np.ndarray
    diagonal_x: np.ndarray
    diagonal_y: np.ndarray

    def hsic(self, estimator: Estimator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """HSIC of all pairs `[a, b]`, of each x with itself `[a]`, of each y `[b]`."""
        n = self.diagonal_x.shape[1]
        dx, dy = self.diagonal_x, self.diagonal_y
        tx, ty = dx.sum(axis=1), dy.sum(axis=1)
        return (
            _estimate(self.cross, np.outer(tx, ty), dx @ dy.T, n, estimator),
            _estimate(self.self_x, tx**2, (dx**2).sum(axis=1), n, estimator),
            _estimate(self.self_y, ty**2, (dy**2).sum(axis=1), n, estimator),
        )

    def cka(self, estimator: Estimator) -> np.ndarray:
        """CKA of all pairs, `[a, b]`; NaN where an HSIC of a side with itself is not positive."""
        return ratio(*self.hsic(estimator))


def ratio(cross: np.ndarray, self_x: np.ndarray, self_y: np.ndarray) -> np.ndarray:
    """`cross_ij / sqrt(self_i self_j)`, NaN where a side with itself is not positive."""
    squares = np.outer(self_x, self_y)
    defined = (self_x[:, None] > 0) & (self_y > 0)
    return np.where(defined, cross / np.sqrt(np.where(defined, squares, 1.0)), np.nan)


def gram_products(xs: Side, ys: Side) -> GramProducts:
    """Inner products of the Gram matrices of all pairs of layers, by the cheaper of two routes."""
    layers = list({id(f): f for f in [*xs, *ys]}.values())
    position = {id(f): i for i, f in enumerate(layers)}
    rows = [position[id(f)] for f in xs]
    columns = [position[id(f)] for f in ys]
    n = layers[0].n
    widths = np.array([f.d for f in layers], dtype=np.float64)
    centered = [f.centered for f in layers]
    diagonals = torch.stack([f.gram_diagonal for f in layers]).cpu().numpy()
    by_gram = n * n * (widths.sum() + len(layers) ** 2)
    # What a layer is with itself is kept: other partners need it too.
    own = (widths**2).sum() / 4
    by_covariance = 2 * n * (np.outer(widths[rows], widths[columns]).sum() + own)
    # Where a few rows hold most of the sums, float32 rounds off what the others say.
    if any(f.has_long_rows for f in layers):
        centered = [a.double() for a in centered]
    if by_gram <= by_covariance:
        products = _products_of_grams(centered)
        cross, squares = products[np.ix_(rows, columns)], products.diagonal()
    else:
        norms = {
            (i, j): _squared_norm(centered[i], centered[j])
            for i, j in itertools.product(rows, columns)
        }
        cross = np.array([[norms[i, j] for j in columns] for i in rows])
        cross -= diagonals[rows] @ diagonals[columns].T
        squares = np.array([_own_square(f, a) for f, a in zip(layers, centered, strict=True)])
        squares -= (diagonals**2).sum(axis=1)
    return GramProducts(cross, squares[rows], squares[columns], diagonals[rows], diagonals[columns])


def _own_square(x: Features, rows: Tensor) -> float:
    """`||X'X||^2`, kept: blocks of layers meet the same layer often."""

    def compute(_: Features) -> float:
        return _squared_norm(rows, rows)

    return x.remember(f"squares of covariances, {rows.dtype}", compute)


def _squared_norm(a: Tensor, b: Tensor) -> float:
    """`||A'B||^2`."""
    covariance = a.mT @ b
    return inner(covariance, covariance)


def _products_of_grams(layers: Sequence[Tensor]) -> np.ndarray:
    """`<K_i, K_j>` off the diagonals, `[l, l]`, tile by tile: O(l tile^2) memory."""
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=layers[0].device)
    for tile in gram_tiles(layers):
        if tile.on_diagonal:
            tile.values.triu_(1)
        total += 2 * tile_products(tile.values)
    return total.cpu().numpy()


def _linear_grid(estimator: Estimator) -> Callable[..., np.ndarray]:
    def grid(xs: Side, ys: Side) -> np.ndarray:
        return gram_products(xs, ys).cka(estimator)

    return grid


_rows_grid, _biased_grid, _lange_grid = map(_linear_grid, get_args(Estimator))


def _debiased_grid(xs: Side, ys: Side) -> np.ndarray:
    labels = xs[0].documents
    if labels is None:
        return _rows_grid(xs, ys)
    found = gram_products(xs, ys)
    cross, own = found.cross.copy(), [found.self_x.copy(), found.self_y.copy()]
    for number, index in enumerate(by_size(labels)):
        left, right = ([_inside(f, number, index) for f in side] for side in (xs, ys))
        cross -= np.array([[float(a @ b) for b in right] for a in left])
        own = [o - [float(a @ a) for a in s] for o, s in zip(own, (left, right), strict=True)]
    sums, effects = (
        [torch.stack([of(f) for f in side]).cpu().numpy() for side in (xs, ys)]
        for of in (sums_apart, effects_apart)
    )
    cross -= 2 * effects[0] @ sums[1].T
    own = [o - 2 * (e * s).sum(axis=1) for o, e, s in zip(own, effects, sums, strict=True)]
    return ratio(cross, *own)


def _inside(x: Features, number: int, index: Tensor) -> Tensor:
    """Gram entries inside some documents; kept where they are fewer than those of the rows."""

    def compute(side: Features) -> Tensor:
        return inside(side.centered, index)

    few = index.shape[0] * index.shape[1] ** 2 <= x.n * x.d and not x.is_permutation
    return x.remember(f"inside documents {number}", compute) if few else compute(x)


def _debiased_matrix(x: Features) -> Tensor:
    return u_centred(x.gram) if x.documents is None else centred_apart(x.gram, x.documents)


# -- the measures --------------------------------------------------------------------------------


@similarity_measure(
    name="cka",
    label="CKA (debiased)",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="HSIC_1(X, Y) / sqrt(HSIC_1(X, X) HSIC_1(Y, Y)) of linear kernels, HSIC_1 the "
    "unbiased estimator (U-centered Gram matrices). May be negative; never clipped. Where "
    "documents are known, over pairs of rows of different documents only.",
    reference="Song et al. 2012, JMLR 13; Székely and Rizzo 2014; " + KORNBLITH,
    estimator="numerator unbiased: 0 in expectation on independent data at any n and d. Intervals "
    "by jackknife; a bootstrap that repeats rows is biased upwards.",
    aliases={"cka_linear_debiased": {}, "cka_debiased": {}},
    grid=_debiased_grid,
    pair_matrix=_debiased_matrix,
    left_out=cka_replicates,
    by_document=cka_by_document,
    moments=cka_moments,
    documents_apart=True,
    approximate=lambda documents: (
        "under 30 documents the interval is rather too wide (98 % of nominal 95 % at 17)"
        if 0 < documents < 30
        else ""
    ),
    null_value=0.0,
)
def cka(x: Features, y: Features) -> float:
    """Debiased linear CKA."""
    return float(_debiased_grid([x], [y])[0, 0])


@similarity_measure(
    name="cka_biased",
    label="CKA (biased)",
    rung=Rung.L2,
    range=(0.0, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=2,
    definition="||X'Y||_F^2 / (||X'X||_F ||Y'Y||_F), columns centered (biased HSIC).",
    reference=KORNBLITH,
    estimator="biased upwards: about d/(n+d) on independent isotropic data. Compare with a null.",
    aliases={"cka_linear": {}},
    grid=_biased_grid,
    pair_matrix=lambda x: x.gram,
    max_width_ratio=1.0,
)
def cka_biased(x: Features, y: Features) -> float:
    """Linear CKA with the biased HSIC of the original paper."""
    return float(_biased_grid([x], [y])[0, 0])


@similarity_measure(
    name="cka_lange",
    label="CKA (Lange)",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=3,
    definition="Cosine of the centered Gram matrices without their diagonals. Not HSIC_1.",
    reference="Lange, Kwok, Matelsky, Wang, Rolnick, Kording 2023, arXiv:2211.16056",
    estimator="nearly unbiased; differs from the debiased estimate by O(1/n^2), 0.05 at n=5.",
    aliases={"cka_linear_lange": {}},
    grid=_lange_grid,
    pair_matrix=lambda x: x.gram.clone().fill_diagonal_(0),
)
def cka_lange(x: Features, y: Features) -> float:
    """Linear CKA of centered Gram matrices with the diagonal left out."""
    return float(_lange_grid([x], [y])[0, 0])


# -- minibatches: for more rows than fit ----------------------------------------------------------


class StreamingCKA:
    """Minibatch CKA: HSIC_1 of each batch, summed, then the ratio; nothing but sums is kept.

    Args:
        dtype: Precision of the products; sums are float64.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> stream = StreamingCKA()
        >>> for batch in np.split(x, 4):
        ...     stream.update(batch, -batch)
        >>> round(stream.value(), 6)
        1.0
    """

    def __init__(self, *, dtype: torch.dtype = torch.float64) -> None:
        self._dtype = dtype
        self._sums: list[np.ndarray] | None = None

    def update(self, x: Any, y: Any) -> None:
        """Add one batch.

        Args:
            x: `[b, d1]`, or a list of such arrays, one per layer.
            y: `[b, d2]`, or a list; the same rows.

        Raises:
            InputError: Fewer than 4 rows, or different numbers of rows.
            UsageError: Another number of layers than before.
        """
        xs, ys = (
            [Features(layer, dtype=self._dtype) for layer in _as_list(side)] for side in (x, y)
        )
        for left in xs:
            for right in ys:
                require_same_rows(left, right)
        if xs[0].n < 4:
            raise InputError(
                f"a batch of {xs[0].n} rows has no HSIC_1", hint="use batches of at least 4 rows"
            )
        self.add(gram_products(xs, ys))

    def add(self, products: GramProducts) -> None:
        """Add one batch whose Gram products are known."""
        terms = list(products.hsic("debiased"))
        if self._sums is None:
            self._sums = terms
        elif self._sums[0].shape != terms[0].shape:
            raise UsageError(
                f"this batch has {terms[0].shape} layers, those before {self._sums[0].shape}"
            )
        else:
            self._sums = [a + b for a, b in zip(self._sums, terms, strict=True)]

    def values(self) -> np.ndarray:
        """CKA of all pairs of layers, `[a, b]`.

        Raises:
            InputError: No batch was added.
        """
        if self._sums is None:
            raise InputError("no batch was added", hint="call update(x, y) first")
        return ratio(*self._sums)

    def value(self) -> float:
        """CKA of the one pair that was streamed.

        Raises:
            InputError: No batch was added.
            UsageError: Several layers were streamed.
        """
        values = self.values()
        if values.size != 1:
            raise UsageError(f"{values.shape} layers were streamed", hint="use values()")
        return float(values[0, 0])


def _as_list(side: Any) -> list[Any]:
    return list(side) if isinstance(side, (list, tuple)) else [side]


def _minibatch_grid(xs: Side, ys: Side, *, batch_size: int) -> np.ndarray:
    if batch_size < 4:
        raise UsageError(f"batch_size={batch_size} is not possible", hint="use at least 4")
    stream = StreamingCKA()
    layers = {id(f): f.centered for f in [*xs, *ys]}
    for rows in _batches(xs[0].n, batch_size):
        batch = {key: Features(whole[rows].double()) for key, whole in layers.items()}
        stream.add(gram_products([batch[id(x)] for x in xs], [batch[id(y)] for y in ys]))
    return stream.values()


def _batches(n: int, size: int) -> list[slice]:
    """Consecutive rows; a rest of under 4 rows, which has no HSIC_1, joins the batch before it."""
    starts = [start for start in range(0, n, size) if start == 0 or n - start >= 4]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


@similarity_measure(
    name="cka_minibatch",
    label="CKA (minibatch)",
    rung=Rung.L2,
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    cost="expensive",
    definition="Sum of HSIC_1 over consecutive batches, then the ratio as in debiased CKA. The "
    "last batch may be smaller; under 4 rows, it is joined to the one before.",
    reference="Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327",
    estimator="numerator unbiased; the value depends on the batch size and on the order of rows.",
    aliases={"cka_minibatch50": {"batch_size": 50}},
    grid=_minibatch_grid,
    null_value=0.0,
)
def cka_minibatch(x: Features, y: Features, *, batch_size: int = 50) -> float:
    """Minibatch CKA over consecutive rows; `StreamingCKA` does it without holding them."""
    return float(_minibatch_grid([x], [y], batch_size=batch_size)[0, 0])
