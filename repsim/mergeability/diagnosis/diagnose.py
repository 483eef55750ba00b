"""Diagnose a merge: losses, parts put back, causes in order, and what is forecast to mend it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repsim.core.forecast import MergeForecast
from repsim.core.progress import track
from repsim.evaluation.bits_per_byte import score_held_out
from repsim.evaluation.held_out import common_context
from repsim.evaluation.text import load_evaluation_text
from repsim.mergeability.diagnosis.case import Case, DiagnosisTable, ModelName, open_case
from repsim.mergeability.diagnosis.causes import CAUSES, Finding
from repsim.mergeability.forecast import rank_methods
from repsim.merging.tensors import kind_of, layer_of
from repsim.models.causal import CausalModel, load_causal_lm
from repsim.models.inspect import inspect_model

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
        recipes: Ways to merge the same parents whose worst language is forecast to keep more than
            the merge does, the best first; empty if none is known or they were not asked for.
    """

    broken: bool
    lost: dict[str, float]
    causes: tuple[tuple[str, Finding], ...]
    readings: DiagnosisTable
    case: Case = dataclasses.field(repr=False)
    recipes: tuple[MergeForecast, ...] = ()

    def summary(self) -> list[str]:
        """What a reader should know first, a sentence a line."""
        worst = min(self.lost, key=lambda name: self.lost[name])
        state = "is broken" if self.broken else "is whole"
        kept = self.lost[worst]
        lines = [
            f"{self.case.merge.name} {state}: {worst} keeps {kept:.2f} of its best parent "
            "over unigrams"
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
                f"forecast: {best.method}{aligned} would keep {kept:.2f} of the worst language"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "merge": self.case.merge.name, "broken": self.broken, "retention": self.lost,
            "causes": [{"cause": name, **dataclasses.asdict(f)} for name, f in self.causes],
            "readings": list(self.readings.rows()),
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
    seed: int = 0,
    forecast: bool = True,
) -> Diagnosis:
    """Tell what a merge lost, where, and why.

    Files and weights are looked through for known causes; the merge and its parents are scored on
    held-out text, and parts of the merge (embedding, norms, attention, MLP, each block, config,
    tokenizer) are replaced by those of the parent that is best on a language: what comes back says
    where the loss is.

    Args:
        merge: The merge: a folder or "zoo:NAME".
        parents: Two models or more that it was made of.
        base: The base that it was made with.
        corpus: Training corpus whose held-out part is read; see `repsim.corpora`.
        languages: FLORES-style codes; those that the parents state if left out.
        max_bytes: Most text per language.
        context: Tokens per window; as many as all models take, at most 1024.
        device: Where the models run.
        seed: Of the draw of documents.
        forecast: Whether other ways to merge the parents are forecast, where the merge is broken.

    Raises:
        InputError: A model or the text is not there.
        IncompatibleModelsError: A model that is no causal language model.

    Example:
        >>> found = diagnose("zoo:mixed", ["zoo:eng-fork", "zoo:deu-fork"], max_bytes=8000,
        ...                  languages=["eng_Latn"])
        >>> found.broken
        False
    """
    case = open_case(merge, parents, base)
    if case.broken:
        rows: list[dict[str, Any]] = []
        lost = {"all": -math.inf}
    else:
        rows, lost = _read(case, corpus, languages, max_bytes, context, device, seed)
    readings = DiagnosisTable(rows)
    case = dataclasses.replace(case, readings=readings)
    if min(lost.values()) >= WHOLE:
        return Diagnosis(False, lost, (), readings, case)
    recipes = _better(case, min(lost.values()), languages) if forecast else ()
    return Diagnosis(True, lost, tuple(_causes(case)), readings, case, recipes)


def _better(case: Case, kept: float, languages: Sequence[str] | None) -> tuple[MergeForecast, ...]:
    """Other ways to merge the parents that are forecast to keep more; a wrong base is left out."""
    usable = case.base if case.base_finding and case.base_finding.plausible else None
    ranked = rank_methods(
        [one.folder for one in case.parents], base=usable.folder if usable else None,
        languages=tuple(languages or ()),
    )  # fmt: skip
    return tuple(found for found in ranked if found.worst and found.worst.value > kept)


def _causes(case: Case) -> Iterator[tuple[str, Finding]]:
    """Findings in order of certainty, then of strength; the weakest only where it is alone."""
    found = [(CAUSES[name], finding) for name in CAUSES for finding in CAUSES[name].look(case)]
    found.sort(key=lambda each: (-each[0].certainty, -each[1].strength))
    for number, (cause, finding) in enumerate(found):
        if cause.certainty > 0 or number == 0:
            yield cause.name, finding


def _read(
    case: Case, corpus: str, languages: Sequence[str] | None, max_bytes: int,
    context: int | None, device: str, seed: int,
) -> tuple[list[dict[str, Any]], dict[str, float]]:  # fmt: skip
    """Losses of the merge and of its parents, and of the merge with parts put back."""
    models = [case.merge, *case.parents]
    refs = [inspect_model(one.folder, label=one.name, generic=True) for one in models]
    stated = dict.fromkeys(code for ref in refs[1:] for code in ref.languages)
    spoken = tuple(languages or stated)
    window = common_context(refs, context)
    text = load_evaluation_text(corpus, spoken, max_bytes=max_bytes, seed=seed)
    loaded = [load_causal_lm(one.folder, label=one.name, device=device) for one in models]
    made, *others = loaded
    ready = [text.prepare(one.tokenizer, window, floors=n == 1) for n, one in enumerate(loaded)]
    floors = {code: float(score) for code, score in ready[1].floors.items()}

    def bits(model: CausalModel, number: int, code: str) -> float:
        return float(score_held_out(model.model, ready[number].held_out[code], ready[number].bos,
                                    window))  # fmt: skip

    rows, lost, best = [], {}, {}
    for code in spoken:
        own = bits(made, 0, code)
        theirs = [bits(parent, n, code) for n, parent in enumerate(others, start=1)]
        number = int(np.argmin(theirs))
        best[code] = (number, own, theirs[number])
        row = {"part": "whole", "language": code, "parent": case.parents[number].name}
        rows.append(
            row | {"reading": "bits_per_byte", "value": own, "parent_value": theirs[number]}
        )
        lost[code] = (floors[code] - own) / (floors[code] - theirs[number])
        rows.append(row | {"reading": "retention", "value": lost[code], "parent_value": 1.0})
    for code in [code for code in spoken if lost[code] < WHOLE]:
        number, own, theirs_best = best[code]
        donor = others[number]
        for part, value in _put_back(made, donor, ready, number + 1, code, window):
            rows.append({
                "reading": "restored", "part": part, "language": code,
                "parent": case.parents[number].name,
                "value": (own - value) / (own - theirs_best), "parent_value": 1.0,
            })  # fmt: skip
    return rows, lost


def _put_back(
    made: CausalModel, donor: CausalModel, ready: Sequence[Any], number: int, code: str, window: int
) -> Iterator[tuple[str, float]]:
    """Bits per byte of the merge with one part after another taken from a parent."""
    import torch

    def bits(model: torch.nn.Module, text: Any) -> float:
        return float(score_held_out(model, text.held_out[code], text.bos, window))

    if made.ref.tokenizer_hash != donor.ref.tokenizer_hash:
        yield "tokenizer", bits(made.model, ready[number])
    mine, theirs = made.model.state_dict(), donor.model.state_dict()
    if mine.keys() != theirs.keys() or any(mine[n].shape != theirs[n].shape for n in mine):
        return
    kept = {name: tensor.clone() for name, tensor in theirs.items()}
    donor.model.load_state_dict(mine)
    yield "config", bits(donor.model, ready[0])
    donor.model.load_state_dict(kept)
    parts: dict[str, list[str]] = {}
    for name, tensor in mine.items():
        for part in _parts(name, tensor.dim()):
            parts.setdefault(part, []).append(name)
    for part, names in track(parts.items(), f"parts of {code}", total=len(parts)):
        own = {name: mine[name].clone() for name in names}
        with torch.no_grad():
            for name in names:
                mine[name].copy_(kept[name])
            value = bits(made.model, ready[0])
            for name in names:
                mine[name].copy_(own[name])
        yield part, value


def _parts(name: str, dimensions: int) -> Iterator[str]:
    """Parts of a model that are put back together."""
    kind, layer = kind_of(name, dimensions), layer_of(name)
    if kind in ("embedding", "head"):
        yield kind
    elif kind == "norm":
        yield "norms"
    if layer:
        yield str(layer.number)
        if kind != "norm":
            yield "attention" if "attn" in layer.rest or "attention" in layer.rest else "mlp"
