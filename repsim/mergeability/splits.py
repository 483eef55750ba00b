"""Ways to part evidence into what is learnt from and what is tested on.

One rule holds for all: no model of a test row, and none of its lineage, is in any training row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.mergeability.evidence import EvidenceTable

#: Least number of groups of parents to learn from when forecasts are tested.
LEAST_GROUPS = 40
#: The same when only the size of errors is learnt.
LEAST_INNER = 8


@dataclasses.dataclass(frozen=True)
class Fold:
    """One training set and one test set.

    Attributes:
        name: What was held out.
        train: Numbers of training rows.
        test: Numbers of test rows.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """A way to part a table.

    Attributes:
        name: Name of the split.
        question: What success on it would mean.
        folds: Its folds; a row is tested in at most one.
    """

    name: str
    question: str
    folds: tuple[Fold, ...]


def incidence(table: EvidenceTable) -> tuple[np.ndarray, list[str]]:
    """Which models each row has, models of one lineage taken as one.

    Returns:
        `[rows, models]` of booleans, and the names of the models in alphabetical order.
    """
    roots = table.roots
    names = sorted({name for row in roots for name in row})
    number = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(table), len(names)), dtype=bool)
    for row, members in enumerate(roots):
        for name in members:
            found[row, number[name]] = True
    return found, names


def leave_models_out(
    table: EvidenceTable, *, blocks: int = 8, seed: int = 0, least: int = LEAST_GROUPS
) -> Split:
    """Hold out blocks of models, and test on the merges that lie wholly inside them.

    Models are dealt into blocks at random. For every set of blocks that the parents of some merge
    touch, those blocks are held out: training rows have no parent in them, test rows have parents
    in all of them and nowhere else. So every merge is tested once, by a predictor that knows none
    of its parents.

    Args:
        table: Evidence.
        blocks: Number of blocks.
        seed: Of the dealing.
        least: Least number of groups of parents to learn from; folds with fewer are left out.

    Raises:
        InputError: There are too few models.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> table = planted_evidence(models=12)
        >>> split = leave_models_out(table, blocks=4, least=8)
        >>> sum(len(fold.test) for fold in split.folds) == len(table)
        True
    """
    found, names = incidence(table)
    if len(names) < 4:
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
    return Split(
        "leave-models-out",
        "does it hold for models that it has never seen?",
        _sound(table, folds, least),
    )


def leave_values_out(
    table: EvidenceTable,
    tested: Sequence[object],
    taints: Sequence[Set[object]],
    name: str,
    question: str,
    *,
    blocks: int = 4,
    seed: int = 0,
) -> Split:
    """Hold out one value after another of something, and models with it.

    Args:
        table: Evidence.
        tested: Per row, the value with which it is tested; None if it never is.
        taints: Per row, the values with which it may not be learnt from.
        name: Name of the split.
        question: What success on it would mean.
        blocks: Number of blocks of models.
        seed: Of the dealing.
    """
    models = leave_models_out(table, blocks=blocks, seed=seed, least=1)
    folds = []
    for value in sorted({value for value in tested if value is not None}, key=str):
        is_test = np.array([own is not None and own == value for own in tested])
        tainted = np.array([value in own for own in taints])
        folds += [
            Fold(f"{value} / {f.name}", f.train[~tainted[f.train]], f.test[is_test[f.test]])
            for f in models.folds
        ]
    return Split(name, question, _sound(table, folds))


def leave_language_out(table: EvidenceTable, *, seed: int = 0) -> Split:
    """Hold out every merge in which a language takes part; test on what is kept of it."""
    number, _ = table.merges()
    spoken: dict[int, set[object]] = {}
    for merge, language in zip(number, table["language"], strict=True):
        spoken.setdefault(int(merge), set()).add(language)
    return leave_values_out(
        table, [language or None for language in table["language"]],
        [spoken[int(merge)] for merge in number], "leave-language-out",
        "does it hold for languages that it has never seen?", seed=seed,
    )  # fmt: skip


def _one_by_one(
    table: EvidenceTable, values: Sequence[object], name: str, question: str, seed: int
) -> Split:
    return leave_values_out(table, values, [{v} for v in values], name, question, seed=seed)


def leave_fork_out(table: EvidenceTable, *, seed: int = 0) -> Split:
    """Hold out one fork fraction after another, among merges of one initialisation."""
    values = [
        "no shared weights" if shared == 0 else round(float(f), 3) if np.isfinite(f) else None
        for shared, f in zip(table["shared_init"], table["fork_fraction"], strict=True)
    ]
    question = "does it hold for fork fractions between those it knows?"
    return _one_by_one(table, values, "leave-fork-out", question, seed)


def leave_arm_out(table: EvidenceTable, *, seed: int = 0) -> Split:
    """Hold out one arm of the studies after another."""
    values = [arm or None for arm in table["arm"]]
    question = "does it hold for another kind of experiment?"
    return _one_by_one(table, values, "leave-arm-out", question, seed)


def leave_method_out(table: EvidenceTable, *, seed: int = 0) -> Split:
    """Hold out one method with its alignment after another."""
    question = "does it hold for a method that it has never seen?"
    return _one_by_one(table, list(table.factor), "leave-method-out", question, seed)


def train_on_arms(
    table: EvidenceTable, train: Sequence[str], test: Sequence[str], *, seed: int = 0
) -> Split:
    """Learn from some arms and test on others.

    Args:
        table: Evidence.
        train: Arms to learn from.
        test: Arms to test on.
        seed: Of the dealing of models, which are held out too.
    """
    arms = table["arm"]
    name = f"train {','.join(train)}; test {','.join(test)}"
    return leave_values_out(
        table, ["test" if arm in test else None for arm in arms],
        [set() if arm in train else {"test"} for arm in arms], name,
        "does what is learnt on one kind of experiment hold for the other?", seed=seed,
    )  # fmt: skip


def from_source_to_source(table: EvidenceTable) -> Split:
    """Hold out one atlas (or other source) after another."""
    sources = table["source"]
    folds = [
        Fold(str(s), np.flatnonzero(sources != s), np.flatnonzero(sources == s))
        for s in sorted(set(sources))
    ]
    return Split(
        "atlas-to-atlas", "does it hold for models of another size, trained elsewhere?",
        _sound(table, folds),
    )  # fmt: skip


def standard_splits(table: EvidenceTable, *, blocks: int = 8, seed: int = 0) -> list[Split]:
    """Every split that a table has enough variety for.

    Args:
        table: Evidence.
        blocks: Blocks of models of the first split.
        seed: Of the dealing.

    Example:
        >>> from repsim.testing.evidence import planted_evidence
        >>> [split.name for split in standard_splits(planted_evidence(models=24))][:2]
        ['leave-models-out', 'leave-fork-out']
    """
    made = [leave_models_out(table, blocks=blocks, seed=seed)]
    several = (leave_language_out, leave_fork_out, leave_arm_out, leave_method_out)
    made += [make(table, seed=seed) for make in several if _varied(make, table)]
    arms = set(table["arm"])
    if {"A", "B", "E"} <= arms:
        made.append(train_on_arms(table, ("A", "E"), ("B",), seed=seed))
        made.append(train_on_arms(table, ("B",), ("A", "E"), seed=seed))
    if len(set(table["source"])) > 1:
        made.append(from_source_to_source(table))
    return [split for split in made if split.folds]


def _varied(make: object, table: EvidenceTable) -> bool:
    """Whether there is more than one value to hold out."""
    columns = {leave_language_out: "language", leave_fork_out: "fork_fraction",
               leave_arm_out: "arm"}  # fmt: skip
    values = table[columns[make]] if make in columns else table.factor
    return len({str(value) for value in values}) > 1


def assert_apart(table: EvidenceTable, train: np.ndarray, test: np.ndarray) -> None:
    """Make sure that no model, nor one of its lineage, is in both of two sets of rows.

    Raises:
        UsageError: One is.
    """
    roots = table.roots
    known = {name for row in train for name in roots[row]}
    both = sorted({name for row in test for name in roots[row]} & known)
    if both:
        raise UsageError(f"'{both[0]}' is both in training and in test rows")


def _sound(
    table: EvidenceTable, folds: Sequence[Fold], least: int = LEAST_GROUPS
) -> tuple[Fold, ...]:
    return tuple(_apart(table, folds, least))


def _apart(table: EvidenceTable, folds: Sequence[Fold], least: int) -> Iterator[Fold]:
    """Take models of test rows out of training rows; drop folds that have too little left."""
    found, _ = incidence(table)
    for fold in folds:
        if not len(fold.test):
            continue
        held = found[fold.test].any(axis=0)
        train = fold.train[~found[fold.train][:, held].any(axis=1)]
        if len(set(table["parents"][train])) >= least:
            yield dataclasses.replace(fold, train=train)
