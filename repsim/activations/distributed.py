"""Several processes under torchrun: who does what, and how they agree.

They exchange one flag; results meet in the cache folder, which all of them must see.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime as dt
import os
from collections.abc import Iterator

from repsim.core.errors import ResourceError

#: How long one process waits for the others at the end of a language.
PATIENCE = dt.timedelta(hours=6)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Place of this process among those that work together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process puts results together."""
        return self.rank == 0

    def share(self, chunks: int) -> list[int]:
        """The chunks of this process: chunk c goes to rank c mod size."""
        return list(range(self.rank, chunks, self.size))

    def all(self, value: bool) -> bool:
        """Whether `value` holds in every process. Waits for all of them."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        on_gpu = distributed.get_backend() == "nccl"
        flag = torch.tensor([int(value)], device=f"cuda:{self.local_rank}" if on_gpu else "cpu")
        distributed.all_reduce(flag, op=distributed.ReduceOp.MIN)
        return bool(flag.item())

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """End the block in every process, or fail in every process."""
        try:
            yield
        except Exception:
            self.all(False)
            raise
        if not self.all(True):
            raise ResourceError(f"{what} failed in another process", hint="see its message")


def join() -> Ranks:
    """Find the other processes, if torchrun started this one among several."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    from torch import distributed

    if not distributed.is_initialized():
        try:
            distributed.init_process_group("gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ResourceError(
                f"WORLD_SIZE is {size}, but the processes cannot reach each other: {error}",
                hint="start them with: torchrun --nproc-per-node N -m repsim ...",
            ) from error
        # gloo's threads must be joined before the interpreter goes, or it now and then aborts.
        atexit.register(_leave)
    return Ranks(
        rank=distributed.get_rank(),
        size=distributed.get_world_size(),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
