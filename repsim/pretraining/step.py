"""One optimizer step, and the engine that many runs of one shape share."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from einops import rearrange
from torch import nn

from repsim.core.errors import ResourceError, UsageError
from repsim.pretraining.adapter import attach
from repsim.pretraining.attention import stay_causal
from repsim.pretraining.build import build_model
from repsim.pretraining.config import TrainingConfig
from repsim.pretraining.distributed import World, clipped_norm, load_full_state
from repsim.pretraining.optimizer import build_optimizer


class NextTokenLoss(nn.Module):
    """Cross-entropy, in nats, of predicting each token of a window from those before it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Losses `[b, context]` over windows `[b, context + 1]` of token ids."""
        logits = self.model(input_ids=windows[:, :-1], use_cache=False).logits
        losses = nn.functional.cross_entropy(
            rearrange(logits, "b t v -> (b t) v").float(),
            rearrange(windows[:, 1:], "b t -> (b t)"),
            reduction="none",
        )
        return rearrange(losses, "(b t) -> b t", b=len(windows))


@dataclasses.dataclass
class Engine:
    """A model, its compiled loss and its optimizer, for all runs of one shape."""

    model: nn.Module
    losses: Callable[[torch.Tensor], torch.Tensor]
    optimizer: torch.optim.Optimizer
    world: World
    training: TrainingConfig
    amp: bool
    compiled: bool

    @classmethod
    def create(cls, config: Any, training: TrainingConfig, world: World) -> Engine:
        """Build for one shape (a `transformers` configuration) and one way of training."""
        on_cuda = world.device.type == "cuda"
        compiled = on_cuda if training.compile == "auto" else bool(training.compile)
        model = build_model(copy.deepcopy(config), None)
        if compiled:
            stay_causal(model)
        if training.lora:
            if world.parallel == "fsdp" and world.size > 1:
                raise UsageError("an adapter cannot be sharded", hint="train with --parallel ddp")
            model = attach(model, training.lora, 0)
        model = model.to(world.device)
        losses: Any = world.parallelised(NextTokenLoss(model))
        if compiled:
            losses = torch.compile(losses, fullgraph=world.size == 1, dynamic=False)
        amp = training.precision == "bf16" or (training.precision == "auto" and on_cuda)
        return cls(
            model=model,
            losses=losses,
            optimizer=build_optimizer(model, training),
            world=world,
            training=training,
            amp=amp,
            compiled=compiled,
        )

    def begin(self, weights: Mapping[str, torch.Tensor], training: TrainingConfig) -> None:
        """Start another run: load weights, forget the optimizer's state, take its settings."""
        load_full_state(self.model, weights)
        self.training = training
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        for group in self.optimizer.param_groups:
            group["betas"] = (training.beta1, training.beta2)
            group["eps"] = training.epsilon
            group["weight_decay"] = training.weight_decay if _decays(group) else 0.0
        self.model.train()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 for matrix products where that is the run's precision."""
        if not self.amp:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16)

    def step(self, windows: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One update from this process's share of a batch."""
        parts = windows.chunk(self.training.accumulation)
        total = torch.zeros((), device=windows.device)
        for i, part in enumerate(parts):
            with self.world.gradient_sync(self.losses, last=i == len(parts) - 1):
                with self.autocast():
                    loss = self.losses(part).mean() / len(parts)
                loss.backward()
            total += loss.detach()
        norm = clipped_norm(self.model, self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm


def _decays(group: Mapping[str, Any]) -> bool:
    """Whether a group holds matrices: gains and biases are not decayed."""
    return any(parameter.ndim >= 2 for parameter in group["params"])


@contextlib.contextmanager
def memory_errors(training: TrainingConfig) -> Iterator[None]:
    """Turn memory that ran out into an error that names the setting which saves some."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)):
            raise
        now, batch = training.accumulation, training.batch
        more = next((n for n in range(now + 1, batch + 1) if batch % n == 0), None)
        raise ResourceError(
            f"an update of {batch} windows in {now} parts does not fit into memory",
            hint=f"set training.accumulation to {more} and run the same command again: it goes on "
            "from the last state, with the same batches"
            if more
            else "each part is one window already: a shorter context, a smaller model, or "
            "precision: bf16",
        ) from error


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep Python's cycle collector from scanning the model in the middle of a run."""
    gc.collect()
    gc.freeze()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def deterministic_kernels(training: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Demand kernels that give the same bits every time. On the CPU all that are used here do."""
    if device.type != "cuda" or training.deterministic is False:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic
    filled = deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = filled
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
