"""Whether a base can be the ancestor of its parents, and what parents without a base share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from repsim.merging.check import Finding
from repsim.merging.lineage import ONE_ORIGIN, RELATIONS, relation_of
from repsim.merging.pair_readings import PairReadings, read_pair
from repsim.merging.sampling import ModelLike, Models, open_sources, open_with

#: Cosine of two updates from which their base is not the nearest common ancestor: siblings of equal
#: dose give 0.5, and so does an older ancestor if as much training was shared as not.
NOT_NEAREST = 0.45
#: Most that is read of a pair of models, in megabytes, where lineage is one check of several.
QUICK = 40.0
#: Name of the finding that parents look fine-tuned from a base that is not named.
NO_BASE = "no base"

#: "ancestor": it can be the nearest common one; "not nearest": of one origin with the parents, but
#: a sibling or an older ancestor; "other shapes": there is nothing to compare.
Kinship = Literal["ancestor", "not nearest", "other origin", "other shapes"]


@dataclasses.dataclass(frozen=True)
class BaseFinding:
    """Whether a base can be the ancestor of some parents."""

    kind: Kinship
    why: str
    update_cosine: float  # Largest of two parents' updates from it, -1 to 1; NaN for one parent
    relations: dict[str, str]  # Parent -> its relation to the base

    @property
    def plausible(self) -> bool:
        """Whether it can be the nearest common ancestor."""
        return self.kind == "ancestor"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        cosine = None if math.isnan(self.update_cosine) else self.update_cosine
        return dataclasses.asdict(self) | {"plausible": self.plausible, "update_cosine": cosine}


def check_base(base: ModelLike, parents: Models, *, max_megabytes: float = 300) -> BaseFinding:
    """Whether a model can be the nearest common ancestor of some parents, told from weights.

    Updates from the nearest common ancestor point in different directions. From a sibling they do
    not, nor from an older ancestor: all hold the way from there to where the parents part. From a
    model of another origin, units do not resemble their namesakes.

    Args:
        base: The model that is called their base.
        parents: One parent or more; each is compared with the base, and with the first. A mapping
            gives them names.
        max_megabytes: Most that is read of a pair.

    Raises:
        InputError: A model is not there, or its files are damaged.

    Example:
        >>> check_base("zoo:mixed", ["zoo:eng-fork", "zoo:deu-fork"]).plausible
        True
        >>> check_base("zoo:eng-2", ["zoo:eng-fork", "zoo:deu-fork"]).kind
        'other origin'
    """
    root, (first, *others) = open_with(base, parents)
    from_base = {p.name: read_pair(root, p, max_megabytes) for p in (first, *others)}
    relations = {name: relation_of(found) for name, found in from_base.items()}
    cosines = [
        _update_cosine(from_base[first.name], from_base[other.name], found)
        for other in others
        if (found := read_pair(first, other, max_megabytes))
    ]
    most = max((c for c in cosines if not math.isnan(c)), default=math.nan)
    kind, why = _judged(root.name, relations, most)
    return BaseFinding(kind, why, most, relations)


def _judged(base: str, relations: dict[str, str], cosine: float) -> tuple[Kinship, str]:
    """Which kind of base it is, and why."""
    for parent, told in relations.items():
        if told == "other shapes":
            return "other shapes", f"'{base}' and '{parent}' have {RELATIONS[told]}"
        if told not in ONE_ORIGIN:
            why = f"'{parent}' and '{base}' are not of one origin: {RELATIONS[told]}"
            return "other origin", why
    if cosine >= NOT_NEAREST:
        return "not nearest", (
            f"updates from '{base}' have cosine {cosine:.2f}: it is a sibling of the parents, or "
            "an ancestor from before they parted"
        )
    return "ancestor", f"all parents are of one origin with '{base}'"


def check_lineage(
    parents: Sequence[ModelLike], base: ModelLike | None = None, *, aligned: bool = False
) -> list[Finding]:  # fmt: skip
    """What a merge should know of the lineage of its parents and base, as findings of a check."""
    if base is not None:
        return [_of_base(check_base(base, parents, max_megabytes=QUICK), aligned=aligned)]
    first, *others = open_sources(parents)
    relations = {other.name: relation_of(read_pair(first, other, QUICK))
                 for other in others}  # fmt: skip
    found = set(relations.values())
    if "fine-tuned" in found and found <= {"fine-tuned", "same weights"}:
        shown = " and ".join(f"'{name}'" for name in (first.name, *relations))
        what = "the models look fine-tuned from one base, and none is given"
        hint = "give it with --base: methods on differences (ties, task_arithmetic) start from it"
        return [Finding("warning", NO_BASE, what, shown, hint)]
    return [_of_pair(first.name, other, told, aligned) for other, told in relations.items()
            if told != "other shapes"]  # fmt: skip


def _of_base(found: BaseFinding, *, aligned: bool) -> Finding:
    where = "base and models"
    if found.kind == "ancestor":
        return Finding("ok", "base", found.why, where)
    if found.kind == "other origin" and not aligned:
        hint = (
            "differences to such a base mean nothing: name the checkpoint that all models were "
            "trained from, or merge without a base (linear)"
        )
        return Finding("error", "base", found.why, where, hint)
    hint = "name the checkpoint that the models were last trained from together"
    return Finding("warning", "base", found.why, where, hint)


def _of_pair(first: str, other: str, told: str, aligned: bool) -> Finding:
    where = f"'{first}' and '{other}'"
    if told in ONE_ORIGIN or aligned:
        return Finding("ok", "lineage", RELATIONS[told], where)
    how = "permutation" if told == "re-ordered copy" else "orthogonal"
    hint = f"as they are, their average is likely to collapse: align first (--align {how})"
    return Finding("warning", "lineage", RELATIONS[told], where, hint)


def _update_cosine(a: PairReadings | None, b: PairReadings | None, between: PairReadings) -> float:
    """Cosine of two updates by the law of cosines, from squared distances of one sample."""
    if a is None or b is None:
        return math.nan
    if not a.gap or not b.gap:
        return 0.0  # a parent that is the base itself has no update
    return (a.gap + b.gap - between.gap) / (2 * math.sqrt(a.gap * b.gap))
