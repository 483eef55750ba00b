"""Merging tensor by tensor: what is done with a plan, on disk or in memory.

Inputs are read when they are needed and the result is passed on at once, so that a few tensors are
in memory however large the models. Methods that treat every entry by itself get a large tensor a
few rows at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repsim.core.errors import IncompatibleModelsError, ResourceError, UsageError
from repsim.merging.base import MergeMethod, TensorContext, is_finite
from repsim.merging.checkpoint import TensorSource, torch_type
from repsim.merging.methods.selection import SAMPLE, Selected, check_density
from repsim.merging.plan import Input, TensorPlan, out_of_range
from repsim.merging.thresholds import (
    common_density,
    drop_surplus,
    model_threshold,
    tensor_cut,
)

if TYPE_CHECKING:
    import torch

    from repsim.merging.base import Gram

#: Entries of a tensor that are merged at a time where rows can be taken apart.
CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that is needed to merge any one tensor of a plan.

    Attributes:
        method: The method.
        sources: Models, in the numbering of the plan.
        precision: "float32" or "float64".
        seed: Seed of methods that draw.
        device: Where tensors are merged.
        statistics: Per model, statistics by tensor for data-aware methods.
        thresholds: Per model, magnitude below which whole-model TIES trims; None for a model that
            is not merged.
    """

    method: MergeMethod
    sources: Sequence[TensorSource]
    precision: str = "float32"
    seed: int = 0
    device: str = "cpu"
    statistics: Mapping[int, Mapping[str, Gram | torch.Tensor]] = dataclasses.field(
        default_factory=dict
    )
    thresholds: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def merge(self, plan: TensorPlan) -> Iterator[tuple[int, torch.Tensor, TensorContext]]:
        """Merge one tensor.

        Yields:
            First row, those rows in the type in which they are stored, on the CPU, and what the
            method noted. Whole tensors come at once, with row 0.

        Raises:
            InputError: A tensor holds NaN or infinity, or what is merged leaves its type's range.
            IncompatibleModelsError: A buffer that must be the same in all models is not.
        """
        if plan.copied:
            yield 0, self._same(plan), TensorContext(name=plan.name)
            return
        cuts = self._cuts(plan)
        values = {**plan.parameters, "scope": "model"} if cuts else plan.parameters
        kept = [0] * len(plan.inputs)
        for rows in self._parts(plan, apart=cuts is not None):
            context = TensorContext(
                name=plan.name,
                kind=plan.kind,
                models=[self.sources[i.source].name for i in plan.all_inputs],
                seed=self.seed,
                statistics=self._statistics(plan),
                thresholds=[cut.value for cut in cuts] if cuts else None,
            )
            tensors = [self._read(item, rows) for item in plan.inputs]
            base = self._read(plan.base, rows) if plan.base else None
            for i, cut in enumerate(cuts or ()):
                if cut.surplus and base is not None:
                    tensors[i], kept[i] = drop_surplus(
                        tensors[i], base, cut, kept[i], self._precision
                    )
            merged = self.method(tensors, base=base, context=context, **values)
            stored = merged.to(torch_type(plan.header.dtype)).cpu()
            if not is_finite(stored):
                raise out_of_range(plan)
            yield (rows.start if rows else 0), stored, context

    def whole(self, plan: TensorPlan) -> tuple[torch.Tensor, TensorContext]:
        """Merge one tensor and hand it over whole.

        Args:
            plan: The tensor.

        Returns:
            The tensor as `merge` gives it, and what the method noted about all its parts.

        Raises:
            InputError: As `merge`.
            IncompatibleModelsError: As `merge`.

        Example:
            >>> import torch
            >>> from repsim.merging.checkpoint import StateDict
            >>> from repsim.merging.plan import plan_tensors
            >>> from repsim.merging.recipe import find_method, read_recipe
            >>> recipe = read_recipe({"method": "linear", "models": ["a", "b"]})
            >>> states = {"a": {"norm": torch.zeros(2)}, "b": {"norm": torch.ones(2)}}
            >>> sources = {name: StateDict(name, state) for name, state in states.items()}
            >>> method = find_method("linear")
            >>> plan, = plan_tensors(recipe, method, sources, states)
            >>> Job(method, list(sources.values())).whole(plan)[0].tolist()
            [0.5, 0.5]
        """
        import torch

        parts, every = [], TensorContext(name=plan.name)
        for _, part, context in self.merge(plan):
            parts.append(part)
            every.values |= context.values
            for note in context.notes:
                every.note(note)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), every

    def _read(self, item: Input, rows: slice | None) -> torch.Tensor:
        import torch

        found = self.sources[item.source].read(item.tensor, rows).to(self.device)
        if self.precision == "float64":
            return found.to(torch.float64)
        return found.to(torch.float32) if found.dtype == torch.float64 else found

    @property
    def _precision(self) -> torch.dtype:
        """The type in which differences are taken."""
        import torch

        return torch.float64 if self.precision == "float64" else torch.float32

    def _cuts(self, plan: TensorPlan) -> list[Selected] | None:
        """Per model, the least magnitude that TIES keeps; None if the method has to find it.

        With it, trimming concerns every entry by itself, so that the tensor can be taken apart.
        """
        if self.thresholds:
            # The whole-model trim keeps all entries at the cut, as the paper does.
            return [Selected(self.thresholds[item.source], 0, 0) for item in plan.inputs]
        own = plan.parameters
        entries = math.prod(plan.header.shape)
        trims = own.get("scope") == "tensor" and own.get("rescale", "none") == "none"
        if not trims or entries <= CHUNK or self.device != "cpu":
            return None
        assert plan.base is not None
        found = []
        for place, density in enumerate(own["density"]):
            step = max(1, entries // SAMPLE)
            pair = [
                self._read(item, None).flatten()[::step].to(self._precision)
                for item in (plan.inputs[place], plan.base)
            ]
            cut = tensor_cut(
                self.deltas([plan], place), pair[0] - pair[1], entries,
                check_density(density, plan.name),
            )  # fmt: skip
            if cut is None:
                return None
            found.append(cut)
        return found

    def deltas(self, plans: Sequence[TensorPlan], place: int) -> Iterator[torch.Tensor]:
        """Differences of one model to the base, a few rows at a time.

        Args:
            plans: Tensors.
            place: Which of their inputs.
        """
        for plan in plans:
            assert plan.base is not None
            shape = plan.header.shape
            for rows in chunks(shape) if shape else [None]:
                pair = [self._read(item, rows) for item in (plan.inputs[place], plan.base)]
                yield pair[0].to(self._precision) - pair[1].to(self._precision)

    def _parts(self, plan: TensorPlan, *, apart: bool) -> Iterator[slice | None]:
        """Rows that are merged together; None for the whole tensor."""
        shape = plan.header.shape
        apart = apart or self.method.elementwise
        if not apart or not shape or math.prod(shape) <= CHUNK:
            yield None
            return
        yield from chunks(shape)

    def _statistics(self, plan: TensorPlan) -> list[Gram | torch.Tensor | None] | None:
        if not self.statistics:
            return None
        return [self.statistics.get(i.source, {}).get(i.tensor) for i in plan.inputs]

    def _same(self, plan: TensorPlan) -> torch.Tensor:
        """A buffer that is no weight: taken as it is, if all models have the same."""
        import torch

        found = [self.sources[i.source].read(i.tensor) for i in plan.all_inputs]
        for tensor, item in zip(found[1:], plan.all_inputs[1:], strict=True):
            if not torch.equal(found[0], tensor):
                raise IncompatibleModelsError(
                    f"tensor '{plan.name}' is no weight and differs between "
                    f"'{self.sources[plan.inputs[0].source].name}' and "
                    f"'{self.sources[item.source].name}'",
                    hint="numbers that are not weights cannot be merged",
                )
        return found[0].clone()


def find_thresholds(job: Job, plans: Sequence[TensorPlan]) -> dict[int, float]:
    """The whole-model trim of each model, if the plans ask for one.

    Args:
        job: Method and models.
        plans: All tensors; each is counted once, a head that doubles its embedding is not there.

    Returns:
        Number of a model -> magnitude from which on entries are kept; empty if tensors are trimmed
        by themselves.

    Raises:
        UsageError: The density of a model differs between tensors, or only some tensors are to be
            trimmed by the whole model.

    Example:
        >>> import torch
        >>> from repsim.merging.checkpoint import StateDict
        >>> from repsim.merging.plan import plan_tensors
        >>> from repsim.merging.recipe import find_method, read_recipe
        >>> recipe = read_recipe({"method": "ties", "models": ["a"], "base_model": "base",
        ...                       "parameters": {"scope": "model", "density": 0.5}})
        >>> states = {"a": torch.tensor([1.0, -4.0, 3.0, 2.0]), "base": torch.zeros(4)}
        >>> sources = {name: StateDict(name, {"norm": state}) for name, state in states.items()}
        >>> method, names = find_method("ties"), dict.fromkeys(states, ["norm"])
        >>> find_thresholds(Job(method, list(sources.values())),
        ...                 plan_tensors(recipe, method, sources, names))
        {0: 3.0}
    """
    weights = [plan for plan in plans if not plan.copied]
    scopes = {plan.parameters.get("scope") for plan in weights}
    if "model" not in scopes:
        return {}
    if len(scopes) > 1:
        raise UsageError("scope 'model' holds for all tensors or for none")
    entries = sum(math.prod(plan.header.shape) for plan in weights)
    found = {}
    for place, item in enumerate(weights[0].inputs):
        name = job.sources[item.source].name
        density = common_density([plan.parameters["density"][place] for plan in weights], name)
        stream = functools.partial(job.deltas, weights, place)
        found[item.source] = model_threshold(stream, entries, density)
    return found


def chunks(shape: Sequence[int]) -> Iterator[slice]:
    """Ranges of rows of at most `CHUNK` entries (or one row).

    Example:
        >>> [(part.start, part.stop) for part in chunks((3, CHUNK // 2))]
        [(0, 2), (2, 3)]
    """
    step = max(1, CHUNK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def choose_device(device: str | None) -> str:
    """Where to merge: what was asked for, else a GPU if there is one.

    Raises:
        UsageError: Not the name of a device.
        ResourceError: It is not there.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
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
