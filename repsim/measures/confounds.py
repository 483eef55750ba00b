"""Similarity that is only due to a covariate both sides can see, such as sentence length.

A scalar that carries 10 % of the variance of each of two otherwise unrelated representations gives
them a debiased CKA of 0.7. So the measure is taken a second time after the covariates were
regressed out of every unit of both sides; both numbers stand beside each other, the raw one and the
`partial`.

On parallel text the two sides have their own covariates (the lengths of the sentence and of its
translation); all of them are removed from both, as in a partial correlation.

Reference: Cui, Kumar, Marttinen, Kaski 2022 (arXiv 2202.00095).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core import Activations, Measure, UsageError
from repsim.measures.base import get_measure
from repsim.measures.features import as_features


def shared_covariates(a: Activations, b: Activations, names: Sequence[str]) -> np.ndarray:
    """Covariates of both sides, one column each, those that are equal on both sides once.

    Args:
        a: One side.
        b: The other, same sentences.
        names: Which covariates ("log_length").

    Returns:
        `[n, c]` float64.

    Raises:
        UsageError: A side does not carry a covariate.
    """
    columns: list[np.ndarray] = []
    for name in names:
        for side in (a, b):
            if name not in side.covariates:
                raise UsageError(
                    f"the activations of {side.model.name} on {side.language} carry no covariate "
                    f"'{name}'",
                    hint=f"they carry: {', '.join(side.covariates) or 'none'}; to remove none: "
                    "Statistics(covariates=())",
                )
            column = np.asarray(side.covariates[name], dtype=np.float64)
            if not any(np.array_equal(column, known) for known in columns):
                columns.append(column)
    return np.stack(columns, axis=1) if columns else np.empty((len(a), 0))


def partial(name: str | Measure, x: Any, y: Any, covariates: Any, **params: Any) -> float:
    """A measure after the covariates were regressed out of every unit of both sides.

    Args:
        name: Name of a measure, or the measure.
        x: `[n, d1]`.
        y: `[n, d2]`, same rows.
        covariates: `[n]` or `[n, c]`.
        **params: Parameters of the measure.

    Raises:
        InputError: Covariates of another length, not finite, or as many as rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> length = rng.normal(size=(300, 1))
        >>> x, y = (rng.normal(size=(300, 8)) + length * rng.normal(size=(1, 8)) for _ in range(2))
        >>> raw = get_measure("cka")(x, y)
        >>> bool(raw > 0.5), bool(abs(partial("cka", x, y, length)) < 0.05)
        (True, True)
    """
    left, right = (as_features(side).residualised(covariates) for side in (x, y))
    return get_measure(name)(left, right, **params)
