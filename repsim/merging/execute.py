"""Merging tensor by tensor: the one executor of merges on disk and in memory.

Inputs are read in parts and results passed on at once. On a CPU torch is not imported.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import IncompatibleModelsError, InputError, ResourceError, UsageError
from repsim.merging.arrays import PART, Array, Stream, cast, is_torch, narrow, widen
from repsim.merging.base import EMPTY_NOTE, MergeMethod, TensorContext, WholeModels, not_finite
from repsim.merging.checkpoint import TensorSource, torch_type
from repsim.merging.plan import Input, TensorPlan, out_of_range

if TYPE_CHECKING:
    import torch

    from repsim.merging.base import Gram

#: Entries that a GPU merges at a time.
_GPU_PART = 1 << 24


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that is needed to merge any one tensor of a plan."""

    method: MergeMethod
    sources: Sequence[TensorSource]
    precision: str = "float32"
    seed: int = 0
    device: str = "cpu"
    statistics: Mapping[int, Mapping[str, Gram | torch.Tensor]] = dataclasses.field(
        default_factory=dict
    )
    surveyed: Sequence[float] | None = None

    def merge(self, plan: TensorPlan, context: TensorContext) -> Iterator[tuple[int, memoryview]]:
        """First byte and bytes of parts of a merged tensor; NaN and overflow are errors."""
        if plan.copied:
            yield 0, bytes_of(self._same(plan))
            return
        if math.prod(plan.header.shape) == 0:
            context.note(EMPTY_NOTE)
            return
        stream, start = self.stream(plan), 0
        try:
            with np.errstate(all="ignore"):  # what is not finite is looked for, and is an error
                for merged in self.method.parts(stream, context, plan.parameters):
                    stored, finite = _narrow(merged, plan.header.dtype)
                    if not finite:
                        raise out_of_range(plan)
                    data = bytes_of(stored)
                    yield start, data
                    start += len(data)
        except (ArithmeticError, ValueError, RuntimeError, InputError):
            self._refuse_damaged(stream, plan)
            raise

    def whole(self, plan: TensorPlan) -> tuple[torch.Tensor, TensorContext]:
        """One merged tensor, and what the method noted."""
        import torch

        found = torch.empty(plan.header.shape, dtype=torch_type(plan.header.dtype))
        place = found.reshape(-1).view(torch.uint8).numpy()
        context = self.context(plan)
        for start, data in self.merge(plan, context):
            place[start : start + len(data)] = np.frombuffer(data, np.uint8)
        return found, context

    def context(self, plan: TensorPlan) -> TensorContext:
        """What a method is told of a tensor, and where it leaves its notes."""
        statistics = [self.statistics.get(i.source, {}).get(i.tensor) for i in plan.inputs]
        return TensorContext(
            name=plan.name,
            kind=plan.kind,
            models=[self.sources[i.source].name for i in plan.all_inputs],
            seed=self.seed,
            statistics=statistics if self.statistics else None,
            surveyed=self.surveyed,
        )

    def stream(self, plan: TensorPlan) -> Stream:
        """The tensor of all models."""
        stored = [self.sources[i.source].array(i.tensor) for i in plan.all_inputs]
        on_cpu = self.device == "cpu"
        load = functools.partial(widen if on_cpu else self._send, kind=self.precision)
        size = PART if on_cpu else _GPU_PART
        return Stream(stored, plan.header.shape, plan.base is not None, load, size)

    def _send(self, stored: Any, kind: str) -> torch.Tensor:
        """Stored entries on the device."""
        import torch

        if stored.dtype == np.uint16:
            sent = torch.from_numpy(stored.astype(np.int16)).view(torch.bfloat16).to(self.device)
        else:
            sent = torch.from_numpy(np.array(stored)).to(self.device)
        found: torch.Tensor = cast(sent, kind)
        return found

    def _refuse_damaged(self, stream: Stream, plan: TensorPlan) -> None:
        """Name the model whose tensor holds NaN or infinity, if one does."""
        for item, stored in zip(plan.all_inputs, stream.stored, strict=True):
            starts = range(0, len(stored), PART)
            pieces = (widen(stored[at : at + PART], "float64") for at in starts)
            if bad := sum(int((~np.isfinite(piece)).sum()) for piece in pieces):
                raise not_finite(plan.name, f"model '{self.sources[item.source].name}'", bad)

    def _same(self, plan: TensorPlan) -> Array:
        """A buffer that is no weight: taken as it is, if all models have the same."""

        def read(item: Input) -> Array:
            return self.sources[item.source].array(item.tensor)

        first = read(plan.inputs[0])
        for item in plan.all_inputs[1:]:
            if not np.array_equal(first, read(item)):
                raise IncompatibleModelsError(
                    f"tensor '{plan.name}' is no weight and differs between "
                    f"'{self.sources[plan.inputs[0].source].name}' and "
                    f"'{self.sources[item.source].name}'",
                    hint="numbers that are not weights cannot be merged",
                )
        return first


def _narrow(merged: Array, dtype: str) -> tuple[Any, bool]:
    """As `narrow`; what is on a GPU is rounded there."""
    if not is_torch(merged) or dtype == "BF16":
        return narrow(merged, dtype)
    return narrow(merged.to(torch_type(dtype)), dtype)


def bytes_of(stored: Any) -> memoryview:
    """The bytes of a flat array as a file stores them."""
    data: memoryview = np.ascontiguousarray(stored).view(np.uint8).data
    return data


def after_survey(job: Job, plans: Sequence[TensorPlan]) -> Job:
    """The job with what its method has to know of the whole models first, if that is anything."""
    weights = [plan for plan in plans if not plan.copied and math.prod(plan.header.shape) > 0]
    if job.method.survey is None or not weights:
        return job
    sources = [item.source for item in weights[0].inputs]

    def streams() -> Iterator[Stream]:
        if any([item.source for item in plan.inputs] != sources for plan in weights):
            raise UsageError(
                f"method '{job.method.name}' surveys whole models, and the slices of this recipe "
                "are made of different ones",
                hint="merge the models before their layers are stacked",
            )
        return (job.stream(plan) for plan in weights)

    entries = sum(math.prod(plan.header.shape) for plan in weights)
    names = [job.sources[source].name for source in sources]
    whole = WholeModels(names, [plan.parameters for plan in weights], entries, streams)
    return dataclasses.replace(job, surveyed=job.method.survey(whole))


def choose_device(device: str | None) -> str:
    """Where to merge: what was asked for, else a GPU if there is one."""
    if device == "cpu":
        return device
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device '{device}'", hint="use cpu, cuda or cuda:1") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"device '{device}' is not there", hint="use --device cpu")
    return device
