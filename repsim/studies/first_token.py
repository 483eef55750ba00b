"""Does the first token decide a similarity? The value with and without position 0, side by side.

In middle layers of many decoders the first token is 40-160 times as long as the others. Averaged
in, it makes a sentence vector a measure of length, and any two models nearly equal: published
values of 0.9998 come from it. It is left out everywhere here; this says what it would do.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core import Activations, ParallelCorpus
from repsim.core.similarity_summary import matched_cells

if TYPE_CHECKING:
    from repsim.models.load import LoadedModel

#: So many sentences of one language are read again, token by token.
SENTENCES = 60


def token_means(
    model: LoadedModel, corpus: ParallelCorpus, point: str, language: str
) -> dict[int, dict[str, Any]]:
    """Layer -> means `with_first` and `without` position 0, and median `ratio` of its length."""
    from repsim.activations import extract

    sample = corpus.select([language]).sample(SENTENCES)
    read = extract(model, sample, points=(point,), pooling="tokens", skip_first=False)[0]
    return {layer: first_token(read, point, layer) for layer in read.layers[point]}


def first_token(read: Activations, point: str, layer: int) -> dict[str, Any]:
    """Sentence means of one layer of token activations; see `token_means`."""
    rows = read.array(point, layer).astype(np.float64)
    sentence = np.array([name.rsplit("#", 1)[0] for name in read.ids])
    names, place = np.unique(sentence, return_inverse=True)
    first = read.covariates["position"] == 0
    lengths = np.linalg.norm(rows, axis=1)
    means = {}
    for kind, kept in (("with_first", np.ones(len(rows), dtype=bool)), ("without", ~first)):
        sums = np.zeros((len(names), rows.shape[1]))
        np.add.at(sums, place[kept], rows[kept])
        counts = np.bincount(place[kept], minlength=len(names))
        means[kind] = sums / np.maximum(counts, 1)[:, None]
    ratio = float(np.median(lengths[first]) / np.median(lengths[~first]))
    return {**means, "names": names.tolist(), "ratio": ratio}


def diagnoses(
    means: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]],
) -> list[dict[str, Any]]:
    """`diagnosis` of all models on the first language, and of each on its two languages."""
    first = {model: next(iter(of.values())) for model, of in means.items()}
    found = diagnosis(first) if len(first) > 1 else []
    for model, of in means.items():
        found += diagnosis({f"{model} on {language}": own for language, own in of.items()})
    return found


def diagnosis(means: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Debiased CKA of pairs of models at matched depth with and without position 0."""
    from repsim.measures import Features, get_measure

    cka, found = get_measure("cka"), []
    for a, b in itertools.combinations(means, 2):
        cells = [{"layer_a": i, "layer_b": j} for i in means[a] for j in means[b]]
        for cell in matched_cells(cells):
            x, y = means[a][cell["layer_a"]], means[b][cell["layer_b"]]
            shared = sorted(set(x["names"]) & set(y["names"]))
            values = {kind: cka(*(Features(_rows(side, kind, shared)) for side in (x, y)))
                      for kind in ("without", "with_first")}  # fmt: skip
            found.append({"model_a": a, "model_b": b, **cell, **values, "ratio_a": x["ratio"],
                          "ratio_b": y["ratio"], "n": len(shared)})  # fmt: skip
    return found


def _rows(side: Mapping[str, Any], kind: str, shared: Sequence[str]) -> np.ndarray:
    place = {name: row for row, name in enumerate(side["names"])}
    return np.asarray(side[kind][[place[name] for name in shared]])
