"""Ways to part evidence into what is learnt from and what is tested on.

One rule holds for all: no model of a test row, and none of its lineage, is in any training row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.mergeability.evidence import EvidenceTable

#: Least number of models, or of origins, some of which can be held out.
LEAST_MODELS = 4
#: Least number of groups of parents to learn from when forecasts are tested.
LEAST_GROUPS = 40
#: The same when only the size of errors is learnt.
LEAST_INNER = 8


@dataclasses.dataclass(frozen=True)
class Fold:
    """One training set and one test set, as numbers of rows or as masks."""

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """A way to part a table."""

    name: str
    question: str
    folds: tuple[Fold, ...]


def incidence(
    table: EvidenceTable, *, histories: bool = False
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Which models each row has, models of one lineage (or forked from one run) taken as one."""
    roots = table.histories if histories else table.roots
    names = sorted({name for row in roots for name in row})
    number = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(table), len(names)), dtype=bool)
    for row, members in enumerate(roots):
        for name in members:
            found[row, number[name]] = True
    return found, names


def leave_models_out(
    table: EvidenceTable, *, blocks: int = 6, seed: int = 0, least: int = LEAST_GROUPS,
    histories: bool = False,
) -> Split:  # fmt: skip
    """Hold out blocks of models (`histories`: all forks of a run), test merges inside."""
    found, names = incidence(table, histories=histories)
    if len(names) < LEAST_MODELS:
        raise InputError(
            f"{len(names)} models are too few to hold some out", hint="add merges of other models"
        )
    blocks = min(blocks, len(names) // 2)
    dealt = np.random.default_rng(seed).permutation(len(names)) % blocks
    touched = np.stack([found[:, dealt == block].any(axis=1) for block in range(blocks)], axis=1)
    sets, which = np.unique(touched, axis=0, return_inverse=True)
    folds = []
    for number, held in enumerate(sets):
        train = np.flatnonzero(~touched[:, held].any(axis=1))
        test = np.flatnonzero(which.ravel() == number)
        folds.append(Fold("+".join(str(b) for b in np.flatnonzero(held)), train, test))
    if histories:
        name, asked = "leave-origins-out", "does it hold for forks of runs that it has never seen?"
    else:
        name, asked = "leave-models-out", "does it hold for models that it has never seen?"
    return Split(name, asked, _sound(table, folds, least))


def _leave_values_out(
    table: EvidenceTable,
    tested: Sequence[object],
    taints: Sequence[Set[object]],
    name: str,
    question: str,
    seed: int,
) -> Split:
    """Hold out value after value, and models with it; `taints` bars rows from learning."""
    models = leave_models_out(table, blocks=3, seed=seed, least=1)
    folds = []
    for value in sorted({value for value in tested if value is not None}, key=str):
        is_test = np.array([own is not None and own == value for own in tested])
        tainted = np.array([value in own for own in taints])
        folds += [
            Fold(f"{value} / {f.name}", f.train[~tainted[f.train]], f.test[is_test[f.test]])
            for f in models.folds
        ]
    return Split(name, question, _sound(table, folds))


def _leave_language_out(table: EvidenceTable, seed: int) -> Split:
    """Hold out every merge in which a language takes part; test on what is kept of it."""
    number, _ = table.merges()
    spoken: dict[int, set[object]] = {}
    for merge, language in zip(number, table["language"], strict=True):
        spoken.setdefault(int(merge), set()).add(language)
    return _leave_values_out(
        table, [language or None for language in table["language"]],
        [spoken[int(merge)] for merge in number], "leave-language-out",
        "does it hold for languages that it has never seen?", seed,
    )  # fmt: skip


def _forks(table: EvidenceTable) -> list[object]:
    """Fork fraction of each row, among merges of one initialisation."""
    return [
        "no shared weights" if shared == 0 else round(float(f), 3) if np.isfinite(f) else None
        for shared, f in zip(table["shared_init"], table["fork_fraction"], strict=True)
    ]


#: Split -> its question, and the value that is held out with each row; None for never.
_ONE_BY_ONE: dict[str, tuple[str, Callable[[EvidenceTable], list[object]]]] = {
    "leave-fork-out": ("does it hold for fork fractions between those it knows?", _forks),
    "leave-arm-out": ("does it hold for another kind of experiment?",
                      lambda table: [arm or None for arm in table["arm"]]),
    "leave-method-out": ("does it hold for a method that it has never seen?",
                         lambda table: list(table["method"])),
}  # fmt: skip


def _train_on_arms(
    table: EvidenceTable, train: Sequence[str], test: Sequence[str], seed: int
) -> Split:
    """Learn from some arms and test on others."""
    arms = table["arm"]
    return _leave_values_out(
        table, ["test" if arm in test else None for arm in arms],
        [set() if arm in train else {"test"} for arm in arms],
        f"train {','.join(train)}; test {','.join(test)}",
        "does what is learnt on one kind of experiment hold for the other?", seed,
    )  # fmt: skip


#: Sizes that differ by less than this factor are one size.
SAME_SIZE = 1.5


def _sizes(table: EvidenceTable) -> np.ndarray:
    """Millions of parameters of each row, near sizes as the least of them; NaN if not known."""
    sizes = table.features.get("parameters_log10", np.full(len(table), np.nan))
    distinct = np.unique(sizes[np.isfinite(sizes)])
    apart = np.diff(distinct, prepend=-np.inf) > np.log10(SAME_SIZE)
    least = np.append(distinct[apart], np.nan)
    found = least[np.searchsorted(distinct[apart], sizes, side="right") - 1]
    return np.round(10.0 ** (np.where(np.isfinite(sizes), found, np.nan) - 6), 2)


#: Split -> its question, and the value of each row: one after another is held out altogether.
_WHOLE: dict[str, tuple[str, Callable[[EvidenceTable], np.ndarray]]] = {
    "leave-family-out": ("does it hold for another family of architectures?",
                         lambda table: table["family"]),
    "leave-text-out": ("does it hold for models that were trained on another kind of text?",
                       lambda table: table["text"]),
    "leave-size-out": ("does it hold for models larger than all that it has seen?", _sizes),
    "atlas-to-atlas": ("does it hold for models of another study?", lambda table: table["source"]),
}  # fmt: skip


def _hold_out_whole(table: EvidenceTable, name: str) -> Split:
    """Hold out one value after another; of sizes, known merges are only of smaller models."""
    question, values_of = _WHOLE[name]
    values = values_of(table)
    by_size = values.dtype != object
    known = np.isfinite(values) if by_size else values != ""
    folds = [
        Fold(f"{value}M parameters" if by_size else str(value),
             np.flatnonzero(known & (values < value if by_size else values != value)),
             np.flatnonzero(values == value))
        for value in sorted(set(values[known]))
    ]  # fmt: skip
    return Split(name, question, _sound(table, folds))


def standard_splits(table: EvidenceTable, *, blocks: int = 6, seed: int = 0) -> list[Split]:
    """Every split that a table has enough variety for."""
    made = [leave_models_out(table, blocks=blocks, seed=seed)]
    origins = len(incidence(table, histories=True)[1])
    if table.histories != table.roots and origins >= LEAST_MODELS:
        made.append(leave_models_out(table, blocks=blocks, seed=seed, histories=True))
    if len(set(table["language"])) > 1:
        made.append(_leave_language_out(table, seed))
    for name, (question, values_of) in _ONE_BY_ONE.items():
        values = values_of(table)
        varied = table["fork_fraction"] if name == "leave-fork-out" else values
        if len(set(map(str, varied))) > 1:
            made.append(
                _leave_values_out(table, values, [{v} for v in values], name, question, seed)
            )
    if {"A", "B", "E"} <= set(table["arm"]):
        made.append(_train_on_arms(table, ("A", "E"), ("B",), seed))
        made.append(_train_on_arms(table, ("B",), ("A", "E"), seed))
    made += [_hold_out_whole(table, name) for name in _WHOLE]
    return [split for split in made if split.folds]


def new_sources(table: EvidenceTable, known: int) -> list[Split]:
    """Rows beyond the first `known` by their source, and all of them where there are several."""
    new = np.arange(known, len(table))
    names = dict.fromkeys(table["source"][new])
    tested = {name: new[table["source"][new] == name] for name in names}
    parts = {"all that is new": new, **tested} if len(tested) > 1 else tested
    return [
        Split(name, "does what is known hold for merges that were made elsewhere?",
              (Fold(name, np.arange(known), rows),))
        for name, rows in parts.items()
    ]  # fmt: skip


def assert_apart(table: EvidenceTable, train: np.ndarray, test: np.ndarray) -> None:
    """Make sure that no model, nor one of its lineage, is in both of two sets of rows."""
    roots = table.roots
    known = {name for row in train for name in roots[row]}
    both = sorted({name for row in test for name in roots[row]} & known)
    if both:
        raise UsageError(f"'{both[0]}' is both in training and in test rows")


def _sound(
    table: EvidenceTable, folds: Sequence[Fold], least: int = LEAST_GROUPS
) -> tuple[Fold, ...]:
    """Take models of test rows out of training rows; drop folds that have too little left."""
    found, _ = incidence(table)
    sound = []
    for fold in folds:
        if not len(fold.test):
            continue
        held = found[fold.test].any(axis=0)
        train = fold.train[~found[fold.train][:, held].any(axis=1)]
        if len(set(table["parents"][train])) >= least:
            sound.append(dataclasses.replace(fold, train=train))
    return tuple(sound)
