"""CKA over minibatches: for more rows than fit; the value depends on the batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim.core.errors import InputError, UsageError
from repsim.core.measure import Rung
from repsim.measures.base import measure
from repsim.measures.cka import ROTATION_BLIND, GramProducts, gram_products, ratio
from repsim.measures.features import Features, require_same_rows


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
        self.add(gram_products([a.centered for a in xs], [a.centered for a in ys]))

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


def _minibatch_grid(
    xs: Sequence[Features], ys: Sequence[Features], *, batch_size: int
) -> np.ndarray:
    if batch_size < 4:
        raise UsageError(f"batch_size={batch_size} is not possible", hint="use at least 4")
    n = xs[0].n
    if n % batch_size:
        return np.full((len(xs), len(ys)), np.nan)
    stream = StreamingCKA()
    layers = {id(f): f.centered for f in [*xs, *ys]}
    for start in range(0, n, batch_size):
        batch = {
            key: _centered_batch(rows[start : start + batch_size]) for key, rows in layers.items()
        }
        stream.add(gram_products([batch[id(x)] for x in xs], [batch[id(y)] for y in ys]))
    return stream.values()


def _centered_batch(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=0, dtype=torch.float64).to(rows.dtype)


@measure(
    name="cka_minibatch",
    label="CKA (minibatch)",
    rung=Rung.L2,
    direction="similarity",
    range=(None, 1.0),
    invariances=ROTATION_BLIND,
    min_samples=4,
    definition="Sum of HSIC_1 over consecutive batches, then the ratio as in debiased CKA. NaN if "
    "the rows do not fill the batches.",
    reference="Nguyen, Raghu, Kornblith 2021, arXiv:2010.15327",
    estimator="numerator unbiased; the value depends on the batch size and on the order of rows.",
    aliases={"cka_minibatch50": {"batch_size": 50}},
    grid=_minibatch_grid,
    null_value=0.0,
)
def cka_minibatch(x: Features, y: Features, *, batch_size: int = 50) -> float:
    """Minibatch CKA over consecutive rows; `StreamingCKA` does it without holding them."""
    return float(_minibatch_grid([x], [y], batch_size=batch_size)[0, 0])
