"""The rows of all models' vocabularies in the order of one vocabulary.

By mergekit's rules a token that a model lacks takes the base's row, else the only model's that has
it, else the mean of all that have it; what a recipe says comes first; a token that none has is
zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.merging.arrays import Array, flat_array
from repsim.merging.checkpoint import TensorSource, View
from repsim.merging.recipe import TokenChoice
from repsim.models.headers import TensorHeader

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Rows:
    """What one model knows of tokens: token -> row, for those that have a row, and all its rows."""

    ids: Mapping[str, int]
    count: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """Token -> row of the result, number of rows, and whose those are that stand for no token."""

    ids: Mapping[str, int]
    count: int
    owner: str


def assign_rows(
    layout: Layout, models: Mapping[str, Rows], base: str | None,
    choices: Mapping[str, TokenChoice],
) -> tuple[dict[str, dict[str, torch.Tensor]], list[str]]:  # fmt: skip
    """Model -> model -> rows (-1: none) whose mean each row is; tokens that no model has."""
    import torch

    found = {
        model: {other: np.full(layout.count, -1, dtype=np.int64) for other in models}
        for model in models
    }
    lacking = []
    for token, row in layout.ids.items():
        choice = choices.get(token)
        having = {model: rows.ids[token] for model, rows in models.items() if token in rows.ids}
        filled = _filled(token, choice, having, models, base)
        if not filled and choice is None:
            lacking.append(token)
        for model, own in having.items():
            found[model][model][row] = own
        for model in models:
            if model not in having or (choice is not None and choice.force):
                found[model][model][row] = -1
                for other, taken in filled.items():
                    found[model][other][row] = taken
    if layout.owner:
        _pad(layout, models, found)
    rows_of = {
        model: {other: torch.from_numpy(rows) for other, rows in taken.items()}
        for model, taken in found.items()
    }
    return rows_of, lacking


def _filled(
    token: str, choice: TokenChoice | None, having: Mapping[str, int],
    models: Mapping[str, Rows], base: str | None,
) -> Mapping[str, int]:  # fmt: skip
    """Model -> row that a token takes where it is lacking or forced."""
    if choice is not None and not choice.default:
        return _chosen(token, choice, models)
    if base in having:
        return {str(base): having[str(base)]}
    return having


def _chosen(token: str, choice: TokenChoice, models: Mapping[str, Rows]) -> dict[str, int]:
    if choice.model is None:
        return {}
    if choice.model not in models:
        raise unknown_name(f"model of token {token!r}", choice.model, models)
    rows = models[choice.model]
    if isinstance(choice.token, int):
        if choice.token >= rows.count:
            raise UsageError(
                f"token {token!r} is to take row {choice.token} of '{choice.model}', which has "
                f"{rows.count}"
            )
        return {choice.model: choice.token}
    name = token if choice.token is None else choice.token
    if name not in rows.ids:
        raise UsageError(
            f"token {token!r} is to take the row of {name!r} in '{choice.model}', which has no "
            "such token",
            hint="name a model that has it, or kind: model_token with another token of that model",
        )
    return {choice.model: rows.ids[name]}


def _pad(
    layout: Layout, models: Mapping[str, Rows], found: Mapping[str, Mapping[str, Array]]
) -> None:
    """Rows that stand for no token: each model's own of that number, else those of the owner."""
    taken = set(layout.ids.values())
    used = {model: set(rows.ids.values()) for model, rows in models.items()}
    for row in (number for number in range(layout.count) if number not in taken):
        for model, rows in models.items():
            own = row < rows.count and row not in used[model]
            found[model][model if own else layout.owner][row] = row


@dataclasses.dataclass(frozen=True)
class Reindexed(View):
    """A source whose vocabulary tensors have their rows in the order of another vocabulary."""

    #: Sources and, for each row of the result, the row that it takes; -1 for none. A row is the
    #: mean of what it takes, and of zeros where it takes nothing.
    donors: Sequence[tuple[TensorSource, torch.Tensor]]
    tensors: frozenset[str]  # Tensors with one row per token
    means: int = 0  # So many rows at the end are the mean of all others

    @property
    def headers(self) -> dict[str, TensorHeader]:
        """Type and shape of every tensor."""
        found = dict(self.source.headers)
        for tensor in self.tensors & found.keys():
            shape = (len(self.donors[0][1]), *found[tensor].shape[1:])
            found[tensor] = TensorHeader(found[tensor].dtype, shape)
        return found

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows, in the new order."""
        import torch

        if tensor not in self.tensors:
            return self.source.read(tensor, rows)
        start, stop, _ = (rows or slice(None)).indices(len(self.donors[0][1]))
        known = len(self.donors[0][1]) - self.means
        found = self._gathered(tensor, slice(start, min(stop, known)))
        if stop <= known:
            return found
        like = self.source.read(tensor, slice(0, 1)).dtype
        mean = self._gathered(tensor, slice(0, known)).to(torch.float64).mean(0).to(like)
        return torch.cat([found, mean.expand(stop - max(start, known), *mean.shape)])

    def _gathered(self, tensor: str, wanted: slice) -> torch.Tensor:
        """Rows that are no means of all others."""
        import torch

        like = self.source.read(tensor, slice(0, 1))
        donors = [(source, rows[wanted]) for source, rows in self.donors]
        found = torch.zeros((len(donors[0][1]), *like.shape[1:]), dtype=like.dtype)
        taken = torch.stack([rows >= 0 for _, rows in donors])
        several = taken.sum(0) > 1
        total = torch.zeros((int(several.sum()), *found.shape[1:]), dtype=torch.float64)
        for (source, rows), has in zip(donors, taken, strict=True):
            if not bool(has.any()):
                continue
            stored = source.read(tensor)
            alone = has & ~several
            found[alone] = stored[rows[alone]].to(found.dtype)
            total[has[several]] += stored[rows[has & several]].to(torch.float64)
        counts = taken.sum(0)[several].reshape(-1, *(1,) * (total.ndim - 1))
        found[several] = (total / counts).to(found.dtype)
        return found

    def array(self, tensor: str) -> Array:
        """A tensor as a flat array, in the new order."""
        if tensor not in self.tensors:
            return self.source.array(tensor)
        return flat_array(self.read(tensor))
