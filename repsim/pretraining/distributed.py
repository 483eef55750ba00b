"""One process or many: where this process stands, and how tensors are spread and gathered."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from repsim.core.errors import RepsimError, ResourceError, UsageError

T = TypeVar("T")
#: How long processes wait for the main one, which tokenises all text while they do.
PATIENCE = timedelta(hours=12)

Parallel = Literal["ddp", "fsdp"]


@dataclasses.dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device
    parallel: Parallel = "ddp"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Rows of a global batch that this process takes."""
        if rows % self.size:
            raise UsageError(
                f"a batch of {rows} cannot be shared by {self.size} processes",
                hint="choose a batch that is a multiple of the number of processes",
            )
        part = rows // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    @property
    def shards(self) -> bool:
        """Whether each process holds a part of every parameter."""
        return self.parallel == "fsdp" and self.size > 1

    def parallelised(self, module: nn.Module, *, bf16: bool = False) -> nn.Module:
        """The module as the processes run it together, on the device."""
        if not self.shards:
            module = module.to(self.device)
            if self.size == 1:
                return module
            ids = [self.device.index] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(
                module, device_ids=ids, broadcast_buffers=False
            )
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        how: dict[str, Any] = {"mesh": init_device_mesh(self.device.type, (self.size,))}
        if bf16:  # weights and sums of gradients stay float32
            how["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
        for block in _blocks(module):
            fully_shard(block, **how)
        fully_shard(module, **how)
        module._apply(
            lambda t: torch.empty_like(t, device=self.device) if t.is_meta else t.to(self.device)
        )
        part: Any
        for part in module.modules():  # a tied matrix was allocated once for each of its owners
            if hasattr(part, "tie_weights"):
                part.tie_weights()
        return module

    @contextlib.contextmanager
    def gradient_sync(self, module: Any, *, last: bool) -> Iterator[None]:
        """Exchange gradients only in the last part of an accumulated batch."""
        if self.size == 1:
            yield
        elif self.shards:
            module.set_requires_gradient_sync(last)
            yield
        elif last:
            yield
        else:
            with module.no_sync():
                yield

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over processes of what each holds."""
        if self.size == 1:
            return values
        return self.sum(values) / self.size

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over processes of what each holds."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def from_main(work: Callable[[], T], *, told: Callable[[T], T] = lambda x: x) -> T:
    """What `work` gives on the main process, `told` to the others; its errors rise on all."""
    if not dist.is_initialized():
        return work()
    result: Any = None
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            result = work()
            box[0] = told(result)
        except RepsimError as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return cast("T", box[0] if result is None else result)


@contextlib.contextmanager
def world(device: str | None = None, parallel: Parallel = "ddp") -> Iterator[World]:
    """Join the processes that torchrun started, or stand alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    joined = False
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        joined = True
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        yield World(rank=rank, size=size, device=chosen, parallel=parallel)
    finally:
        if joined:
            dist.destroy_process_group()


def _device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is not a device", hint="cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            f"training runs on cpu or cuda, not on '{name}'",
            hint="use --device cpu (bits per byte are summed in float64, which MPS does not have)",
        )
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ResourceError("there is no CUDA device here", hint="use --device cpu")
        if ":" not in name:
            device = torch.device("cuda", local_rank)
        if device.index >= torch.cuda.device_count():
            raise ResourceError(f"there is no device '{device}' here")
    return device


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks: elements of the longest module list."""
    lists = [list(child) for child in module.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len, default=[])


def clipped_norm(model: nn.Module, clip: float) -> torch.Tensor:
    """Norm of the whole gradient, which is then scaled down to `clip` (0: left as it is)."""
    limit = clip if clip > 0 else float("inf")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=limit)
    return _whole(norm.detach())


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def first_not_finite(model: nn.Module, world: World) -> str:
    """The first parameter that holds a value that is no number, in any process; empty if none."""
    names, bad = [], []
    for name, parameter in model.named_parameters():
        here: Any = parameter.detach()
        here = here.to_local() if hasattr(here, "to_local") else here
        names.append(name)
        bad.append(~torch.isfinite(here).all())
    counts = world.sum(torch.stack(bad).float()).tolist()
    return next((name for name, count in zip(names, counts, strict=True) if count), "")


def full_state(model: nn.Module, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Whole parameters by name on the CPU, tied ones once; all processes call it."""
    return _kept(((name, p) for name, p in model.named_parameters()), keep=keep)


def full_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: bool = True
) -> dict[str, torch.Tensor]:
    """Optimizer state as `parameter/key`; otherwise as `full_state`."""
    states = ((n, optimizer.state.get(p, {})) for n, p in model.named_parameters())
    return _kept(((f"{n}/{key}", v) for n, own in states for key, v in own.items()), keep=keep)


def _kept(named: Iterator[tuple[str, torch.Tensor]], *, keep: bool) -> dict[str, torch.Tensor]:
    kept = {}
    for name, tensor in named:
        whole = _whole(tensor.detach())
        if keep:
            kept[name] = whole.cpu().clone()
    return kept


@torch.no_grad()
def load_full_state(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy whole parameters into a model, sharded or not; only the main process needs them."""
    parameters = dict(model.named_parameters())
    from_main(lambda: _check_same(parameters, weights))
    for name, parameter in parameters.items():
        parameter.copy_(_spread(weights.get(name), parameter))


def _check_same(
    parameters: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights of another shape."""
    if parameters.keys() != weights.keys():
        name = sorted(parameters.keys() ^ weights.keys())[0]
        raise UsageError(f"these weights are of another architecture: '{name}' is only in one")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise UsageError(
                f"these weights are of another architecture: '{name}' is "
                f"{list(weights[name].shape)}, not {list(parameter.shape)}"
            )


def load_full_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `full_optimizer_state` gave to the main process."""
    optimizer.state.clear()
    # Fused AdamW reads its step counters on the device; every other counter stays on the CPU.
    fused = any(group.get("fused") for group in optimizer.param_groups)
    parameters = dict(model.named_parameters())

    def entries() -> list[tuple[str, str, torch.Tensor | None]]:
        """Parameter, key, and of a counter its value."""
        split = [(*full.rpartition("/")[::2], value) for full, value in state.items()]
        return [(o, k, None if v.shape == parameters[o].shape else v) for o, k, v in split]

    for owner, key, counter in from_main(entries):
        parameter = parameters[owner]
        if counter is None:
            value = _spread(state.get(f"{owner}/{key}"), parameter.detach())
        else:
            value = counter.to(parameter.device if fused else "cpu", copy=True)
        optimizer.state[cast("torch.Tensor", parameter)][key] = value


def _spread(whole: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor of the main process in new memory, laid out as `like` is."""
    if whole is None:
        whole = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    whole = whole.to(device=like.device, dtype=like.dtype, copy=True)
    if hasattr(like, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(whole, like.device_mesh, like.placements)  # type: ignore[attr-defined]
    if dist.is_initialized():
        dist.broadcast(whole, src=0)
    return whole
