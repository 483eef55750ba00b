"""Causes of a broken merge: each is a name and one function that looks for it in a case."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from repsim.core.registry import Registry
from repsim.mergeability.diagnosis.case import DECIDING, Case
from repsim.merging.lineage import ONE_ORIGIN

#: Residual, in distances of the parents, from which a part is made of something else as well;
#: methods that drop or resolve entries (TIES, DARE) reach 0.7 in every block alike.
FOREIGN = 0.9
#: Times the median residual of the blocks from which one stands out.
STANDS_OUT = 4.0
#: Sum of weights beyond which a merge is scaled, not averaged.
SCALED = 0.15
#: Weight of one parent, or weights together without the base, from which a merge extrapolates.
BEYOND = 1.25
#: Logarithm of a ratio of norms from which activations are out of scale: half or double.
LOUD = math.log(2)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Where a cause was seen, how strongly, in words, and what mends it."""

    part: str
    strength: float
    text: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Cause:
    """A cause of broken merges."""

    name: str
    certainty: int  # order of what is seen: 3 files contradict each other, 2 weights do, 1 it is
    # a property of the parents, 0 nothing else was found
    meaning: str  # what is wrong, in one sentence
    look: Callable[[Case], Iterator[Finding]] = dataclasses.field(repr=False)


CAUSES: Registry[Cause] = Registry("cause", entry_point_group="repsim.causes")


def _declare(name: str, certainty: int, meaning: str) -> Callable[..., Callable[..., object]]:
    def add(look: Callable[[Case], Iterator[Finding]]) -> Callable[[Case], Iterator[Finding]]:
        CAUSES.add(name, Cause(name, certainty, meaning, look))
        return look

    return add


@_declare("not finite", 4, "The merge holds NaN or infinity.")
def _not_finite(case: Case) -> Iterator[Finding]:
    if case.broken:
        yield Finding(
            "whole", 1.0,
            f"{len(case.broken)} tensors hold NaN or infinity, '{case.broken[0]}' first",
            "merge again in float32 (dtype: float32), and store as bfloat16, not float16",
        )  # fmt: skip


@_declare("config", 3, "The config makes the same weights compute something else.")
def _config(case: Case) -> Iterator[Finding]:
    for key in DECIDING:
        mine = case.merge.config.get(key)
        theirs = [parent.config.get(key) for parent in case.parents]
        if mine not in theirs:
            shown = " and ".join(map(str, dict.fromkeys(map(str, theirs))))
            yield Finding(
                "config", case.restored("config") or 0.5,
                f"{key} is {mine} in the merge and {shown} in its parents",
                f"set {key} in config.json to what the parents have",
            )  # fmt: skip


@_declare("tokenizer", 3, "The merge cuts text into other tokens than those its rows stand for.")
def _tokenizer(case: Case) -> Iterator[Finding]:
    mine = case.merge.vocabulary
    others = [parent.vocabulary for parent in case.parents if parent.vocabulary]
    if mine is None and others:
        yield Finding("tokenizer", 1.0, "the merge has no tokenizer",
                      "copy the tokenizer of the parent whose rows it has")  # fmt: skip
    elif mine is not None and others:
        told = [mine.differences(other) for other in others]
        if all(told):
            yield Finding(
                "tokenizer", case.restored("tokenizer") or 0.5,
                f"its tokenizer is that of no parent: {told[0][0]}",
                "copy the tokenizer files of the parents into the merge",
            )  # fmt: skip


@_declare("tokenizers of the parents", 2, "The parents' rows stand for different tokens.")
def _parents_tokens(case: Case) -> Iterator[Finding]:
    first, *others = [parent.vocabulary for parent in case.parents]
    for other in others:
        if first and other and (told := first.differences(other)):
            yield Finding(
                "embedding", 0.9, f"{first.name} and {other.name}: {told[0]}",
                "map the vocabulary before merging (tokenizer: map in the recipe)",
            )  # fmt: skip


def _outside(part: str, words: str, remedy: str) -> Callable[[Case], Iterator[Finding]]:
    """A part outside of the blocks that is not made of what the body is made of."""

    def look(case: Case) -> Iterator[Finding]:
        mine, body = case.weights(part), case.weights("body")
        if not mine or not body:
            return
        names = [parent.name for parent in case.parents]
        apart = max(abs(mine[name] - body[name]) for name in names)
        left = case.residual(part)
        if left > max(FOREIGN, STANDS_OUT * case.residual("body")):
            yield Finding(part, max(case.restored(part), 0.3),
                          f"the {words} of the merge are not made of its parents "
                          f"(residual {left:.1f} of their distance)", remedy)  # fmt: skip
        elif apart > 0.35 and case.restored(part) > 0.3:
            shares = ", ".join(f"{mine[n]:.2f} {n}" for n in names)
            text = f"the {words} are mixed otherwise than the body: {shares}"
            yield Finding(part, case.restored(part), text, remedy)

    return look


_declare("embedding", 2, "The token embedding is not the parents'.")(
    _outside("embedding", "embeddings", "take the embedding from the parents with the same weights")
)
_declare("head", 2, "The output head is not the parents'.")(
    _outside("head", "rows of the head", "take the head from the same parents as the embedding")
)
_declare("norms", 2, "Gains of the norms are not the parents'.")(
    _outside("norms", "norm gains", "take the norms from the parents; average them as the rest")
)


@_declare("foreign block", 2, "A block is not made of the parents.")
def _block(case: Case) -> Iterator[Finding]:
    left = {block: case.residual(block) for block in case.blocks()}
    usual = float(np.median(list(left.values()))) if left else math.nan
    for block, residual in left.items():
        if residual > max(FOREIGN, STANDS_OUT * usual):
            yield Finding(
                block, max(case.restored(block), 0.3),
                f"block {block} is not made of the parents (residual {residual:.1f} of their "
                f"distance, {usual:.2f} in the median block)",
                f"merge block {block} again; until then take it from one parent",
            )  # fmt: skip


@_declare("wrong base", 2, "The base is no ancestor of the parents.")
def _base(case: Case) -> Iterator[Finding]:
    if case.base_finding and not case.base_finding.plausible:
        weight = abs(case.weights("body").get(case.base.name if case.base else "", 0.0))
        yield Finding("base", min(1.0, 0.4 + weight), case.base_finding.why,
                      "name the checkpoint that both parents were trained from, or merge without "
                      "a base (linear)")  # fmt: skip


@_declare("scale", 2, "The weights of the parents do not sum to 1.")
def _scale(case: Case) -> Iterator[Finding]:
    # The median over blocks: one foreign block alone must not look like a scaled merge.
    sums = [sum(case.weights(block).values()) for block in case.blocks()]
    total = float(np.median(sums)) if sums else 1.0
    if abs(total - 1) > SCALED:
        size = "larger" if total > 1 else "smaller"
        yield Finding(
            "body", min(1.0, abs(total - 1) + 0.3),
            f"weights of the parents sum to {total:.2f}, not to 1: every matrix is {size} than "
            "the parents'",
            "normalise the weights (normalize: true), or lower lambda",
        )  # fmt: skip


@_declare("extrapolation", 1, "Updates are added with more weight than the parents gave them.")
def _beyond(case: Case) -> Iterator[Finding]:
    weights = case.weights("body")
    most = max((abs(w) for name, w in weights.items()), default=0.0)
    if most > BEYOND and abs(sum(weights.values()) - 1) <= SCALED:
        shown = ", ".join(f"{w:.2f} {name}" for name, w in weights.items())
        yield Finding("body", min(1.0, most / 2), f"the merge lies beyond its parents: {shown}",
                      "lower lambda or the weights, so that none is above 1")  # fmt: skip


@_declare("re-ordered parent", 1, "A parent holds the units of another in another order.")
def _reordered(case: Case) -> Iterator[Finding]:
    for row in case.lineage.rows() if case.lineage else ():
        if row["relation"] == "re-ordered copy":
            text = f"units of {row['model_b']} are those of {row['model_a']} in another order"
            yield Finding("body", 0.9, text, "align first: repsim merge --align permutation")


@_declare("other origin", 1, "The parents were initialised apart: their coordinates differ.")
def _origin(case: Case) -> Iterator[Finding]:
    names = {parent.name for parent in case.parents}
    for row in case.lineage.rows() if case.lineage else ():
        if {row["model_a"], row["model_b"]} <= names and row["relation"] == "unrelated":
            yield Finding(
                "body", 0.8, f"{row['model_a']} and {row['model_b']} have no common origin "
                f"(cosine {row['cosine']:.2f})",
                "align first (--align orthogonal); between two languages that rescues no average: "
                "learn the map and weigh rows by tokens (--align learned --text NAME "
                "--token-weights NAME), or keep the parents apart",
            )  # fmt: skip


@_declare("activation scale", 0, "Activations are far larger or smaller than the parents'.")
def _scale_of_activations(case: Case) -> Iterator[Finding]:
    for block in case.blocks():
        norm, variance = (case.reading(name, block) for name in ("norm", "variance"))
        if (
            norm > 0
            and variance > 0
            and max(abs(math.log(norm)), abs(math.log(variance)) / 2) > LOUD
        ):
            yield Finding(
                block, 0.3,
                f"after block {block} activations have {norm:.2f} times the parents' norm and "
                f"{variance:.2f} times their variance",
                "repair the merge on text (repair in the recipe)",
            )  # fmt: skip
            return  # the first block where it is seen


@_declare("trained too far apart", 0, "One origin, but the updates of the parents interfere.")
def _apart(case: Case) -> Iterator[Finding]:
    names = {parent.name for parent in case.parents}
    for row in case.lineage.rows() if case.lineage else ():
        pair = {row["model_a"], row["model_b"]}
        if pair <= names and row["relation"] in ONE_ORIGIN and (row["distance"] or 0) > 0.3:
            yield Finding(
                "body", min(0.7, row["distance"] / 2),
                f"{row['model_a']} and {row['model_b']}: {row['relation']}, at distance "
                f"{row['distance']:.2f} of their norm",
                "fork later or train shorter after the fork; less weight for the weaker parent",
            )  # fmt: skip
