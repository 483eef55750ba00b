"""Optimizers: fused AdamW, and Muon with matrices of one shape orthogonalised together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from torch import nn
from torch.optim.adamw import adamw

from repsim.core.errors import UsageError
from repsim.pretraining.config_training import TrainingConfig

#: Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that a configuration names, over all parameters of a model."""
    hidden, tables, vectors = parameter_groups(model)
    adam: dict[str, Any] = {
        "lr": training.learning_rate,
        "betas": (training.beta1, training.beta2),
        "eps": training.epsilon,
    }
    decay = training.weight_decay
    if training.optimizer == "muon":
        if any(hasattr(parameter, "device_mesh") for parameter in hidden):
            raise UsageError(
                "Muon needs whole matrices and cannot train sharded parameters",
                hint="train with --parallel ddp, or with optimizer: adamw",
            )
        return Muon(hidden, tables, vectors, weight_decay=decay, **adam)
    groups = [
        {"params": [*hidden, *tables], "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], fused=True, **adam)


def parameter_groups(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Matrices inside the blocks, embedding tables (and an untied output matrix), vectors."""
    hidden: list[nn.Parameter] = []
    tables: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif ".layers." in name or ".h." in name:
            hidden.append(parameter)
        else:
            tables.append(parameter)
    return hidden, tables, vectors


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the rest, in one optimizer."""

    def __init__(
        self,
        hidden: Iterable[nn.Parameter],
        tables: Iterable[nn.Parameter],
        vectors: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum}
        groups = [
            {"params": list(hidden), "weight_decay": weight_decay, "rule": "muon"},
            {"params": list(tables), "weight_decay": weight_decay, "rule": "adamw"},
            {"params": list(vectors), "weight_decay": 0.0, "rule": "adamw"},
        ]
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            with_gradient: list[torch.Tensor] = [p for p in group["params"] if p.grad is not None]
            if group["rule"] == "muon":
                for stack in _by_shape(with_gradient):
                    self._muon(stack, group)
            elif with_gradient:
                self._adamw(with_gradient, group)

    def _muon(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        """One stack of equal shapes."""
        for parameter in parameters:
            self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1.0 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonalised(torch.stack(list(nesterov)))
        rate = group["lr"] * 0.2 * max(updates.shape[-2:]) ** 0.5
        torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-rate)

    def _adamw(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        """AdamW (Loshchilov and Hutter 2019), all parameters of a group at once."""
        for parameter in parameters:
            if "exp_avg" not in self.state[parameter]:
                self.state[parameter] |= {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        means, squares = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_sq"))
        adamw(
            parameters, [p.grad for p in parameters if p.grad is not None], means, squares, [],
            [s["step"] for s in states], foreach=True, amsgrad=False, maximize=False, beta1=beta1,
            beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
        )  # fmt: skip


def _by_shape(parameters: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    stacks: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for parameter in parameters:
        stacks.setdefault(tuple(parameter.shape), []).append(parameter)
    return list(stacks.values())


def orthogonalised(stack: torch.Tensor) -> torch.Tensor:
    """Push the singular values of each matrix towards 1 by quintic Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    work = stack.bfloat16() if stack.is_cuda else stack.float()
    tall = work.shape[-2] > work.shape[-1]
    if tall:
        work = rearrange(work, "k rows columns -> k columns rows")
    work = work / (torch.linalg.matrix_norm(work, keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = work @ rearrange(work, "k i j -> k j i")
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        work = torch.baddbmm(work, polynomial, work, beta=a)
    if tall:
        work = rearrange(work, "k columns rows -> k rows columns")
    return work.to(stack.dtype)
