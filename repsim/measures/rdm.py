"""Dissimilarities between the sentences of one representation: what RSA compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from repsim.core import Activations, UsageError
from repsim.core.table import Table
from repsim.measures.features import Features
from repsim.measures.nearest import Metric

#: A matrix of more items cannot be read, and its table has a row per pair.
MAX_ITEMS = 1000


class DissimilarityTable(Table):
    """Dissimilarities, one row per pair of items of one model and layer."""

    SCHEMA = "repsim/dissimilarities/1"
    STEM = "dissimilarities"
    COLUMNS: ClassVar = {
        "model": ("string", "name of the model"),
        "point": ("string", "hook point"),
        "layer": ("int", "0 = embedding, i = after block i"),
        "metric": ("string", "metric of the dissimilarity"),
        "item_a": ("string", "first item: a sentence, or the mean of a document"),
        "item_b": ("string", "second item"),
        "language_a": ("string", "language of the first item"),
        "language_b": ("string", "language of the second item"),
        "value": ("float", "dissimilarity"),
    }


def dissimilarities(
    activations: Sequence[Activations],
    *,
    layer: int | str = "middle",
    point: str = "resid",
    metric: Metric = "correlation",
    by: str = "document",
) -> DissimilarityTable:
    """Dissimilarity of every pair of items, of each model over all of its languages.

    Args:
        activations: Of one model or several; those of one model on several languages are put into
            one matrix, language by language.
        layer: A layer, or "middle" for half of the depth of each model.
        point: Hook point.
        metric: "correlation" (1 - Pearson), "cosine", "euclidean" or "sqeuclidean".
        by: "document" for the mean of each document, where there are documents, or "sentence".

    Returns:
        The table; `repsim.plots.FIGURES["rdm"]` draws it.

    Raises:
        UsageError: No such layer, or more than 1,000 items of a model.

    Source: Kriegeskorte, Mur, Bandettini 2008, Frontiers in Systems Neuroscience 2.

    Example:
        >>> x = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
        >>> acts = [Activations.from_arrays("m", [x])]
        >>> table = dissimilarities(acts, point="", metric="euclidean")
        >>> table["value"].round(3).tolist()
        [1.414, 2.236, 2.236]
    """
    if by not in ("document", "sentence"):
        raise UsageError(f"items by '{by}'", hint="by='document' or by='sentence'")
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(one.model.name for one in activations):
        mine = [one for one in activations if one.model.name == name]
        layers = mine[0].layers.get(point, ())
        chosen = layers[len(layers) // 2] if layer == "middle" and layers else layer
        if chosen not in layers:
            raise UsageError(
                f"layer {layer} of '{name}' was not extracted at hook point '{point}'",
                hint=f"layers: {', '.join(map(str, layers)) or 'none'}",
            )
        parts = [_items(one, point, int(chosen), by) for one in mine]
        ids = [(one.language, item) for one, (names, _) in zip(mine, parts, strict=True)
               for item in names]  # fmt: skip
        if len(ids) > MAX_ITEMS:
            raise UsageError(
                f"{len(ids):,} items of '{name}' are more than {MAX_ITEMS:,}",
                hint="read fewer sentences, or give documents and by='document'",
            )
        features = Features(np.concatenate([means for _, means in parts]))
        pairs = np.column_stack(np.triu_indices(len(ids), 1)).tolist()
        shared = {"model": name, "point": point, "layer": int(chosen), "metric": metric}
        rows += [
            {**shared, "language_a": ids[i][0], "item_a": ids[i][1], "language_b": ids[j][0],
             "item_b": ids[j][1], "value": value}
            for (i, j), value in zip(pairs, features.rdm(metric).tolist(), strict=True)
        ]  # fmt: skip
    return DissimilarityTable(rows)


def _items(one: Activations, point: str, layer: int, by: str) -> tuple[list[str], np.ndarray]:
    """Names and vectors of sentences, or of documents in the order of their first sentence."""
    array = np.asarray(one.array(point, layer), dtype=np.float64)
    if by == "sentence" or not one.documents:
        return list(one.ids), array
    names = list(dict.fromkeys(one.documents))
    place = np.array([names.index(document) for document in one.documents])
    means = np.zeros((len(names), array.shape[1]))
    np.add.at(means, place, array)
    return names, means / np.bincount(place)[:, None]
