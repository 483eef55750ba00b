"""Measuring a group of parents once, for as many forecasts as are wanted."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from repsim.core.errors import RepsimError, UsageError, unknown_name
from repsim.core.model_ref import ModelRef
from repsim.corpora import load_corpus
from repsim.mergeability.candidate import RETENTION, Candidate, MergePredictor
from repsim.mergeability.features.opened import ModelLike, OpenedParents, opened
from repsim.mergeability.features.spec import WITHOUT_BASE, TierResult
from repsim.mergeability.features.tiers import FORECASTING, TIERS, How, Progress
from repsim.mergeability.gates import Gate, ModelName, gate_models
from repsim.merging.ancestry import NO_BASE, QUICK, check_base, check_lineage
from repsim.merging.methods import find_method

#: Told of progress: a label, and a text.
Say = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class Settings(How):
    """How parents are measured, and what.

    Attributes:
        tiers: Tiers, T0 first, without a gap.
        tokenizer: "map" accepts tokens in another order.
        insist: Whether to measure where no forecast can come of it.
        loading: How models are loaded: `dtype`, `device_map`.
    """

    tiers: tuple[str, ...] = ("T0", "T1", "T2")
    tokenizer: Literal["same", "map"] = "same"
    insist: bool = False
    loading: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for tier in self.tiers:
            if tier not in FORECASTING:
                raise unknown_name("tier", tier, FORECASTING)
        if self.tiers != FORECASTING[: len(self.tiers)] or not self.tiers:
            raise UsageError(
                f"tiers {', '.join(self.tiers) or 'none'} cannot stand alone",
                hint="take all up to one: T0; T0, T1; T0, T1, T2; or all four",
            )


@dataclasses.dataclass(frozen=True)
class Measured:
    """A group of parents and everything that was measured of it."""

    names: tuple[str, ...]
    base: str  # of methods on differences; empty for none
    languages: tuple[str, ...]
    results: tuple[TierResult, ...]  # the cheapest tier first
    gate: Gate  # what the files say against a forecast
    base_refusal: str = ""  # why methods that take differences, and any gain, are refused
    lineage_notes: tuple[str, ...] = ()  # what parents without a base share

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tiers that were measured."""
        return tuple(result.tier for result in self.results)

    @property
    def seconds(self) -> dict[str, float]:
        """Processor seconds by tier."""
        return {result.tier: result.seconds for result in self.results}

    @property
    def evidence(self) -> dict[str, float]:
        """Everything that was measured and is defined."""
        every = [result.as_dict() for result in self.results]
        return {k: v for each in every for k, v in each.items() if math.isfinite(v)}

    @property
    def same(self) -> bool:
        """Whether all parents are one model, by their weights where those were read."""
        return len(set(self.names)) == 1 or self.evidence.get("weight_distance_worst") == 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the gate and of all tiers, each once."""
        said = [*self.gate.notes, *self.lineage_notes]
        of_tiers = (note for result in self.results for note in result.notes)
        said += [note for note in of_tiers if not (self.base and note == WITHOUT_BASE)]
        return tuple(dict.fromkeys(said))

    def refusal(self, method: str, outcome: str = RETENTION) -> str:
        """Why nothing can be said of what some method would keep; empty if something can."""
        declared = find_method(method)
        on_base = outcome != RETENTION or declared.needs_base or declared.takes_base
        return self.gate.refusals[outcome] or (self.base_refusal if on_base else "")

    def candidate(
        self, method: str, alignment: str, parameters: Mapping[str, Sequence[float]] | None = None
    ) -> Candidate:
        """The question to a predictor about one way to merge them."""
        values = [value for result in self.results for value in result.values]
        common = {v.feature: v.value for v in values if not v.language}
        features = {
            language: common | {v.feature: v.value for v in values if v.language == language}
            for language in self.languages
        }
        return Candidate(
            self.names, method, alignment, self.base, features, self.tiers, parameters or {}
        )


def measure_parents(
    models: OpenedParents | Sequence[ModelLike],
    predictors: Mapping[str, MergePredictor],
    settings: Settings,
    *,
    base: ModelName | None = None,
    say: Say | None = None,
) -> Measured:
    """Measure parents, tier by tier; stop early where no forecast can come of it."""
    tell = say or (lambda label, text: None)
    with opened(models, device=settings.device, loading=settings.loading) as parents:
        results = [TIERS["T0"].measure(parents, settings, None)]
        stated = [code for parent in parents.declared for code in parent.languages]
        languages = settings.languages or tuple(dict.fromkeys(stated))
        how = dataclasses.replace(settings, languages=languages)
        gate = gate_models(
            [model.located for model in parents.models], results[0].as_dict(), predictors,
            tokenizer=settings.tokenizer, text=settings.text if "T2" in settings.tiers else "",
        )  # fmt: skip
        shut = all(gate.refusals.values())
        if not languages and not shut:
            raise UsageError(
                "the models do not state their languages", hint="name them: -l eng_Latn -l deu_Latn"
            )
        if settings.languages and "T2" in settings.tiers and not shut:
            # A language that the text does not have ends it before weights are read.
            load_corpus(settings.corpus, languages=languages, limit=1)
        if not shut or (settings.insist and gate.measurable):
            for tier in settings.tiers[1:]:
                try:
                    results.append(_measure(tier, parents, how, tell))
                except RepsimError as error:
                    if not shut:
                        raise
                    # Evidence beside a refusal: what these parents do not have is noted.
                    note = f"{tier} could not be measured: {error}"
                    results.append(TierResult(tier, (), 0.0, (note,)))
        folders = [model.located.folder for model in parents.models]
        weighed = len(settings.tiers) > 1 and not shut and settings.tokenizer == "same"
        of_base, of_parents = _lineage(folders, base) if weighed else ("", ())
        return Measured(
            names=tuple(parent.name for parent in parents.declared),
            base="" if base is None else base.name if isinstance(base, ModelRef) else str(base),
            languages=languages,
            results=tuple(results),
            gate=gate,
            base_refusal=of_base,
            lineage_notes=of_parents,
        )


def _lineage(
    folders: Sequence[Path], base: ModelName | None
) -> tuple[str, tuple[str, ...]]:  # fmt: skip
    """Why a base does not fit; without a base, whether the parents look fine-tuned from one."""
    if base is not None:
        found = check_base(base, folders, max_megabytes=QUICK)
        if found.plausible:
            said = (
                f"the base fits by its weights: {found.why}; features are measured from the mean "
                "of the parents, as those of known merges were"
            )
            return "", (said,)
        known = "known merges took differences to the nearest common ancestor of the parents"
        return f"the base does not fit: {found.why}; {known}", ()
    told = [found for found in check_lineage(folders) if found.check == NO_BASE]
    return "", tuple(f"{found.what}: {found.hint}" for found in told)


def _measure(tier: str, parents: OpenedParents, how: How, tell: Say) -> TierResult:
    """One tier after the first, announced."""
    tell("tier", f"{tier}: {TIERS[tier].what}")
    return TIERS[tier].measure(parents, how, _seldom(tell, tier))


def _seldom(tell: Say, label: str, every: float = 5.0) -> Progress:
    """Passes on a line if the last one is some seconds old; small work stays quiet."""
    last = time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            tell(label, text)

    return say
