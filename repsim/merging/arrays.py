"""Merging checkpoints on a CPU without torch: tensors as numpy arrays, part by part.

What the methods of `repsim.merging.methods.on_arrays` are given, and what becomes of their results.
Whether a tensor is merged this way depends on the recipe and the device alone, never on what
happens to be imported, so that the same command writes the same bytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from repsim.merging.base import TensorContext, not_finite
from repsim.merging.checkpoint import FLOATS, Checkpoint, TensorSource
from repsim.merging.methods.on_arrays import ON_ARRAYS
from repsim.merging.plan import TensorPlan, out_of_range

if TYPE_CHECKING:
    from repsim.merging.execute import Job
    from repsim.merging.methods.on_arrays import Array

#: Entries that are merged at a time. What a method holds of them fits the caches of a core, and an
#: array of them is small enough for the allocator to keep: with twice as many, SLERP takes 100,000
#: page faults for half a gigabyte, and up to half again the processor time.
PART = 1 << 15
#: Types in safetensors files -> numpy's; bfloat16 is the upper half of a float32.
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """One tensor of several checkpoints, a `Streamed` one.

    Attributes:
        places: Checkpoint and name of the tensor in it, per model, the base last.
        entries: Number of entries.
        kind: Type that entries are brought to.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> tiny = Checkpoint(write_tiny_model("gpt2", tempfile.mkdtemp() + "/tiny"))
        >>> gain = StoredTensor([(tiny, "ln_f.weight")], 32, np.dtype("float64"))
        >>> [[part.dtype.name, len(part)] for (part,) in gain.parts()], len(gain.sample(8)[0])
        ([['float64', 32]], 4)
    """

    places: Sequence[tuple[Checkpoint, str]]
    entries: int
    kind: Any

    def parts(self) -> Iterator[list[Array]]:
        """Flat parts of all models, in step."""
        stored = self._stored()
        for start in range(0, self.entries, PART):
            yield [_widen(each[start : start + PART], self.kind) for each in stored]

    def sample(self, step: int) -> list[Array]:
        """Every `step`-th entry of all models."""
        return [_widen(each[::step], self.kind) for each in self._stored()]

    def _stored(self) -> list[Array]:
        import numpy as np

        found = []
        for checkpoint, tensor in self.places:
            source, start = checkpoint.bytes_of(tensor)
            kind = _KINDS[checkpoint.headers[tensor].dtype]
            found.append(np.frombuffer(source, dtype=kind, count=self.entries, offset=start))
        return found


def merged_on_arrays(job: Job, plan: TensorPlan) -> bool:
    """Whether a tensor is merged here, rather than with torch.

    Args:
        job: Method and models.
        plan: The tensor.
    """
    return not (job.thresholds or job.statistics or job.device != "cpu") and fits(
        job.method.name, job.sources, plan
    )


def fits(method: str, sources: Sequence[TensorSource], plan: TensorPlan) -> bool:
    """Whether a method, models and values are covered by what there is on arrays.

    Args:
        method: Name of the method.
        sources: Models, in the numbering of the plan.
        plan: The tensor.

    Example:
        >>> from repsim.merging.checkpoint import StateDict
        >>> from repsim.merging.plan import Input, TensorPlan
        >>> from repsim.models.inspect import TensorHeader
        >>> plan = TensorPlan("w", TensorHeader("F32", (2,)), "norm", (Input(0, "w"),),
        ...                   None, {}, copied=False)
        >>> fits("karcher", [], plan), fits("linear", [StateDict("a", {})], plan)  # in memory: no
        (False, False)
    """
    if method not in ON_ARRAYS or plan.copied or not math.prod(plan.header.shape):
        return False
    plain = all(isinstance(sources[item.source], Checkpoint) for item in plan.all_inputs)
    return plain and plan.header.dtype in FLOATS and ON_ARRAYS[method].fits(plan.parameters)


def merge_arrays(job: Job, plan: TensorPlan) -> Iterator[tuple[int, memoryview, TensorContext]]:
    """Merge one tensor.

    Yields:
        First byte, bytes from there on in the type in which they are stored, and what the method
        noted.

    Raises:
        InputError: A tensor holds NaN or infinity, or what is merged leaves its type's range.
    """
    import numpy as np

    places = [(_checkpoint(job.sources[i.source]), i.tensor) for i in plan.all_inputs]
    kind = np.dtype(job.precision)
    tensor = StoredTensor(places, math.prod(plan.header.shape), kind)
    context = TensorContext(plan.name, plan.kind, [c.name for c, _ in places], job.seed)
    start = 0
    with np.errstate(all="ignore"):  # what is not finite is looked for, and is an error
        for merged in ON_ARRAYS[job.method.name].merge(tensor, plan.parameters, context):
            stored, finite = _narrow(merged, plan.header.dtype)
            if not finite:
                _refuse_inputs(tensor, plan.name)
                raise out_of_range(plan)
            data = stored.view(np.uint8).data
            yield start, data, context
            start += len(data)


def _checkpoint(source: TensorSource) -> Checkpoint:
    assert isinstance(source, Checkpoint)
    return source


def _widen(stored: Array, kind: Any) -> Array:
    """Entries of a file in the type of the computation; no copy where they are."""
    import numpy as np

    if stored.dtype == np.uint16:
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(kind, copy=False)


def _narrow(merged: Array, dtype: str) -> tuple[Array, bool]:
    """Entries in the type of a file, rounded once to nearest even; whether all are finite."""
    import numpy as np

    if dtype != "BF16":
        stored = merged.astype(_KINDS[dtype], copy=False)
        return stored, bool(np.isfinite(stored).all())
    bits = merged.astype(np.float32, copy=False).view(np.uint32)
    finite = bool(np.isfinite(merged).all())
    half = np.uint32(16)
    rounded = (bits + (((bits >> half) & np.uint32(1)) + np.uint32(0x7FFF))) >> half
    stored = rounded.astype("<u2")
    exponents = stored & np.uint16(0x7F80)
    return stored, finite and not bool((exponents == np.uint16(0x7F80)).any())


def _refuse_inputs(tensor: StoredTensor, name: str) -> None:
    """Name the model whose tensor holds NaN or infinity, if one does."""
    import numpy as np

    for place, (checkpoint, _) in enumerate(tensor.places):
        bad = sum(int((~np.isfinite(part[place])).sum()) for part in tensor.parts())
        if bad:
            raise not_finite(name, f"model '{checkpoint.name}'", bad)
