"""One training step: forward, loss, backward in parts, clipping, learning rate, update."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import World, clipped_norm, load_full_state
from repsim.pretraining.memory import no_room_for_state


class NextTokenLoss(nn.Module):
    """Cross-entropy, in nats, of each next token; `tokens_at_once` bounds the logits held."""

    def __init__(self, model: Any, tokens_at_once: int = 0) -> None:
        super().__init__()
        self.model, self.tokens_at_once = model, tokens_at_once

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Losses `[b, context]` over windows `[b, context + 1]` of token ids."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        if not self.tokens_at_once:
            logits = self.model(input_ids=inputs, use_cache=False).logits
            losses = cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
            )
            return losses.view_as(targets).clone()  # FSDP warns of views
        plain = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        head = plain.get_output_embeddings()

        def of_piece(hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return cross_entropy(head(hidden).float(), wanted, reduction="none")

        hidden = plain.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        pieces = zip(
            hidden.flatten(0, 1).split(self.tokens_at_once),
            targets.flatten().split(self.tokens_at_once),
            strict=True,
        )
        losses = torch.cat([checkpoint(of_piece, *pair, use_reentrant=False) for pair in pieces])
        return losses.view_as(targets).clone()


@dataclasses.dataclass
class Engine:
    """A model, its loss (compiled or not) and its optimizer, for all runs of one shape."""

    model: nn.Module
    losses: Callable[[torch.Tensor], torch.Tensor]
    optimizer: torch.optim.Optimizer
    world: World
    training: TrainingConfig
    amp: bool
    compiled: bool
    accumulation: int = 1

    def step(self, windows: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One update from this process's windows of a batch: loss and gradient norm."""
        parts = windows.chunk(self.accumulation)
        total = torch.zeros((), device=windows.device)
        for number, part in enumerate(parts, start=1):
            # Processes exchange gradients with the last part alone.
            with self.world.gradient_sync(self.losses, last=number == len(parts)):
                with self.autocast():
                    loss = self.losses(part).mean() / (len(windows) / len(part))
                loss.backward()
            total += loss.detach()
        norm = clipped_norm(self.model, self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with no_room_for_state():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 for matrix products where that is the run's precision."""
        if not self.amp:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16)

    def begin(self, weights: Mapping[str, torch.Tensor], training: TrainingConfig) -> None:
        """Start another run: load weights, forget the optimizer's state, take its settings."""
        load_full_state(self.model, weights)
        self.training, self.accumulation = training, training.accumulation
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        for group in self.optimizer.param_groups:
            matrices = any(parameter.ndim >= 2 for parameter in group["params"])
            group["betas"] = (training.beta1, training.beta2)
            group["eps"] = training.epsilon
            group["weight_decay"] = training.weight_decay if matrices else 0.0
        self.model.train()
