"""What a sweep will do: its statistics, its units of work, and the key by which each is kept."""

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
from repsim.measures.intervals import LEAST_GROUPS
from repsim.measures.null import (
    LEAST_FITTED,
    LEAST_FOR_COUNT,
    LEAST_FOR_QUANTILE,
    MOST_PAIRED,
)

#: Part of every unit's key: raise it when the numbers of a unit change.
SWEEP_VERSION = "repsim/sweep/4"

Unit = Literal["sentence", "document"]
Pairing = Literal["same text", "parallel text", "parallel text across models"]
Layers = Literal["auto", "all", "matched"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What is computed beside each value.

    Attributes:
        permutations: Shuffles of the null of measures whose pairs are cheap; 0 for no null.
        permutations_expensive: At most so many for expensive measures, at matched depth only. Of
            fewer than 40 the 95 % quantile is that of a normal distribution, of fewer than 19 p is
            Student's prediction of a further shuffle, from their mean and standard deviation.
        groups: Groups of sentences or documents that the jackknife leaves out in turn, where there
            is no closed form; 0 for no intervals.
        groups_expensive: At most so many for expensive measures.
        level: Nominal coverage of the intervals.
        unit: What shuffles move and intervals leave out: "document" where the text has documents
            (else its sentences), or "sentence" as if all were independent.
        covariates: Covariates that the `partial` value is taken without; empty for none.
        seed: Seed of shuffles and groups.
        thorough_partial: Null and interval of the partial value for all measures, not only for
            those whose jackknife has a closed form.
        ceiling: Split halves of documents: how high the value could be.

    Raises:
        UsageError: A number that is not possible.

    Example:
        >>> Statistics(permutations=200).describe()["shuffles"]
        200
        >>> Statistics.off().permutations
        0
    """

    permutations: int = 100
    permutations_expensive: int = 10
    groups: int = 20
    groups_expensive: int = 10
    level: float = 0.95
    unit: Unit = "document"
    covariates: tuple[str, ...] = ("log_length",)
    seed: int = 0
    thorough_partial: bool = False
    ceiling: bool = True

    def __post_init__(self) -> None:
        if min(self.permutations, self.permutations_expensive) < 0:
            raise UsageError("the number of permutations is negative", hint="0 for no null")
        if self.groups and min(self.groups, self.groups_expensive) < LEAST_GROUPS:
            raise UsageError(
                f"{min(self.groups, self.groups_expensive)} groups are too few",
                hint=f"groups=0 for no intervals, else at least {LEAST_GROUPS}",
            )
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level} is not between 0 and 1", hint="level=0.95")
        if self.unit not in get_args(Unit):
            raise UsageError(f"unit '{self.unit}' is not possible", hint="sentence or document")

    @classmethod
    def off(cls) -> Statistics:
        """Values only."""
        return cls(permutations=0, permutations_expensive=0, groups=0, covariates=(), ceiling=False)

    def shuffles(self, measure: Measure) -> int:
        """How many permutations a measure gets."""
        fewer = min(self.permutations, self.permutations_expensive)
        return fewer if measure.is_expensive else self.permutations

    def left_out(self, measure: Measure) -> int:
        """How many groups a measure's jackknife leaves out."""
        return min(self.groups, self.groups_expensive) if measure.is_expensive else self.groups

    def describe(self, unit: Unit = "sentence") -> dict[str, Any]:
        """What reports and figures state (JSON-able); `unit` is the one that there was."""
        interval = "jackknife" if self.groups else None
        return {
            **dataclasses.asdict(self),
            "covariates": list(self.covariates),
            "shuffles": self.permutations,
            "interval": interval,
            "interval_unit": f"{unit}s",
            "description": self._in_words(unit),
        }

    def _in_words(self, unit: Unit) -> str:
        parts = []
        if self.permutations:
            fewer = min(self.permutations, self.permutations_expensive)
            parts.append(
                f"Null: the {unit}s of one side shuffled {self.permutations} times, the same "
                "shuffles for all layers of a pair; p_adjusted compares with the best of all layer "
                f"pairs. Measures that need a decomposition for each pair: {fewer} shuffles at "
                f"matched depth. Under {LEAST_FOR_QUANTILE} shuffles the 95 % quantile is that of "
                f"a normal distribution; under {LEAST_FOR_COUNT} p, never under {LEAST_FITTED}, is "
                "Student's prediction of a further shuffle from their mean and standard deviation."
            )
            if unit == "sentence":
                parts.append(
                    "Debiased CKA is not shuffled: its p and quantile are those of the gamma "
                    "distribution with the mean, variance and skewness of all shuffles, "
                    "p_adjusted is Holm's."
                )
        if self.groups:
            parts.append(
                f"Intervals: {100 * self.level:g} %, jackknife over {unit}s (closed form, with "
                "the rotation, matching or canonical directions of all; where there is none, "
                f"{self.groups} groups left out in turn, "
                f"{min(self.groups, self.groups_expensive)} where each pair needs a "
                "decomposition), for the value at this number of sentences."
            )
        if unit == "document":
            parts.append(
                "Debiased CKA and RSA leave out pairs of sentences of one document. Documents of "
                "different length change places with others of like length, and stay where there "
                "are none; blocks that run on into one another are shifted as one sequence. For "
                "debiased CKA and unit-wise correlation what each document contributes changes its "
                f"sign at random instead; over {MOST_PAIRED:,} sentences, debiased CKA draws signs "
                "of random documents with so many, and takes the spread to the size of the whole."
            )
        if self.covariates:
            names = ", ".join(self.covariates)
            parts.append(f"Partial values: {names} of both sides regressed out of every unit.")
        return " ".join(parts) or "Values only: no null, no intervals, no covariates removed."


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
