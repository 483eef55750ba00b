"""Lineage from weights: what two models share, and whether a base fits its parents.

Three readings of the weights tell models apart. *Namesakes*: unit i of one model resembles unit i
of the other beyond what any other order gives (an exact permutation test) only if both began from
the same initial weights. *Gains* of the norms begin as ones in every model, so that they agree only
where training was shared. *Distance* orders what remains.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.table import Table
from repsim.merging.checkpoint import TYPES, TensorSource
from repsim.merging.sampling import ModelLike, open_sources, sample_rows, shared_tensors

#: Standard deviations above every other order of units from which one origin is taken as found.
FOUND = 6.0
#: Correlation of norm gains from which training was shared, and not the initial weights alone. Set
#: after a look at 20 models of 1.3M parameters: at most 0.23 where only initial weights are shared,
#: above 0.3 where more than a tenth of the training is.
SHARED_TRAINING = 0.3
#: Distance, in mean norms, under which one is a fine-tuned copy of the other or both of one base.
FINE_TUNED = 0.1
#: Share of units found under another number from which a model is a re-ordered copy.
REORDERED = 0.5
#: Cosine of two updates from which what is called their base is no ancestor of them: siblings of
#: equal dose give 0.5, unrelated models more.
NO_BASE = 0.45
_BLOCKS, _LEAST_GAINS = 8, 16
_RELATIONS = {
    "same weights": "the same weights",
    "fine-tuned": "one is fine-tuned from the other, or both from one base",
    "shared training": "forks: they share initial weights and part of their training",
    "shared initialisation": "trained apart from the same initial weights",
    "re-ordered copy": "the units of one in another order",
    "unrelated": "no common origin is seen (a rotated copy would look the same)",
    "other shapes": "no matrices of one name and shape",
}
#: Relations of models with one origin, whose weights stand in the same coordinates.
ONE_ORIGIN = ("same weights", "fine-tuned", "shared training", "shared initialisation")


class LineageTable(Table):
    """One row per pair of models: what they share, and what it was told from.

    Example:
        >>> table = LineageTable([{"model_a": "a", "model_b": "b", "relation": "unrelated"}])
        >>> table.relation("b", "a")
        'unrelated'
    """

    SCHEMA = "repsim/lineage/1"
    STEM = "lineage"
    COLUMNS: ClassVar = {
        "model_a": ("string", "one model"),
        "model_b": ("string", "the other"),
        "relation": ("string", "; ".join(f"{name}: {text}" for name, text in _RELATIONS.items())),
        "cosine": ("float", "mean cosine of the body's matrices"),
        "distance": ("float", "distance over the mean norm of the two"),
        "deviations": ("float", "standard deviations by which units resemble their namesakes"),
        "unit_match": ("float", "share of units most like their namesake, beyond chance"),
        "reordered": ("float", "share of MLP units found under another number (cosine > 0.9)"),
        "gain_correlation": ("float", "mean correlation of norm gains and biases"),
        "tensors": ("int", "matrices of which rows were read"),
        "megabytes": ("float", "read from both models"),
    }

    def relation(self, a: str, b: str) -> str:
        """The relation of two models, in either order.

        Raises:
            UsageError: The pair is not in the table.
        """
        found = [*self.where(model_a=a, model_b=b).rows(), *self.where(model_a=b, model_b=a).rows()]
        if not found:
            raise UsageError(f"no row for '{a}' and '{b}'", hint=f"models: {self.models()}")
        return str(found[0]["relation"])

    def models(self) -> list[str]:
        """Names of the models."""
        return self.unique("model_a", "model_b")


@dataclasses.dataclass(frozen=True)
class BaseFinding:
    """Whether a base can be the ancestor of some parents.

    Attributes:
        plausible: Whether it can.
        why: The reason in words.
        update_cosine: Largest cosine of two parents' updates from it, -1 to 1; NaN for one parent.
        relations: Parent -> its relation to the base.
    """

    plausible: bool
    why: str
    update_cosine: float
    relations: dict[str, str]


def lineage(
    models: Sequence[ModelLike], *, names: Sequence[str] | None = None, max_megabytes: float = 300
) -> LineageTable:
    """What every two of some models share: weights, training, initial weights, or nothing.

    Args:
        models: Two models or more: folders, "zoo:NAME", hub ids, `ModelRef` or state dicts.
        names: Names in the table; those of the models by default.
        max_megabytes: Most that is read of a pair; rows of matrices are sampled to stay below.

    Returns:
        A row per pair. "Fine-tuned" and "shared training" are read from distance and norm gains at
        thresholds that were set on models of known history; see the columns for the raw readings.

    Raises:
        InputError: A model is not there, or its files are damaged.
        UsageError: Fewer than two models.

    Example:
        >>> table = lineage(["zoo:eng-fork", "zoo:deu-fork", "zoo:eng-2"])
        >>> table.relation("eng-fork", "deu-fork"), table.relation("eng-fork", "eng-2")
        ('shared training', 'unrelated')
    """
    sources = open_sources(models, names)
    rows = [_pair(a, b, max_megabytes) for a, b in itertools.combinations(sources, 2)]
    return LineageTable(rows, {"thresholds": {
        "deviations": FOUND, "gain_correlation": SHARED_TRAINING, "distance": FINE_TUNED,
    }})  # fmt: skip


def check_base(
    base: ModelLike, parents: Sequence[ModelLike], *, max_megabytes: float = 300
) -> BaseFinding:
    """Whether a model can be the common ancestor of some parents, told from their weights.

    A base lies nearer to every parent than the parents to each other, so that their updates from it
    point in different directions. From a sibling, or a model of another origin, they do not.

    Args:
        base: The model that is called their base.
        parents: One parent or more.
        max_megabytes: Most that is read of a pair.

    Raises:
        InputError: A model is not there, or its files are damaged.

    Example:
        >>> check_base("zoo:mixed", ["zoo:eng-fork", "zoo:deu-fork"]).plausible
        True
        >>> check_base("zoo:eng-2", ["zoo:eng-fork", "zoo:deu-fork"]).plausible
        False
    """
    root, *others = open_sources([base, *parents])
    rows = {other.name: _pair(root, other, max_megabytes) for other in others}
    relations = {name: str(row["relation"]) for name, row in rows.items()}
    strange = [name for name, found in relations.items() if found not in ONE_ORIGIN]
    cosines = [
        _update_cosine(rows[a.name], rows[b.name], _pair(a, b, max_megabytes))
        for a, b in itertools.combinations(others, 2)
        if not {relations[a.name], relations[b.name]} & {"other shapes"}
    ]
    most = max(cosines, default=math.nan)
    if strange:
        told = relations[strange[0]]
        why = f"'{strange[0]}' and '{root.name}' are not of one origin: {_RELATIONS[told]}"
        return BaseFinding(False, why, most, relations)
    if most >= NO_BASE:
        why = (
            f"updates from '{root.name}' have cosine {most:.2f}: the parents are as near to each "
            "other as to it, as siblings are"
        )
        return BaseFinding(False, why, most, relations)
    return BaseFinding(True, f"all parents are of one origin with '{root.name}'", most, relations)


# -- one pair -------------------------------------------------------------------------------------


def _pair(a: TensorSource, b: TensorSource, megabytes: float) -> dict[str, Any]:
    row: dict[str, Any] = {"model_a": a.name, "model_b": b.name}
    samples = sample_rows([a, b], megabytes / 3, blocks=_BLOCKS)
    if not samples:
        return row | {"relation": "other shapes", "tensors": 0, "megabytes": 0.0}
    cosines, matches = [], []
    squares = gap = above = spread = read = 0.0
    for sample in samples:
        x, y = sample.read(a), sample.read(b)
        inner, size_x, size_y = float((x * y).sum()), float((x**2).sum()), float((y**2).sum())
        read += x.size * sum(TYPES[s.headers[sample.tensor].dtype][1] for s in (a, b)) / 1e6
        squares, gap = squares + size_x + size_y, gap + float(((x - y) ** 2).sum())
        if size_x and size_y:
            cosines.append(inner / math.sqrt(size_x * size_y))
            excess, variance, match = _namesakes(x, y)
            above, spread = above + excess, spread + variance
            matches.append(match)
    gains = _gain_correlation(a, b)
    deviations = above / math.sqrt(spread) if spread > 0 else math.nan
    row |= {
        "cosine": float(np.mean(cosines)) if cosines else None,
        "distance": math.sqrt(2 * gap / squares) if squares else None,
        "deviations": deviations,
        "unit_match": float(np.mean(matches)) if matches else None,
        "gain_correlation": gains,
        "tensors": len(samples),
    }
    one_origin = row["distance"] == 0 or deviations > FOUND
    # Units may be re-ordered in the MLP alone, while attention still tells one origin.
    mixed = one_origin and cosines and max(cosines) > 0.9 and float(np.mean(matches)) < 0.9
    searched = mixed or not one_origin
    row["reordered"], more = _reordered(a, b, megabytes / 3) if searched else (0.0, 0.0)
    row["megabytes"] = read + more
    return row | {"relation": _relation(row)}


def _relation(row: Mapping[str, Any]) -> str:
    """The relation that the readings of a pair speak for."""
    if row["distance"] == 0:
        return "same weights"
    if row["reordered"] >= REORDERED:
        return "re-ordered copy"
    if not row["deviations"] > FOUND:
        return "unrelated"
    if row["distance"] < FINE_TUNED:
        return "fine-tuned"
    gains = row["gain_correlation"]
    if gains is None or math.isnan(gains):  # no gains that differ: told by the matrices alone
        gains = row["cosine"]
    return "shared training" if gains >= SHARED_TRAINING else "shared initialisation"


def _namesakes(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Excess similarity of namesakes, its variance over orders (Mantel 1967), and matches."""
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    kept = (norms[0] > 0) & (norms[1] > 0)
    m = int(kept.sum())
    if m < 3:
        return 0.0, 0.0, 0.0
    similar = (x[kept] / norms[0][kept, None]) @ (y[kept] / norms[1][kept, None]).T
    excess = float(np.trace(similar) - similar.sum() / m)
    centred = similar - similar.mean(0) - similar.mean(1, keepdims=True) + similar.mean()
    hits = float((similar.argmax(axis=1) == np.arange(m)).mean())
    return excess, float((centred**2).sum() / (m - 1)), (hits - 1 / m) / (1 - 1 / m)


def _gain_correlation(a: TensorSource, b: TensorSource) -> float:
    """Mean correlation of the one-dimensional tensors, which begin as constants in every model."""
    found = []
    for name, shape in shared_tensors([a, b]):
        if len(shape) == 1 and shape[0] >= _LEAST_GAINS:
            x, y = (source.read(name).double().numpy() for source in (a, b))
            if x.std() > 0 and y.std() > 0:
                found.append(float(np.corrcoef(x, y)[0, 1]))
    return float(np.mean(found)) if found else math.nan


def _reordered(a: TensorSource, b: TensorSource, megabytes: float) -> tuple[float, float]:
    """Share of sampled units of a wide matrix that stand in the other model under another number.

    Units of the widest side of one block's largest matrix, by rows, or by columns where a family
    stores its matrices transposed; the megabytes that were read come beside it.
    """
    matrices = sample_rows([a, b], math.inf, blocks=3)
    if not matrices:
        return 0.0, 0.0
    largest = max(matrices, key=lambda s: math.prod(a.headers[s.tensor].shape)).tensor
    shape = a.headers[largest].shape
    size = sum(TYPES[source.headers[largest].dtype][1] for source in (a, b))
    if math.prod(shape) * size / 1e6 > 2 * megabytes:
        return math.nan, 0.0
    best = 0.0
    wide = [s.tensor for s in matrices if a.headers[s.tensor].shape == shape]
    for name in wide[:2]:
        x, y = (source.read(name).double().numpy() for source in (a, b))
        for units, others in ((x, y), (x.T, y.T)):
            chosen = np.linspace(0, len(units) - 1, min(256, len(units))).round().astype(int)
            norms = np.linalg.norm(units[chosen], axis=1), np.linalg.norm(others, axis=1)
            scale = np.maximum(np.outer(*norms), np.finfo(float).tiny)
            similar = units[chosen] @ others.T / scale
            nearest = similar.argmax(axis=1)
            hit = (similar.max(axis=1) > 0.9) & (nearest != chosen)
            best = max(best, float(hit.mean()))
    return best, len(wide[:2]) * math.prod(shape) * size / 1e6


def _update_cosine(a: Mapping[str, Any], b: Mapping[str, Any], between: Mapping[str, Any]) -> float:
    """Cosine of two updates by the law of cosines, from the distances to the base and between."""
    one, other, side = (float(row["distance"]) for row in (a, b, between))
    if not one or not other:
        return 0.0  # a parent that is the base itself has no update
    return (one**2 + other**2 - side**2) / (2 * one * other)
