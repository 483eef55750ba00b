"""What the parameters of a merge ask for, as features: by how much updates count, and which share.

Task arithmetic with weight 1 adds up what a mean would halve, and a density of 0.2 drops four
entries of five; neither shows in the parents.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from repsim.core.errors import UsageError

#: Features of a recipe, in the order of the list.
NAMES = ("update_scale", "density")


def recipe_features(method: str, parameters: Mapping[str, Any], k: int) -> dict[str, float]:
    """Sum of the weights of the updates, and share of each update that is kept.

    Args:
        method: Name of a merge method.
        parameters: Those that are stated, one number for all models or one for each; others have
            the method's defaults.
        k: Number of models.

    Returns:
        Feature -> value: 1 and 1 for a mean; NaN of a method that is not known.

    Example:
        >>> recipe_features("task_arithmetic", {"weight": 0.7}, 2)
        {'update_scale': 1.4, 'density': 1.0}
        >>> recipe_features("ties", {"density": [0.25, 0.75]}, 2)
        {'update_scale': 1.0, 'density': 0.5}
    """
    from repsim.merging.methods import find_method

    try:
        declared = find_method(method)
    except UsageError:
        return dict.fromkeys(NAMES, math.nan)
    given = {**declared.defaults, **declared.model_defaults, **parameters}
    weights, densities, factors = (
        _by_model(given.get(name, 1.0), k) for name in ("weight", "density", "lambda")
    )
    adds = not all(_by_model(given.get("normalize", True), k))
    scale = (sum(weights) if adds else 1.0) * sum(factors) / k
    return {
        "update_scale": scale if declared.needs_base else 1.0,
        "density": sum(densities) / k,
    }


@functools.cache
def stated_features(method: str, parameters: str, k: int) -> tuple[float, ...]:
    """The same of parameters as JSON, in the order of `NAMES`; NaN where nothing is stated."""
    if not parameters:
        return (math.nan,) * len(NAMES)
    found = recipe_features(method, json.loads(parameters), k)
    return tuple(found[name] for name in NAMES)


def _by_model(value: float | Sequence[float], k: int) -> list[float]:
    values = [value] if isinstance(value, int | float) else list(value)
    return [float(one) for one in (values * k if len(values) == 1 else values)]
