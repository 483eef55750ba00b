"""Activations of a merge beside its parents', block by block: scale, variance, similarity."""

from __future__ import annotations

import itertools
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.activations.extraction import extract
from repsim.core import Activations, ParallelCorpus
from repsim.measures.base import MeasureWarning, measure
from repsim.mergeability.diagnosis.readings import Bench
from repsim.models.arch import spec_for
from repsim.models.causal import CausalModel
from repsim.models.load import LoadedModel

#: Sentences of a language that activations are read on, and the longest, in characters.
SENTENCES, LONGEST = 64, 300


def block_readings(bench: Bench, code: str) -> list[dict[str, Any]]:
    """Rows of a `DiagnosisTable`: what happens after each block, by sentence vectors."""
    corpus = _sentences(bench, code)
    with tempfile.TemporaryDirectory() as cache:
        made, *parents = [_activations(one, corpus, cache) for one in (bench.made, *bench.parents)]
        shared = set.intersection(*(set(each.layers["resid"]) for each in (made, *parents)))
        return [
            row | {"part": "embedding" if layer == 0 else str(layer - 1), "language": code}
            for layer in sorted(shared)
            for row in _at(
                made.array("resid", layer),
                {p.ref.name: acts.array("resid", layer)
                 for p, acts in zip(bench.parents, parents, strict=True)},
            )
        ]  # fmt: skip


def _at(made: np.ndarray, parents: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Readings after one block."""
    arrays = [np.asarray(each, np.float64) for each in (made, *parents.values())]
    norms = [float(np.sqrt((each**2).mean())) for each in arrays]
    variances = [float(each.var(axis=0).sum()) for each in arrays]
    for name, (mine, *theirs) in (("norm", norms), ("variance", variances)):
        mean = float(np.mean(theirs))
        if mean > 0:
            yield {"reading": name, "value": mine / mean, "parent": "", "parent_value": 1.0}
    with warnings.catch_warnings():
        # A broken model has rows that outweigh all others: that is what is looked for here.
        warnings.simplefilter("ignore", MeasureWarning)
        for number, (name, array) in enumerate(zip(parents, arrays[1:], strict=True), start=1):
            other = arrays[1 + number % (len(arrays) - 1)]
            yield {"reading": "similarity", "value": measure(arrays[0], array, "cka"),
                   "parent": name, "parent_value": measure(array, other, "cka")}  # fmt: skip


def _activations(lm: CausalModel, corpus: ParallelCorpus, cache: str) -> Activations:
    network: Any = lm.model
    spec = spec_for(network.config.model_type, generic=True)
    loaded = LoadedModel(lm.ref, network.base_model, lm.tokenizer, spec)
    return extract(loaded, corpus, cache=cache)[0]


def _sentences(bench: Bench, code: str) -> ParallelCorpus:
    """Lines of the held-out documents, or their sentences where lines are long."""
    found = itertools.chain.from_iterable(_lines(text) for text in bench.text.texts[code])
    lines = list(itertools.islice(dict.fromkeys(found), SENTENCES))
    return ParallelCorpus("diagnosis", tuple(map(str, range(len(lines)))), {code: tuple(lines)})


def _lines(text: str) -> Sequence[str]:
    lines = [line.strip() for line in text.splitlines()]
    if any(len(line) > LONGEST for line in lines):
        lines = [part for line in lines for part in re.split(r"(?<=[.!?。！？।])\s*", line)]
    return [line[:LONGEST] for line in lines if len(line) > 1]
