"""Any `nn.Module` read at modules that the user names, on inputs of any kind.

All models read each batch before the next one is drawn: a loader may shuffle, and is run once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core import Activations, InputError, UsageError
from repsim.core.errors import unknown_name
from repsim.models.hooks import evaluating
from repsim.models.identity import place_of, weights_in_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

#: How an output `[batch, ...]` becomes a row for each input.
UnitPooling = Literal["mean", "last", "flatten"]
Run = Callable[["nn.Module", Any], Any]


def read_modules(
    models: Mapping[str, nn.Module],
    inputs: Any,
    points: Any,
    *,
    pooling: UnitPooling = "mean",
    channels: Literal["auto", "first", "last"] = "auto",
    batch_size: int = 32,
    run: Run | None = None,
    names: Sequence[str] | None = None,
    documents: Sequence[str] = (),
) -> list[Activations]:
    """Activations of modules that the user names, one result per model; see `compare_modules`."""
    if pooling not in ("mean", "last", "flatten"):
        raise unknown_name("pooling of units", pooling, ["mean", "last", "flatten"])
    if not models:
        raise UsageError("there are no models to read")
    readers = [
        _Reader(name, model, _paths(name, models, points), pooling, channels, run or _run)
        for name, model in models.items()
    ]
    sizes: list[int] = []
    with contextlib.ExitStack() as stack:
        for reader in readers:
            stack.enter_context(reader.hooked())
        for batch in _batches(inputs, batch_size):
            sizes.append(_size(batch))
            for reader in readers:
                reader.read(batch, sizes[-1])
    if not sizes:
        raise UsageError("there are no inputs", hint="an iterable that was gone through is empty")
    return [reader.activations(names, documents) for reader in readers]


@dataclasses.dataclass
class _Reader:
    """One model with its hooks, and the rows that it gave so far."""

    name: str
    model: nn.Module
    paths: Mapping[str, str]
    pooling: UnitPooling
    channels: str
    run: Run
    rows: dict[str, list[torch.Tensor]] = dataclasses.field(default_factory=dict)
    seen: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on the named modules; all gone afterwards."""
        with contextlib.ExitStack() as stack:
            for label, path in self.paths.items():
                module = self.model.get_submodule(path)
                stack.callback(module.register_forward_hook(self._taker(label)).remove)
            yield

    def _taker(self, label: str) -> Callable[..., None]:
        def take(module: nn.Module, args: Any, output: Any) -> None:
            if label in self.seen:
                raise InputError(
                    f"module '{self.paths[label]}' of '{self.name}' runs more than once per batch",
                    hint="name a module that runs once, as the block around it",
                )
            value = output[0] if isinstance(output, tuple | list) else output
            if isinstance(value, Mapping):  # what transformers gives holds its state first
                value = next(iter(value.values()))
            if not hasattr(value, "ndim"):
                raise InputError(
                    f"module '{self.paths[label]}' of '{self.name}' gives {type(value).__name__}, "
                    "no tensor",
                    hint="name a module inside it",
                )
            self.seen[label] = value

        return take

    def read(self, batch: Any, size: int) -> None:
        """Run one batch and keep a row for each input."""
        import torch

        here = _to(batch, place_of(self.model))
        self.seen.clear()
        with evaluating(self.model), torch.inference_mode():
            self.run(self.model, here)
        mask = here.get("attention_mask") if isinstance(here, Mapping) else None
        for label, path in self.paths.items():
            if label not in self.seen:
                raise InputError(f"module '{path}' of '{self.name}' is not called for these inputs")
            value = self.seen[label]
            if value.ndim < 2 or value.shape[0] != size:
                raise InputError(
                    f"module '{path}' of '{self.name}' gives {list(value.shape)} for a batch of "
                    f"{size}, where [batch, ...] is needed",
                    hint="name a module whose output has the batch first",
                )
            units = pool_units(value, self.pooling, channels=self.channels, mask=mask)
            self.rows.setdefault(label, []).append(units.float().cpu())

    def activations(self, names: Sequence[str] | None, documents: Sequence[str]) -> Activations:
        """All rows, with what they were read from."""
        import torch

        layers = [torch.cat(self.rows[label]).numpy() for label in self.paths]
        for label, array in zip(self.paths, layers, strict=True):
            if not np.isfinite(array).all():
                raise InputError(f"'{self.name}' gives NaN or infinity at '{label}'")
        found = Activations.from_arrays(self.name, layers, names=names, documents=documents)
        weights = weights_in_memory(self.model)
        return dataclasses.replace(
            found,
            model=dataclasses.replace(
                found.model, weights_hash=weights, architecture=type(self.model).__name__,
                parameters=sum(p.numel() for p in self.model.parameters()),
                layers=len(layers), width=max(array.shape[1] for array in layers),
            ),
            info={"layer_names": list(self.paths), "modules": dict(self.paths),
                  "pooling": self.pooling, "channels": self.channels},
        )  # fmt: skip


def pool_units(
    value: torch.Tensor,
    pooling: UnitPooling = "mean",
    *,
    channels: str = "auto",
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rows `[batch, units]` of an output `[batch, ...]`; `mask` is that of `[batch, positions]`."""
    if value.ndim == 2:
        return value
    if pooling == "flatten":
        return value.flatten(1)
    first = channels == "first" or (channels == "auto" and value.ndim > 3)
    rows = value.flatten(2).transpose(1, 2) if first else value.flatten(1, -2)
    masked = mask is not None and value.ndim == 3 and tuple(mask.shape) == tuple(rows.shape[:2])
    if pooling == "last":
        if value.ndim != 3 or first:
            raise UsageError(
                f"an output of shape {list(value.shape)} has no last position",
                hint="pooling='mean'",
            )
        if not masked:
            return rows[:, -1]
        assert mask is not None
        places = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return rows[range(len(rows)), places]
    if not masked:
        return rows.float().mean(dim=1)
    assert mask is not None
    counts = mask.to(rows.device, rows.dtype).unsqueeze(-1)
    return (rows * counts).sum(1).float() / counts.sum(1).float().clamp(min=1)


def _run(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    else:
        model(batch[0] if isinstance(batch, tuple | list) else batch)


def _batches(inputs: Any, batch_size: int) -> Iterator[Any]:
    """Batches of whatever holds the inputs."""
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}", hint="1 or more")
    if isinstance(inputs, Mapping):
        lengths = {name: len(value) for name, value in inputs.items()}
        if len(set(lengths.values())) != 1:
            raise UsageError(f"the inputs have different lengths: {lengths}")
        for start in range(0, next(iter(lengths.values())), batch_size):
            yield {name: value[start : start + batch_size] for name, value in inputs.items()}
    elif hasattr(inputs, "shape"):
        for start in range(0, len(inputs), batch_size):
            yield inputs[start : start + batch_size]
    elif isinstance(inputs, Iterable) and not isinstance(inputs, str):
        yield from inputs
    else:
        raise UsageError(
            f"{type(inputs).__name__} is no input", hint="a tensor, or an iterable of batches"
        )


def _size(batch: Any) -> int:
    """Inputs in a batch."""
    value = next(iter(batch.values())) if isinstance(batch, Mapping) else batch
    value = value[0] if isinstance(value, tuple | list) else value
    if not getattr(value, "ndim", 0):
        raise UsageError(
            f"a batch is {type(batch).__name__}, which holds no tensor",
            hint="tensors, mappings of tensors, or tuples whose first entry is one",
        )
    return int(value.shape[0])


def _to(batch: Any, device: torch.device) -> Any:
    import torch

    if isinstance(batch, Mapping):
        return {name: _to(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_to(value, device) for value in batch)
    if isinstance(batch, np.ndarray):
        batch = torch.from_numpy(batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def _paths(name: str, models: Mapping[str, nn.Module], points: Any) -> dict[str, str]:
    """Name -> path of the modules of one model."""
    if isinstance(points, Mapping) and points and set(points) == set(models):
        points = points[name]
    if isinstance(points, str) or not points:
        raise UsageError("points are a list of paths of modules", hint="points=['layer3']")
    named = points if isinstance(points, Mapping) else {str(path): path for path in points}
    found = {}
    for label, point in named.items():
        path = point if isinstance(point, str) else _path_of(point, models)
        try:
            models[name].get_submodule(path)
        except AttributeError:
            known = [known for known, _ in models[name].named_modules() if known]
            raise unknown_name(f"module of '{name}'", path, known) from None
        found[str(label)] = path
    return found


def _path_of(module: Any, models: Mapping[str, nn.Module]) -> str:
    """Path of a module inside the model that it is of; all models are read at that path."""
    for model in models.values():
        for path, own in model.named_modules():
            if own is module:
                return path
    raise UsageError(
        f"{type(module).__name__} is no module of these models", hint="{'block3': model.layer3}"
    )
