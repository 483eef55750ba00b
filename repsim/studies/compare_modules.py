"""Models of any kind, compared at modules that the user names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from repsim.activations.modules import Run, UnitPooling, read_modules
from repsim.core import Measure, SimilarityTable, UsageError
from repsim.core.provenance import environment
from repsim.measures import Statistics, sweep

if TYPE_CHECKING:
    from torch import nn


def compare_modules(
    models: Sequence[nn.Module] | Mapping[str, nn.Module],
    inputs: Any,
    points: Any,
    *,
    measures: Sequence[str | Measure] = ("cka",),
    names: Sequence[str] | None = None,
    pooling: UnitPooling = "mean",
    channels: Literal["auto", "first", "last"] = "auto",
    batch_size: int = 32,
    run: Run | None = None,
    documents: Sequence[str] = (),
    permutations: int = 100,
    self_pairs: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> SimilarityTable:
    """Compare any `nn.Module`s on the same inputs: images, sounds, graphs, tokens.

    All layers of one model are compared with all of the other. One model alone is compared with
    itself, for the heatmap of its layers. An output that is a tuple counts by its first entry.
    `[batch, units]` is taken as it is, of `[batch, positions, units]` the mean over positions that
    the batch's `attention_mask` leaves in, of `[batch, channels, ...]` the mean over space.

    Args:
        models: The models; in a mapping, by name. Each stays on its device and in its mode.
        inputs: A tensor `[n, ...]`, a mapping of tensors (arguments of `forward`), or an iterable
            of batches: tensors, mappings, or tuples whose first entry is the input.
        points: Paths of modules ("layer3"), the same in all models; a mapping from names to paths
            or modules (`{"block3": model.layer3}`); or such a list or mapping for each model.
        measures: Names of measures.
        names: Names of the models, where they are no mapping.
        pooling: "mean", "last" (position of `[batch, positions, units]`) or "flatten" (every entry
            is a unit).
        channels: Whether units are the "first" axis behind the batch, the "last" one, or "auto".
        batch_size: Inputs per batch.
        run: How a model is run on a batch, where it is not `model(batch)`.
        documents: Group of each input; groups are then the unit of nulls and intervals.
        permutations: Shuffles of the null; 0 for no null and no intervals.
        self_pairs: Also each model with itself.
        seed: Seed of shuffles and groups.
        device: Where measures are computed; models stay where they are.

    Returns:
        The table, with layers numbered in the order of `points` and named in
        `info["layer_names"]`; `.plot` draws it, `.to_report(folder)` writes it up.

    Raises:
        UsageError: No models or inputs, two models of one name, a path that is not there.
        InputError: A module that is not called or is called twice, NaN, too few inputs.

    Example:
        >>> import torch
        >>> def net(seed):
        ...     torch.manual_seed(seed)
        ...     return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(),
        ...                                torch.nn.Linear(16, 4))
        >>> table = compare_modules([net(0), net(1)], torch.randn(60, 6), ["0", "1", "2"],
        ...                         names=["a", "b"], permutations=0)
        >>> table.grid("a", "b", measure="cka").values.shape
        (3, 3)
    """
    if not isinstance(models, Mapping):
        if names is not None and len(names) != len(models):
            raise UsageError(f"{len(names)} names for {len(models)} models")
        labels = list(names) if names is not None else _numbered(models)
        if len(set(labels)) < len(labels):
            raise UsageError("two models have one name", hint="names=['before', 'after']")
        models = dict(zip(labels, models, strict=True))
    sides = read_modules(
        models, inputs, points, pooling=pooling, channels=channels, batch_size=batch_size, run=run,
        documents=documents,
    )  # fmt: skip
    statistics = Statistics(permutations=permutations, covariates=(), seed=seed)
    if not permutations:
        statistics = dataclasses.replace(Statistics.off(), seed=seed)
    table = sweep(
        sides, measures, pairings=("same text",), layers="all", point="", statistics=statistics,
        self_pairs=self_pairs or len(sides) == 1, device=device,
    )  # fmt: skip
    info = {
        **table.info,
        "layer_names": {side.model.name: side.info["layer_names"] for side in sides},
        "modules": {side.model.name: side.info for side in sides},
        "environment": environment(),
    }
    return SimilarityTable(table.to_arrow(), info)


def _numbered(models: Sequence[nn.Module]) -> list[str]:
    """Classes of the models, numbered where there are several of one."""
    kinds = [type(model).__name__ for model in models]
    return [
        f"{kind} ({place})" if kinds.count(kind) > 1 else kind
        for place, kind in enumerate(kinds, start=1)
    ]
