"""The tests on models: activations read, values computed, comparisons decided."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core import Measure, ModelRef, ParallelCorpus
from repsim.measures import Features, compute_grid
from repsim.studies.measure_benchmark.comparisons import Comparison, Pair, outcome, rows_of

if TYPE_CHECKING:
    from repsim.models.load import LoadedModel

#: Standard deviation of the noise on a tensor of weights over that of its entries. Steps of 5 %
#: were chosen after a first look: with steps of 40 % 41 of 49 measures were always right.
NOISE = (0.2, 0.21, 0.2205, 0.2315, 0.2431, 0.2553)

Rows = list[dict[str, Any]]
Layers = list[Features]
#: Told how many values were computed.
Advance = Callable[[int], Any]


def model_rows(
    ref: ModelRef,
    corpus: ParallelCorpus,
    language: str,
    measures: Sequence[Measure],
    advance: Advance,
) -> Rows:
    """Tests of layers and of noise on one model, reading one language."""
    from repsim.models import load_model

    loaded = load_model(ref, label=ref.name)
    clean = _layers(loaded, corpus, language)
    noisy = []
    for seed, strength in enumerate(NOISE):
        with _noise(loaded, strength, seed) as changed:
            noisy.append(_layers(changed, corpus, language))
    rows: Rows = []
    for measure in measures:
        found = _layer_outcomes(clean, measure, ref.name, language)
        for layer in range(1, len(clean)):
            values = [
                float(compute_grid(measure, [clean[layer]], [noise[layer]])[0, 0])
                for noise in noisy
            ]
            found["noise", ref.name, language, layer] = [
                outcome(near, far, measure) for near, far in itertools.combinations(values, 2)
            ]
        rows += rows_of(found, measure)
        advance(model_cells(len(clean)))
    return rows


def model_cells(layers: int) -> int:
    """Values that a measure takes for one model."""
    return layers * (layers - 1) // 2 + (layers - 1) * len(NOISE)


def _layer_outcomes(
    layers: Layers, measure: Measure, unit: str, language: str
) -> dict[tuple[str, str, str, int], list[float]]:
    """Of three layers in order, the two nearer ones must be more alike than the outer ones."""
    above = np.triu(np.ones((len(layers), len(layers)), dtype=bool), 1)
    value = compute_grid(measure, layers, layers, above)
    found: dict[tuple[str, str, str, int], list[float]] = {}
    for i, j, k in itertools.combinations(range(len(layers)), 3):
        hits = found.setdefault(("layers", unit, language, i), [])
        hits += [outcome(near, value[i, k], measure) for near in (value[i, j], value[j, k])]
    return found


def text_rows(
    refs: Sequence[ModelRef],
    corpus: ParallelCorpus,
    language: str,
    wanted: Sequence[Comparison],
    measures: Sequence[Measure],
    advance: Advance,
) -> Rows:
    """Tests of seeds and forks on one text."""
    from repsim.models import load_model

    names = {name for comparison in wanted for name in (*comparison.near, *comparison.far)}
    read = {
        ref.name: _layers(load_model(ref, label=ref.name), corpus, language)
        for ref in refs
        if ref.name in names
    }
    rows: Rows = []
    for measure in measures:
        values: dict[tuple[Pair, int], float] = {}
        found: dict[tuple[str, str, str, int], list[float]] = {}
        for comparison in wanted:
            for layer in range(1, len(read[comparison.unit])):
                near, far = (
                    _value(values, pair, layer, read, measure)
                    for pair in (comparison.near, comparison.far)
                )
                key = (comparison.test, comparison.unit, language, layer)
                found.setdefault(key, []).append(outcome(near, far, measure))
        rows += rows_of(found, measure)
        advance(text_cells(wanted, len(next(iter(read.values())))))
    return rows


def text_cells(wanted: Iterable[Comparison], layers: int) -> int:
    """Values that a symmetric measure takes for the comparisons of a text."""
    pairs = {frozenset(pair) for comparison in wanted for pair in (comparison.near, comparison.far)}
    return len(pairs) * (layers - 1)


def _value(
    known: dict[tuple[Pair, int], float],
    pair: Pair,
    layer: int,
    read: dict[str, Layers],
    measure: Measure,
) -> float:
    """The value of a pair at a layer, computed once."""
    a, b = sorted(pair) if measure.symmetric else pair
    if ((a, b), layer) not in known:
        grid = compute_grid(measure, [read[a][layer]], [read[b][layer]])
        known[(a, b), layer] = float(grid[0, 0])
    return known[(a, b), layer]


def _layers(loaded: LoadedModel, corpus: ParallelCorpus, language: str) -> Layers:
    """Sentence vectors of every layer; nothing stays on disk."""
    from repsim.activations import extract

    with tempfile.TemporaryDirectory() as folder:
        (acts,) = extract(loaded, corpus, [language], cache=Path(folder))
        return [Features(np.array(acts.array("resid", i))) for i in acts.layers["resid"]]


@contextmanager
def _noise(loaded: LoadedModel, strength: float, seed: int) -> Iterator[LoadedModel]:
    """The model with Gaussian noise on its weights, which are put back afterwards."""
    import dataclasses

    import torch

    kept = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                scale = strength * parameter.std(correction=0)
                parameter.add_(scale * noise.to(parameter))
        # Without its hash the cache cannot answer for the weights that were there before.
        yield dataclasses.replace(loaded, ref=dataclasses.replace(loaded.ref, weights_hash=""))
    finally:
        with torch.no_grad():
            for name, parameter in loaded.model.named_parameters():
                parameter.copy_(kept[name])
