"""What a sweep will do: its units of work, and the key by which each is kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from repsim.core import Activations, InputError, Measure, UsageError
from repsim.core.files import hash_bytes, hash_json
from repsim.core.similarity_summary import matched_cells
from repsim.core.similarity_table import SimilarityTable
from repsim.measures.base import get_measure
from repsim.measures.documents import as_unit
from repsim.measures.statistics import Statistics

#: Part of every unit's key: raise it when the numbers of a unit change.
SWEEP_VERSION = "repsim/sweep/4"

Pairing = Literal["same text", "parallel text", "parallel text across models"]
Layers = Literal["auto", "all", "matched"]


@dataclasses.dataclass(frozen=True, eq=False)
class SweepUnit:
    """One pair of (model, language) with all its layers and measures: computed and kept at once.

    Attributes:
        a: Row side.
        b: Column side, same sentence ids.
        pairing: "same text" or "parallel text", as in the table.
        measures: What to compute.
        point: Hook point.
        layers_a: Layers of A.
        layers_b: Layers of B.
        all_cells: Whether all layer pairs are wanted, or those of matched depth.
        statistics: What is computed beside the values.
    """

    a: Activations
    b: Activations
    pairing: str
    measures: tuple[Measure, ...]
    point: str
    layers_a: tuple[int, ...]
    layers_b: tuple[int, ...]
    all_cells: bool
    statistics: Statistics

    def __repr__(self) -> str:
        return f"SweepUnit({self.label})"

    @property
    def label(self) -> str:
        """Such as "en eng_Latn x de eng_Latn"."""
        return " x ".join(f"{s.model.name} {s.language}".rstrip() for s in (self.a, self.b))

    def mask(self) -> np.ndarray:
        """Boolean `[layers of A, layers of B]`: the cells that are wanted."""
        if self.all_cells:
            return np.ones((len(self.layers_a), len(self.layers_b)), dtype=bool)
        return self.matched()

    def matched(self) -> np.ndarray:
        """The cells of equal relative depth: for each layer of the shallower side, its partner."""
        cells = [{"layer_a": a, "layer_b": b} for a in self.layers_a for b in self.layers_b]
        chosen = {(cell["layer_a"], cell["layer_b"]) for cell in matched_cells(cells)}
        return np.array([[(a, b) in chosen for b in self.layers_b] for a in self.layers_a])

    @functools.cached_property
    def grouping(self) -> tuple[np.ndarray | None, str]:
        """Numbers of the rows' documents where they are the unit; else None, and why if a loss."""
        if self.statistics.unit == "sentence":
            return None, ""
        return as_unit(self.a.documents)

    @property
    def comparisons(self) -> int:
        """Number of values: wanted cells times measures."""
        return int(self.mask().sum()) * len(self.measures)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of everything that the unit's numbers depend on."""
        return hash_json(
            {
                "version": [SWEEP_VERSION, SimilarityTable.SCHEMA],
                "sides": [identity(side) for side in (self.a, self.b)],
                "pairing": self.pairing,
                "point": self.point,
                "layers": [list(self.layers_a), list(self.layers_b), self.all_cells],
                "measures": [[m.name, m.describe()["params"]] for m in self.measures],
                "statistics": dataclasses.asdict(self.statistics),
            }
        )


def identity(acts: Activations) -> dict[str, Any]:
    """What the numbers of one side depend on: weights, tokenizer, text, pooling, extraction."""
    model = acts.model
    return {
        "model": model.name,
        "weights": model.weights_hash or [model.path, model.revision],
        "tokenizer": model.tokenizer_hash,
        "language": acts.language,
        "corpus": acts.corpus_hash,
        "ids": hash_bytes("\n".join(acts.ids).encode()),
        "documents": hash_bytes("\n".join(acts.documents).encode()),
        "covariates": {
            name: hash_bytes(np.ascontiguousarray(values, dtype=np.float64).tobytes())
            for name, values in sorted(acts.covariates.items())
        },
        "pooling": acts.pooling,
        "extraction": {
            key: acts.info[key]
            for key in ("token_policy", "dtype", "precision", "weights")
            if key in acts.info
        },
    }


def plan_sweep(
    activations: Sequence[Activations],
    measures: Sequence[str | Measure],
    *,
    pairings: Sequence[str] = ("same text", "parallel text"),
    layers: Layers = "auto",
    point: str = "resid",
    statistics: Statistics | None = None,
    self_pairs: bool = False,
) -> list[SweepUnit]:
    """Lay out a sweep: which pairs, which cells. Nothing is read or computed.

    - "same text": different models, the same language: all layers x all layers.
    - "parallel text": one model, two languages: matched layers.
    - "parallel text across models": different models, different languages: matched depth. Only if
      asked for: it has models^2 x languages^2 units.

    Args:
        activations: One per model and language.
        measures: Names, aliases or measures.
        pairings: Which of the three.
        layers: "auto" as above; "all" for full grids, "matched" for matched depth, everywhere.
        point: Hook point.
        statistics: What is computed beside the values; `Statistics()` if left out.
        self_pairs: Also each model with itself on the same text, layer x layer.

    Raises:
        UsageError: Unknown measure, pairing, `layers` or hook point; two models of one name.
        InputError: The sides of a pair do not hold the same sentences in the same order, or they
            are fewer than a measure needs.
    """
    statistics = statistics if statistics is not None else Statistics()
    chosen = _chosen(measures)
    _check_request(activations, chosen, pairings, layers, point)
    units = []
    for a, b, pairing in _pairs(activations, pairings, self_pairs):
        _require_same_sentences(a, b, pairing)
        require_sentences(len(a), chosen)
        units.append(
            SweepUnit(
                a=a,
                b=b,
                pairing=pairing,
                measures=chosen,
                point=point,
                layers_a=a.layers[point],
                layers_b=b.layers[point],
                all_cells=layers == "all" or (layers == "auto" and pairing == "same text"),
                statistics=statistics,
            )
        )
    return units


def _chosen(measures: Sequence[str | Measure]) -> tuple[Measure, ...]:
    """Measures by name; what is asked for twice is computed once."""
    chosen: dict[str, Measure] = {}
    for measure in map(get_measure, measures):
        if dict(chosen.setdefault(measure.name, measure).params) != dict(measure.params):
            raise UsageError(
                f"'{measure.name}' is asked for with two settings",
                hint="give them two names: dataclasses.replace(measure, name=...)",
            )
    return tuple(chosen.values())


def _pairs(
    activations: Sequence[Activations], pairings: Sequence[str], self_pairs: bool
) -> Iterator[tuple[Activations, Activations, str]]:
    """Pairs in an order that keeps the sides of neighbouring units the same."""
    if "same text" in pairings:
        for language in dict.fromkeys(acts.language for acts in activations):
            readers = [acts for acts in activations if acts.language == language]
            if self_pairs:
                yield from ((acts, acts, "same text") for acts in readers)
            yield from ((a, b, "same text") for a, b in itertools.combinations(readers, 2))
    couples = list(itertools.combinations(activations, 2))
    for across, name in ((False, "parallel text"), (True, "parallel text across models")):
        if name in pairings:
            for a, b in couples:
                if a.language != b.language and (a.model.name != b.model.name) == across:
                    yield a, b, "parallel text"


def _check_request(
    activations: Sequence[Activations],
    measures: Sequence[Measure],
    pairings: Sequence[str],
    layers: str,
    point: str,
) -> None:
    if not measures:
        raise UsageError("no measure to compute", hint="measures=('cka',)")
    outputs = [m.name for m in measures if m.reads != "activations"]
    if outputs and point:
        raise UsageError(
            f"'{outputs[0]}' reads logits, not the activations of '{point}'",
            hint=f"repsim.measure(logits_a, logits_b, '{outputs[0]}')",
        )
    if layers not in get_args(Layers):
        raise UsageError(f"layers='{layers}' is not possible", hint="auto, all or matched")
    for pairing in pairings:
        if pairing not in get_args(Pairing):
            known = ", ".join(f"'{name}'" for name in get_args(Pairing))
            raise UsageError(f"pairing '{pairing}' is not possible", hint=f"use {known}")
    seen: dict[tuple[str, str], Activations] = {}
    for acts in activations:
        if point not in acts.layers:
            raise UsageError(
                f"hook point '{point}' was not extracted for {acts.model.name}/{acts.language}",
                hint=f"extracted: {', '.join(acts.layers)}",
            )
        if (acts.model.name, acts.language) in seen:
            raise UsageError(
                f"two sets of activations of '{acts.model.name}' on {acts.language}",
                hint="give the models different names",
            )
        seen[acts.model.name, acts.language] = acts


def _require_same_sentences(a: Activations, b: Activations, pairing: str) -> None:
    sides = " and ".join(f"{side.model.name}/{side.language}".rstrip("/") for side in (a, b))
    hint = "extract both from one corpus"
    if len(a) != len(b):
        raise InputError(f"{sides} hold {len(a)} and {len(b)} sentences", hint=hint)
    for i, (x, y) in enumerate(zip(a.ids, b.ids, strict=True)):
        if x != y:
            raise InputError(
                f"{sides} do not hold the same sentences in the same order: row {i} is "
                f"'{x}' and '{y}'",
                hint=hint,
            )
    if pairing == "same text" and a.corpus_hash != b.corpus_hash:
        raise InputError(f"{sides} have the same ids but read different text", hint=hint)


def require_sentences(count: int, measures: Iterable[Measure]) -> None:
    """Refuse measures that need more sentences than there are."""
    for measure in measures:
        if count < measure.min_samples:
            raise InputError(
                f"'{measure.name}' needs at least {measure.min_samples} sentences, got {count}",
                hint="use a larger corpus; a few hundred sentences make most measures readable",
            )
