"""Diagnose a merge: losses, parts put back, causes in order, and what is forecast to mend it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from repsim.core.errors import InputError
from repsim.core.forecast import MergeForecast
from repsim.mergeability.diagnosis.blocks import block_readings
from repsim.mergeability.diagnosis.case import Case, ModelName, open_case
from repsim.mergeability.diagnosis.causes import CAUSES, Finding
from repsim.mergeability.diagnosis.readings import Bench, DiagnosisTable, Say, losses, put_back
from repsim.mergeability.forecast import rank_methods

#: Retention of a language from which nothing needs to be explained.
WHOLE = 0.9


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a merge.

    Attributes:
        broken: Whether a language keeps less than 0.9 of its best parent over unigrams.
        lost: Language -> retention.
        causes: (name of the cause, finding), the most certain first; empty if none was found.
        readings: Losses, and what putting parts back restores.
        case: What it was told from.
        notes: What could not be read, and why.
        recipes: Ways to merge the same parents whose worst language is forecast to keep more than
            the merge does, the best first; empty if none is known or they were not asked for.
    """

    broken: bool
    lost: dict[str, float]
    causes: tuple[tuple[str, Finding], ...]
    readings: DiagnosisTable
    case: Case = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()
    recipes: tuple[MergeForecast, ...] = ()

    @property
    def worst(self) -> str:
        """The language that keeps least."""
        return min(self.lost, key=lambda name: self.lost[name])

    def summary(self) -> list[str]:
        """What a reader should know first, a sentence a line."""
        if self.case.broken:
            lines = [f"{self.case.merge.name} is broken: its weights are not finite"]
        else:
            state = "is broken" if self.broken else "is whole"
            kept = self.lost[self.worst]
            lines = [
                f"{self.case.merge.name} {state}: {self.worst} keeps {kept:.2f} of its best "
                "parent over unigrams"
            ]
        for number, (name, found) in enumerate(self.causes, start=1):
            lines.append(f"{number}. {name}: {found.text}. To mend it: {found.remedy}.")
        if self.broken and not self.causes:
            lines.append("no cause was found in files or weights; see what parts restore")
        if self.recipes:
            best = self.recipes[0]
            aligned = "" if best.alignment == "none" else f", aligned by {best.alignment}"
            kept = best.worst.value if best.worst else math.nan
            lines.append(
                f"forecast: {best.way}{aligned} would keep {kept:.2f} of the worst language"
            )
        return lines

    def _repr_html_(self) -> str:
        """The summary, and what each part restores, for notebooks."""
        said = "".join(f"<li>{escape(line)}</li>" for line in self.summary())
        return f"<ul>{said}</ul>{self.readings._repr_html_()}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "merge": self.case.merge.name, "broken": self.broken,
            "retention": {k: v for k, v in self.lost.items() if math.isfinite(v)},
            "parts": list(self.case.parts.rows()) if self.case.parts else [],
            "lineage": list(self.case.lineage.rows()) if self.case.lineage else [],
            "base": self.case.base_finding.to_dict() if self.case.base_finding else None,
            "causes": [{"cause": name, **dataclasses.asdict(f)} for name, f in self.causes],
            "readings": list(self.readings.rows()), "notes": list(self.notes),
            "recipes": [forecast.to_dict() for forecast in self.recipes],
        }  # fmt: skip


def diagnose(
    merge: ModelName,
    parents: Sequence[ModelName],
    *,
    base: ModelName | None = None,
    corpus: str = "bible",
    languages: Sequence[str] | None = None,
    max_bytes: int = 12_000,
    context: int | None = None,
    device: str = "cpu",
    loading: Mapping[str, Any] | None = None,
    seed: int = 0,
    forecast: bool = True,
    say: Say | None = None,
) -> Diagnosis:
    """Tell what a merge lost, where, and why.

    Files and weights are looked through for known causes; the merge and its parents are scored on
    held-out text. In languages that keep less than 0.9, activations are read block by block (scale,
    variance, similarity to each parent), and parts of the merge (embedding, norms, attention, MLP,
    each block, config, tokenizer) are replaced by those of the parent that is best on the language:
    what comes back says where the loss is.

    Args:
        merge: The merge: a folder or "zoo:NAME".
        parents: Two models or more that it was made of.
        base: The base that it was made with.
        corpus: Training corpus whose held-out part is read; see `repsim.corpora`.
        languages: FLORES-style codes; those that the parents state if left out.
        max_bytes: Most text per language.
        context: Tokens per window; as many as all models take, at most 1024.
        device: Where the models run.
        loading: How models are loaded: `dtype`, `device_map`, see `load_model`.
        seed: Of the draw of documents.
        forecast: Whether other ways to merge the parents are forecast, where the merge is broken.
        say: Told of the plan and of the time that is left, a label and a text.

    Raises:
        InputError: A model or the text is not there.
        IncompatibleModelsError: A model that is no causal language model.

    Example:
        >>> found = diagnose("zoo:mixed", ["zoo:eng-fork", "zoo:deu-fork"], max_bytes=8000,
        ...                  languages=["eng_Latn"])
        >>> found.broken
        False
    """
    tell = say or (lambda label, text: None)
    case = open_case(merge, parents, base)
    ask = functools.partial(rank_methods, languages=tuple(languages or ()), loading=loading)
    others = ask if forecast else None
    if case.broken:
        return _judged(case, [], {"all": -math.inf}, (), others)
    folders = {one.name: one.folder for one in (case.merge, *case.parents)}
    bench = Bench.load(folders, corpus, languages, max_bytes=max_bytes, context=context,
                       device=device, seed=seed, loading=loading or {})  # fmt: skip
    rows, lost, best = losses(bench)
    suffering = {code: best[code] for code in lost if lost[code] < WHOLE}
    if not suffering:
        return Diagnosis(False, lost, (), DiagnosisTable(rows), case)
    notes = []
    for code in suffering:
        try:
            rows += block_readings(bench, code)
        except InputError as error:  # activations that overflow are a symptom, and said
            notes.append(f"{code}: no readings block by block: {error.what}")
    rows += put_back(bench, suffering, tell)
    return _judged(case, rows, lost, tuple(notes), others)


def _judged(
    case: Case, rows: list[dict[str, Any]], lost: dict[str, float], notes: tuple[str, ...],
    ask: Callable[..., tuple[MergeForecast, ...]] | None,
) -> Diagnosis:  # fmt: skip
    """The causes of a broken merge, and what is forecast to mend it."""
    readings = DiagnosisTable(rows)
    case = dataclasses.replace(case, readings=readings)
    recipes = _better(case, min(lost.values()), ask) if ask else ()
    return Diagnosis(True, lost, tuple(_causes(case)), readings, case, notes, recipes)


def _better(
    case: Case, kept: float, ask: Callable[..., tuple[MergeForecast, ...]]
) -> tuple[MergeForecast, ...]:
    """Other ways to merge the parents that are forecast to keep more; a wrong base is left out."""
    usable = case.base if case.base_finding and case.base_finding.plausible else None
    parents = [one.folder for one in case.parents]
    ranked = ask(parents, base=usable.folder if usable else None)
    return tuple(found for found in ranked if found.worst and found.worst.value > kept)


def _causes(case: Case) -> Iterator[tuple[str, Finding]]:
    """Findings in order of certainty, then of strength; the weakest only where it is alone."""
    found = [(CAUSES[name], finding) for name in CAUSES for finding in CAUSES[name].look(case)]
    found.sort(key=lambda each: (-each[0].certainty, -each[1].strength))
    for number, (cause, finding) in enumerate(found):
        if cause.certainty > 0 or number == 0:
            yield cause.name, finding
