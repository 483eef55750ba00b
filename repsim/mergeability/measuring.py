"""Measuring a group of parents once, for as many forecasts as are wanted."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from repsim.core.errors import RepsimError, UsageError, unknown_name
from repsim.mergeability.candidate import Candidate, MergePredictor
from repsim.mergeability.features.base import TierResult
from repsim.mergeability.gates import Gate, ModelName, gate_models

if TYPE_CHECKING:
    from repsim.core import ParallelCorpus

#: Tiers from cheap to dear; each forecast uses all up to one of them.
TIERS = ("T0", "T1", "T2", "T3")
#: Told of progress: a label, and a text.
Say = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How parents are measured; the defaults are those that known merges were measured by.

    Attributes:
        tiers: Tiers, T0 first, without a gap.
        corpus: Parallel sentences for T2 and the oracle.
        languages: Languages to speak of; those that the parents state if empty.
        limit: Sentences of T2.
        text: Training corpus of floors and gradients.
        tokenizer: "map" accepts tokens in another order.
        oracle: Whether the plain average is tried on a few sentences.
        insist: Whether to measure where no forecast can come of it.
        seed: Of sentences and shuffles.
        device: Where models run; a GPU if there is one and nothing is said.
        cache: Folder for activations.
    """

    tiers: tuple[str, ...] = ("T0", "T1", "T2")
    corpus: str | Path | ParallelCorpus = "bible-heldout"
    languages: tuple[str, ...] = ()
    limit: int = 200
    text: str = "bible"
    tokenizer: Literal["same", "map"] = "same"
    oracle: bool = False
    insist: bool = False
    seed: int = 0
    device: str | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        for tier in self.tiers:
            if tier not in TIERS:
                raise unknown_name("tier", tier, TIERS)
        if self.tiers != TIERS[: len(self.tiers)] or not self.tiers:
            raise UsageError(
                f"tiers {', '.join(self.tiers) or 'none'} cannot stand alone",
                hint="take all up to one: T0; T0, T1; T0, T1, T2; or all four",
            )


@dataclasses.dataclass(frozen=True)
class Measured:
    """A group of parents and everything that was measured of it.

    Attributes:
        models: The parents, as they were named.
        names: Their labels.
        base: Base of methods on differences; empty for none.
        languages: Languages that were spoken of.
        results: Tiers, the cheapest first.
        gate: What the files say against a forecast.
        oracle: What a trial of the plain average gave; None if it was not asked for.
    """

    models: tuple[ModelName, ...]
    names: tuple[str, ...]
    base: str
    languages: tuple[str, ...]
    results: tuple[TierResult, ...]
    gate: Gate
    oracle: TierResult | None = None

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tiers that were measured."""
        return tuple(result.tier for result in self.results)

    @property
    def seconds(self) -> dict[str, float]:
        """Processor seconds by tier, the oracle among them."""
        spent = [*self.results, *([self.oracle] if self.oracle else [])]
        return {result.tier: result.seconds for result in spent}

    @property
    def evidence(self) -> dict[str, float]:
        """Everything that was measured and is defined."""
        every = [result.as_dict() for result in self.results]
        return {k: v for each in every for k, v in each.items() if math.isfinite(v)}

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the gate and of all tiers, each once."""
        said = [*self.gate.notes, *(note for result in self.results for note in result.notes)]
        if self.oracle:
            said += self.oracle.notes
        return tuple(dict.fromkeys(said))

    def candidate(self, method: str, alignment: str) -> Candidate:
        """The question to a predictor about one way to merge them."""
        values = [value for result in self.results for value in result.values]
        common = {v.feature: v.value for v in values if not v.language}
        features = {
            language: common | {v.feature: v.value for v in values if v.language == language}
            for language in self.languages
        }
        return Candidate(self.names, method, alignment, self.base, features, self.tiers)


def measure_parents(
    models: Sequence[ModelName],
    predictor: MergePredictor,
    settings: Settings,
    *,
    base: str | Path | None = None,
    say: Say | None = None,
) -> Measured:
    """Measure a group of parents, tier by tier; stop early where no forecast can come of it.

    The base is not read: known merges were measured without one, so that updates are taken from the
    mean of the parents.

    Args:
        models: Two parents or more, in the order of merging.
        predictor: Whose knowledge of sizes counts.
        settings: What is measured, and how.
        base: Base of methods on differences, if there is one.
        say: Told of progress.

    Raises:
        UsageError: Fewer than two models, an unknown tier, or no language is known.
        InputError: A model or corpus cannot be read.

    Example:
        >>> from repsim.testing.predictors import planted_predictor
        >>> zoo = ["zoo:eng-fork", "zoo:deu-fork"]
        >>> found = measure_parents(zoo, planted_predictor(), Settings(tiers=("T0",)))
        >>> found.languages, found.evidence["k"], found.gate.refusal
        (('eng_Latn', 'deu_Latn'), 2.0, '')
    """
    from repsim.mergeability.features import metadata_features
    from repsim.mergeability.features.declared import read_declared

    if len(models) < 2:
        raise UsageError("a forecast is of a merge: name two models or more")
    tell = say or _silent
    declared = [read_declared(model) for model in models]
    stated = [code for parent in declared for code in parent.languages]
    languages = settings.languages or tuple(dict.fromkeys(stated))
    first = metadata_features(models, languages=languages)
    gate = gate_models(models, first.as_dict(), predictor, tokenizer=settings.tokenizer)
    if not languages and not gate.refusal:
        raise UsageError(
            "the models do not state their languages", hint="name them: -l eng_Latn -l deu_Latn"
        )
    results = [first]
    if not gate.refusal:
        for tier in settings.tiers[1:]:
            tell("tier", f"{tier}: {_WHAT[tier]}")
            results.append(_measure(tier, models, languages, settings, tell))
    elif settings.insist and gate.measurable:
        results += _what_can_be(models, languages, settings, tell)
    oracle = None
    if settings.oracle and not gate.refusal:
        tell("oracle", _WHAT["oracle"])
        oracle = _measure("oracle", models, languages, settings, tell)
    return Measured(
        models=tuple(models),
        names=tuple(parent.name for parent in declared),
        base="" if base is None else str(base),
        languages=languages,
        results=tuple(results),
        gate=gate,
        oracle=oracle,
    )


def _what_can_be(
    models: Sequence[ModelName], languages: Sequence[str], settings: Settings, tell: Say
) -> list[TierResult]:
    """Evidence on parents of which no forecast can be given; what they do not have is noted."""
    results = []
    for tier in settings.tiers[1:]:
        tell("tier", f"{tier}: {_WHAT[tier]}")
        try:
            results.append(_measure(tier, models, languages, settings, tell))
        except RepsimError as error:
            results.append(TierResult(tier, (), 0.0, (f"{tier} could not be measured: {error}",)))
    return results


_WHAT = {
    "T1": "weights, read once side by side",
    "T2": "activations and outputs on parallel sentences",
    "T3": "one batch of gradients at each parent",
    "oracle": "a trial of the plain average on a few sentences (not part of the forecast)",
}


def _measure(
    tier: str, models: Sequence[ModelName], languages: Sequence[str], settings: Settings, tell: Say
) -> TierResult:
    """One tier after the first, as known merges were measured."""
    from repsim.mergeability.features.activations import activation_features
    from repsim.mergeability.features.gradients import gradient_features
    from repsim.mergeability.features.oracle import oracle_features
    from repsim.mergeability.features.weights import weight_features

    seed, device = settings.seed, settings.device
    if tier == "T1":
        return weight_features(list(models), say=_Seldom(tell, "T1"))
    if tier == "T2":
        return activation_features(
            list(models), corpus=settings.corpus, languages=languages, limit=settings.limit,
            text=settings.text, seed=seed, device=device, cache=settings.cache,
        )  # fmt: skip
    if tier == "T3":
        return gradient_features(
            list(models), corpus=settings.text, languages=languages, seed=seed, device=device
        )
    return oracle_features(
        list(models), corpus=settings.corpus, languages=languages, text=settings.text, seed=seed,
        device=device,
    )  # fmt: skip


def _silent(label: str, text: str) -> None:
    """Say nothing."""


class _Seldom:
    """Passes on a line of progress if the last one is some seconds old; small work stays quiet."""

    def __init__(self, say: Say, label: str, every: float = 5.0) -> None:
        self._say, self._label, self._every = say, label, every
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._say(self._label, text)
