"""One process or many: where this process stands, and how tensors are spread and gathered."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import nn

from repsim.core.errors import ResourceError, UsageError

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

    def parallelised(self, module: nn.Module) -> nn.Module:
        """The module as the processes run it together (FSDP shards it in place)."""
        if self.size == 1:
            return module
        if self.parallel == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for block in _blocks(module):
                fully_shard(block)
            fully_shard(module)
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)

    @contextlib.contextmanager
    def gradient_sync(self, module: Any, *, last: bool) -> Iterator[None]:
        """Exchange gradients only in the last part of an accumulated batch."""
        if self.size == 1:
            yield
        elif self.parallel == "fsdp":
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


@contextlib.contextmanager
def world(device: str | None = None, parallel: Parallel = "ddp") -> Iterator[World]:
    """Join the processes that torchrun started, or stand alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    joined = False
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
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


def _spread(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor laid out as `like` is."""
    whole = whole.to(device=like.device, dtype=like.dtype)
    if not hasattr(like, "device_mesh"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements)  # type: ignore[attr-defined]


def full_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name, whole, on the CPU; tied ones once. All processes must call it."""
    return {name: _whole(p.detach()).cpu().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def load_full_state(
    model: nn.Module, weights: Mapping[str, torch.Tensor], *, trained_only: bool = False
) -> None:
    """Copy whole parameters into a model, sharded or not."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad or not trained_only}
    if parameters.keys() != weights.keys():
        name = sorted(parameters.keys() ^ weights.keys())[0]
        raise UsageError(f"these weights are of another architecture: '{name}' is only in one")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise UsageError(
                f"these weights are of another architecture: '{name}' is "
                f"{list(weights[name].shape)}, not {list(parameter.shape)}"
            )
        parameter.copy_(_spread(weights[name], parameter))


def full_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Optimizer state as `parameter/key`, whole, on the CPU. All processes must call it."""
    state = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}/{key}"] = _whole(value.detach()).cpu().clone()
    return state


def load_full_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `full_optimizer_state` gave."""
    optimizer.state.clear()
    # Fused AdamW reads its step counters on the device; every other counter stays on the CPU.
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for name, parameter in model.named_parameters():
        own: dict[str, Any] = {}
        for full_name, value in state.items():
            owner, _, key = full_name.rpartition("/")
            if owner == name:
                own[key] = _laid_out(value, parameter, counter_on_device=fused)
        if own:
            optimizer.state[cast("torch.Tensor", parameter)] = own


def _laid_out(
    value: torch.Tensor, parameter: torch.Tensor, *, counter_on_device: bool
) -> torch.Tensor:
    """A piece of state where the optimizer expects it: as its parameter, or a scalar counter."""
    if value.shape == parameter.shape:
        return _spread(value, parameter.detach()).clone()
    return value.to(parameter.device).clone() if counter_on_device else value.clone()
