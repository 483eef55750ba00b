"""Merges of an atlas as the figures of a study see them: one object per merge, and its setting."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from repsim.core.atlas import COLLAPSE, Atlas, split_parents
from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots.names import short_codes
from repsim.stats.bootstrap import Estimate

#: The merge that "can these be averaged?" is asked of: the plain mean, coordinates as they are.
PLAIN = ("linear", "none")
#: Forks with at most this share of their training in common are called early.
EARLY = 0.1

#: Setting in which parents came about -> its name in figures, in the order of the figures.
SETTINGS: dict[str, str] = {
    "independent": "independent initial weights",
    "one-language": "one language, two initial weights",
    "same-init": "same initial weights",
    "early-forks": "forks, at most 10 % in common",
    "late-forks": "forks, more than 10 % in common",
    "with-trunk": "fork with its mixed trunk",
    "mono-trunk": "forks of a monolingual trunk",
    "data-order": "one language, two data orders",
    "tokenizers": "one tokenizer per language",
    "bytes": "bytes as tokens",
    "doses": "fine-tuned from one mixed model",
    "derived": "derived languages",
    "control": "controls",
}
#: Settings that have merges of several sizes and by all methods.
LARGE = ("independent", "same-init", "early-forks", "late-forks", "doses")
#: Settings in which language models were pretrained apart from the first step on.
PRETRAINED_APART = ("independent", "same-init")

METHODS: dict[str, str] = {
    "linear": "mean",
    "slerp": "SLERP",
    "karcher": "Karcher mean",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "dare_ties": "DARE-TIES",
    "dare_linear": "DARE",
    "breadcrumbs": "breadcrumbs",
}
ALIGNMENTS: dict[str, str] = {
    "none": "as they are",
    "permutation": "permuted",
    "orthogonal": "rotated",
    "learned": "moved by learned maps",
}
ALIGNMENTS |= {f"{k}+counts": f"{v}, token rows by counts" for k, v in ALIGNMENTS.items()}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One merge, the origin of its parents, and what it kept by language (NaN: not defined)."""

    parents: tuple[str, ...]
    setting: str
    arm: str
    control: str
    method: str
    alignment: str
    shared_init: bool
    fork_fraction: float
    rate: float
    retention: Mapping[str, float]
    ends: Mapping[str, tuple[float, float]]
    bits: Mapping[str, float]
    worst: float
    kept: float
    advantage: float
    useful: bool

    @property
    def k(self) -> int:
        """Number of parents."""
        return len(self.parents)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that it was scored on."""
        return tuple(self.retention)

    @property
    def multilingual(self) -> bool:
        """Whether it was scored on several languages."""
        return len(self.retention) > 1

    @property
    def apart(self) -> float:
        """Share of their training that they did not have in common."""
        return 1 - self.fork_fraction

    @property
    def collapsed(self) -> bool:
        """Whether the worst language keeps less than half."""
        return self.worst < COLLAPSE

    @property
    def recipe(self) -> tuple[str, str]:
        """Method and alignment."""
        return self.method, self.alignment


def outcomes_of(atlas: Atlas) -> list[Outcome]:
    """Every merge of an atlas whose retention is defined, in the order of its table."""
    rows: dict[str, list[dict[str, object]]] = {}
    for row in atlas.merges.rows():
        rows.setdefault(str(row["merge"]), []).append(row)
    about = {str(row["model"]): row for row in atlas.models.rows()}
    found = [_outcome(lines, about) for lines in rows.values()]
    defined = [outcome for outcome in found if math.isfinite(outcome.worst)]
    if not defined:
        raise UsageError(
            "the atlas holds no merge with a defined retention",
            hint="see how far the study is: repsim study status DIR",
        )
    return defined


def chosen(
    outcomes: Sequence[Outcome], wanted: Callable[[Outcome], bool], what: str
) -> list[Outcome]:
    """Those that a figure is about."""
    found = [outcome for outcome in outcomes if wanted(outcome)]
    if not found:
        raise UsageError(f"the atlas holds no {what}")
    return found


def _outcome(lines: list[dict[str, object]], about: Mapping[str, dict[str, object]]) -> Outcome:
    first = lines[0]
    parents = split_parents(str(first["parents"]))
    rates = [_float(about.get(parent, {}).get("learning_rate")) for parent in parents]
    return Outcome(
        parents=parents,
        setting=_setting(first, [about.get(parent, {}) for parent in parents]),
        arm=str(first["arm"]),
        control=str(first["control"] or ""),
        method=str(first["method"]),
        alignment=str(first["alignment"]),
        shared_init=bool(first["shared_init"]),
        fork_fraction=_float(first["fork_fraction"]),
        rate=max(rates),
        retention={str(row["language"]): _float(row["retention"]) for row in lines},
        ends={
            str(row["language"]): (_float(row["ci_low"]), _float(row["ci_high"])) for row in lines
        },
        bits={str(row["language"]): _float(row["bits_per_byte"]) for row in lines},
        worst=_float(first["worst_retention"]),
        kept=_float(first["kept"]),
        advantage=_float(first["advantage"]),
        useful=bool(first["useful"]),
    )


def _setting(row: Mapping[str, object], parents: Sequence[Mapping[str, object]]) -> str:
    """The setting that arm, history and languages of the parents amount to."""
    arm, fraction = row["arm"], _float(row["fork_fraction"])
    plain = {"A2": "mono-trunk", "E": "doses", "F": "derived", "G": "control"}
    if row["control"]:
        return "control"
    if arm in plain:
        return plain[str(arm)]
    kinds = {parent.get("tokenizer") for parent in parents}
    if "bytes" in kinds:
        return "bytes"
    if "per-language" in kinds:
        return "tokenizers"
    if any(parent.get("role") == "mixed" for parent in parents):
        return "with-trunk"
    spoken = {parent.get("trained_on") for parent in parents}
    if not row["shared_init"]:
        return "independent" if len(spoken) > 1 else "one-language"
    if len(spoken) == 1:
        return "data-order"
    if fraction <= 0:
        return "same-init"
    return "early-forks" if fraction <= EARLY * 1.05 else "late-forks"


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def settings_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Settings that occur, in the order of `SETTINGS`."""
    present = {outcome.setting for outcome in outcomes}
    return [setting for setting in SETTINGS if setting in present]


def usual_rate(outcomes: Sequence[Outcome]) -> float:
    """The learning rate of most merges; doses at other rates are a matter of their own."""
    rates = [outcome.rate for outcome in outcomes]
    return max(dict.fromkeys(rates), key=rates.count)


def recipe_label(method: str, alignment: str) -> str:
    """A method and an alignment in words."""
    label = METHODS.get(method, method)
    return label if alignment == "none" else f"{label}, {ALIGNMENTS.get(alignment, alignment)}"


def pair_label(languages: Sequence[str], codes: Mapping[str, str] | None = None) -> str:
    """Languages of a merge in short."""
    short = codes or short_codes(list(languages))
    names = [short[language] for language in languages]
    return "–".join(names * 2 if len(names) == 1 else names)


def cluster(values: Sequence[float]) -> dict[float, float]:
    """Each value -> the mean of those that stand for the same planned value (steps are rounded)."""
    groups: list[list[float]] = []
    for value in sorted(set(values)):
        if groups and value <= groups[-1][0] * 1.12 and groups[-1][0] > 0:
            groups[-1].append(value)
        else:
            groups.append([value])
    return {value: sum(group) / len(group) for group in groups for value in group}


def value_words(found: Estimate) -> str:
    """A value with its interval over models, where there is one."""
    if math.isnan(found.low):
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"
