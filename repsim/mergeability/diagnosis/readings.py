"""Readings of a merge on text: what it lost, and what each part of a parent restores."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from repsim.core.progress import duration, track
from repsim.core.table import Table
from repsim.evaluation.bits_per_byte import score_held_out
from repsim.evaluation.held_out import common_context
from repsim.evaluation.text import EvaluationText, PreparedText, load_evaluation_text
from repsim.merging.tensors import kind_of, layer_of
from repsim.models.causal import CausalModel, load_causal_lm
from repsim.models.in_memory import is_in_memory
from repsim.models.inspect import inspect_model

#: Told of progress: a label, and a text.
Say = Callable[[str, str], None]
#: Most bytes of a language that the merge is scored on with a part put back: there are many parts.
PART_BYTES = 4000
#: Seconds between two lines on the time that is left.
_EVERY = 15.0
#: Bits per byte: a smaller loss on the first documents is taken as this one.
_LEAST_LOSS = 0.01


class DiagnosisTable(Table):
    """One row per reading of a merge: of the whole of it, of a part, or after a block."""

    SCHEMA = "repsim/diagnosis/2"
    STEM = "diagnosis"
    COLUMNS: ClassVar = {
        "reading": (
            "string",
            "bits_per_byte; retention; restored: share of the loss that comes back with a part of "
            "the parent; norm, variance: of sentence vectors after a block, over the parents' "
            "mean; similarity: debiased CKA with a parent after a block",
        ),
        "part": (
            "string",
            "whole, config, tokenizer, embedding, head, norms, attention, mlp, or the number of a "
            "block",
        ),
        "language": ("string", "language"),
        "value": ("float", "of the merge"),
        "parent": ("string", "the parent that it is held against; empty for their mean"),
        "parent_value": (
            "float", "the same of that parent; of a similarity, the parent's with the next parent",
        ),
    }  # fmt: skip

    def blocks(self, language: str) -> list[dict[str, Any]]:
        """A row per block: `part`, `norm`, `variance`, `restored`, `similarity PARENT`."""
        rows = list(self.where(language=language).rows())
        lines: dict[str, dict[str, Any]] = {}
        for row in rows:
            part, reading = str(row["part"]), str(row["reading"])
            if reading in ("norm", "variance", "similarity"):
                key = f"similarity {row['parent']}" if reading == "similarity" else reading
                lines.setdefault(part, {"part": part})[key] = row["value"]
        for row in rows:
            if row["reading"] == "restored" and row["part"] in lines:
                lines[str(row["part"])]["restored"] = row["value"]
        return list(lines.values())


@dataclasses.dataclass(frozen=True)
class Bench:
    """The merge and its parents in memory, and the text that they are read on."""

    made: CausalModel
    parents: tuple[CausalModel, ...]
    text: EvaluationText  # held-out documents
    ready: tuple[PreparedText, ...]  # as token ids, of the merge first
    window: int  # tokens

    @classmethod
    def load(
        cls, folders: Mapping[str, Path], corpus: str, languages: Sequence[str] | None,
        *, max_bytes: int, context: int | None, device: str, seed: int, loading: Mapping[str, Any],
    ) -> Bench:  # fmt: skip
        """Load models (the merge first) and text."""
        refs = [inspect_model(folder, label=name, generic=True) for name, folder in folders.items()]
        stated = dict.fromkeys(code for ref in refs[1:] for code in ref.languages)
        spoken = tuple(languages or stated)
        window = common_context(refs, context)
        text = load_evaluation_text(corpus, spoken, max_bytes=max_bytes, seed=seed)
        # Parts are put into one another: a model that the user holds is not to feel it.
        made, *parents = [
            found._replace(model=copy.deepcopy(found.model)) if is_in_memory(folder) else found
            for name, folder in folders.items()
            for found in [load_causal_lm(folder, label=name, device=device, **loading)]
        ]
        ready = [
            text.prepare(one.tokenizer, window, floors=number == 1)
            for number, one in enumerate((made, *parents))
        ]
        return cls(made, tuple(parents), text, tuple(ready), window)

    def bits(self, model: torch.nn.Module, code: str, number: int = 0, most: int = 0) -> float:
        """Bits per byte of a model on the text as model `number` cuts it."""
        held_out = self.ready[number].held_out[code].first_bytes(most)
        return float(score_held_out(model, held_out, self.ready[number].bos, self.window))


def losses(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, int]]:
    """Bits per byte and retention by language; retention; the parent that is best on a language."""
    rows, lost, best = [], {}, {}
    for code in bench.text.languages:
        own = bench.bits(bench.made.model, code)
        theirs = [bench.bits(p.model, code, n) for n, p in enumerate(bench.parents, start=1)]
        number = int(np.argmin(theirs))
        floor = float(bench.ready[1].floors[code])
        lost[code] = (floor - own) / (floor - theirs[number])
        best[code] = number
        row = {"part": "whole", "language": code, "parent": bench.parents[number].ref.name}
        rows += [
            row | {"reading": "bits_per_byte", "value": own, "parent_value": theirs[number]},
            row | {"reading": "retention", "value": lost[code], "parent_value": 1.0},
        ]
    return rows, lost, best


def put_back(bench: Bench, best: Mapping[str, int], say: Say) -> list[dict[str, Any]]:
    """Share of the loss that each part restores, in the languages given with their best parents."""
    parts = _parts(bench.made.model.state_dict())
    start, done, rows = time.monotonic(), 0, []
    last, todo = start, len(best) * (len(parts) + 2)
    for code, number in best.items():
        donor = bench.parents[number]
        own = bench.bits(bench.made.model, code, most=PART_BYTES)
        theirs = bench.bits(donor.model, code, number + 1, most=PART_BYTES)
        if not done:
            spent = time.monotonic() - start
            say("plan", f"{len(parts)} parts put back in {len(best)} languages: about "
                f"{duration(spent / 2 * todo)}")  # fmt: skip
        for part, value in track(_swapped(bench, donor, parts, code, number), f"parts of {code}",
                                 total=len(parts)):  # fmt: skip
            done += 1
            restored = (own - value) / max(own - theirs, _LEAST_LOSS)
            rows.append({"reading": "restored", "part": part, "language": code, "value": restored,
                         "parent": donor.ref.name, "parent_value": 1.0})  # fmt: skip
            if time.monotonic() - last > _EVERY:
                last = time.monotonic()
                say("left", duration((last - start) / done * max(todo - done, 0)))
    return rows


def _swapped(
    bench: Bench, donor: CausalModel, parts: Mapping[str, Sequence[str]], code: str, number: int
) -> Iterator[tuple[str, float]]:
    """Bits per byte of the merge with one part after another taken from a parent."""
    made = bench.made
    if made.ref.tokenizer_hash != donor.ref.tokenizer_hash:
        yield "tokenizer", bench.bits(made.model, code, number + 1, PART_BYTES)
    mine, theirs = made.model.state_dict(), donor.model.state_dict()
    if mine.keys() != theirs.keys() or any(mine[n].shape != theirs[n].shape for n in mine):
        return
    kept = {name: tensor.clone() for name, tensor in theirs.items()}
    donor.model.load_state_dict(mine)
    yield "config", bench.bits(donor.model, code, most=PART_BYTES)
    donor.model.load_state_dict(kept)
    for part, names in parts.items():
        own = {name: mine[name].clone() for name in names}
        with torch.no_grad():
            for name in names:
                mine[name].copy_(kept[name])
            value = bench.bits(made.model, code, most=PART_BYTES)
            for name in names:
                mine[name].copy_(own[name])
        yield part, value


def _parts(state: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Part -> names of its tensors."""
    parts: dict[str, list[str]] = {}
    for name, tensor in state.items():
        for part in _parts_of(name, tensor.dim()):
            parts.setdefault(part, []).append(name)
    return parts


def _parts_of(name: str, dimensions: int) -> Iterator[str]:
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
