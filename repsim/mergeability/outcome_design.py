"""What forecasts of a table of outcomes are made from, and the ways to part it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from repsim.core.errors import InputError
from repsim.core.outcome_table import OutcomeTable
from repsim.mergeability.splits import Fold, Split
from repsim.stats.bootstrap import members_of

#: Fewest models of a table that can be parted.
LEAST_MODELS = 6
#: Fewest rows to learn from.
LEAST_ROWS = 12
#: Blocks of models of which two at a time are held out.
BLOCKS = 5


@dataclasses.dataclass(frozen=True)
class Design:
    """Rows as regressors take them."""

    features: np.ndarray  # [rows, features], NaN where not known
    members: np.ndarray  # [rows, models]: whose merge it is
    method: np.ndarray  # [rows]: number of the method
    source: np.ndarray  # [rows]: number of the source
    cell: np.ndarray  # [rows]: number of method and source: within a cell levels are alike
    names: tuple[str, ...]  # of the models
    methods: tuple[str, ...]
    sources: tuple[str, ...]
    cells: tuple[str, ...]  # those of the methods, if there is one source
    signs: np.ndarray  # [features]: +1, -1, or 0 where no direction was stated

    def take(self, rows: np.ndarray) -> Design:
        """Some rows; models and methods keep their numbers."""
        return dataclasses.replace(
            self, features=self.features[rows], members=self.members[rows],
            method=self.method[rows], source=self.source[rows], cell=self.cell[rows],
        )  # fmt: skip


def design_of(table: OutcomeTable, directions: dict[str, int] | None = None) -> Design:
    """The design of a table; `directions` (+1 or -1): where the outcome only rises or falls."""
    parents = table.members
    names = tuple(sorted({name for row in parents for name in row}))
    if len(names) < LEAST_MODELS or len(table) < 2 * LEAST_ROWS:
        raise InputError(
            f"{len(names)} models and {len(table)} merges are too few to hold models out",
            hint=f"{LEAST_MODELS} models and {2 * LEAST_ROWS} merges are the least",
        )
    methods, method = np.unique(table["method"].astype(str), return_inverse=True)
    sources, source = np.unique(table["source"].astype(str), return_inverse=True)
    signs = np.array([(directions or {}).get(name, 0) for name in table.features])
    pairs = [
        f"{methods[m]} · {sources[s]}" if len(sources) > 1 else str(methods[m])
        for m, s in zip(method, source, strict=True)
    ]
    cells, cell = np.unique(pairs, return_inverse=True)
    return Design(
        table.values(), members_of(parents), method, source, cell, names,
        tuple(map(str, methods)), tuple(map(str, sources)), tuple(map(str, cells)), signs,
    )  # fmt: skip


def inner_folds(split: str, design: Design, seed: int) -> tuple[Fold, ...]:
    """Folds inside training rows that imitate those of a split, fewer and coarser."""
    if split == "leave-models-out":
        return models_out(design, 4, seed)
    if split == "leave-method-out" and len(np.unique(design.method)) > 1:
        return method_out(design, 2, seed)
    return one_member_out(design, 6, seed)


def one_member_out(design: Design, limit: int | None = None, seed: int = 0) -> tuple[Fold, ...]:
    """Test the merges of one model; the other parent of each may be known from other merges."""
    count = design.members.shape[1]
    order = np.random.default_rng(seed).permutation(count) if limit else np.arange(count)
    folds: list[Fold] = []
    for model in order:
        test = design.members[:, model]
        if test.sum() > 0 and (~test).sum() >= LEAST_ROWS and len(folds) < (limit or count):
            folds.append(Fold(design.names[model], ~test, test))
    return tuple(folds)


def models_out(design: Design, blocks: int = BLOCKS, seed: int = 0) -> tuple[Fold, ...]:
    """Hold out one or two blocks of models; test the merges that lie wholly inside them."""
    present = np.flatnonzero(design.members.any(axis=0))
    blocks = min(blocks, len(present) // 2)
    dealt = np.full(design.members.shape[1], -1)
    dealt[present] = np.random.default_rng(seed).permutation(len(present)) % blocks
    touched = np.stack([design.members[:, dealt == b].any(axis=1) for b in range(blocks)], axis=1)
    folds = []
    for held in np.unique(touched, axis=0):
        test = np.asarray((touched == held).all(axis=1))
        train = np.asarray(~touched[:, held].any(axis=1))
        if train.sum() >= LEAST_ROWS:
            name = "+".join(str(block) for block in np.flatnonzero(held))
            folds.append(Fold(f"block {name}", train, test))
    return tuple(folds)


def method_out(design: Design, limit: int | None = None, seed: int = 0) -> tuple[Fold, ...]:
    """Test a method by one model; neither that model nor that method is learnt from."""
    return tuple(
        Fold(f"{design.methods[code]} / {fold.name}", fold.train & (design.method != code),
             fold.test & (design.method == code))
        for code in np.unique(design.method)
        for fold in one_member_out(design, limit, seed)
        if (fold.test & (design.method == code)).any()
        and (fold.train & (design.method != code)).sum() >= LEAST_ROWS
    )  # fmt: skip


def source_out(design: Design) -> tuple[Fold, ...]:
    """Test all merges of one source; learn from the others."""
    return tuple(
        Fold(design.sources[code], design.source != code, design.source == code)
        for code in np.unique(design.source)
        if (design.source != code).sum() >= LEAST_ROWS
    )


def splits_of(design: Design, seed: int = 0) -> list[Split]:
    """Every split that a table has enough variety for."""
    return [split for split in _splits(design, seed) if split.folds]


def _splits(design: Design, seed: int) -> Iterator[Split]:
    yield Split(
        "leave-one-member-out",
        "how do merges of a new model compare, if its partners are known from other merges?",
        one_member_out(design),
    )  # fmt: skip
    yield Split(
        "leave-models-out", "how do merges of models compare none of which was ever seen?",
        models_out(design, seed=seed),
    )  # fmt: skip
    if len(design.methods) > 1:
        yield Split(
            "leave-method-out", "does it hold for a method, and one of its models, never seen?",
            method_out(design),
        )  # fmt: skip
    if len(design.sources) > 1:
        yield Split(
            "leave-source-out", "does it hold for another source, by what is known of the others?",
            source_out(design),
        )  # fmt: skip
