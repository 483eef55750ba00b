"""AdamW and batched Muon against definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repsim.core.errors import UsageError
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model, hf_config
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.optimizer import Muon, build_optimizer, orthogonalised, parameter_groups

SHAPE = ArchitectureConfig(hidden=16, layers=2, heads=2, context=8).resolved()


def gradients(parameter: nn.Parameter, seed: int) -> torch.Tensor:
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))


def test_its_adamw_part_is_adamw() -> None:
    ours, theirs = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6}
    mine = Muon([], [ours], [], weight_decay=0.3, **settings)
    reference = torch.optim.AdamW([theirs], weight_decay=0.3, **settings)
    for step in range(5):
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            parameter.grad = gradients(parameter, step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 6), (5, 5)])
def test_a_stack_is_orthogonalised_as_each_matrix_alone(rows: int, columns: int) -> None:
    stack = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
    together = orthogonalised(stack)
    alone = torch.stack([orthogonalised(matrix[None])[0] for matrix in stack])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    u, _, v = torch.linalg.svd(stack, full_matrices=False)
    agreement = torch.linalg.svdvals(together)
    assert agreement.min() > 0.4
    assert agreement.max() < 1.3
    # The singular vectors stay: U^T X V is diagonal.
    rotated = u.transpose(1, 2) @ together @ v.transpose(1, 2)
    assert (rotated - torch.diag_embed(rotated.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3


def test_muon_follows_its_definition_over_steps() -> None:
    parameter = nn.Parameter(torch.eye(4, 3))
    optimizer = Muon([parameter], [], [], lr=0.1, weight_decay=0.5, momentum=0.9)
    expected, momentum = torch.eye(4, 3), torch.zeros(4, 3)
    for step in range(3):
        gradient = gradients(parameter, step)
        parameter.grad = gradient.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        nesterov = 0.1 * gradient + 0.9 * momentum
        update = orthogonalised(nesterov[None])[0]
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 4**0.5 * update
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)


def test_groups_hold_every_parameter_once_and_vectors_are_not_decayed() -> None:
    model = build_model(hf_config(SHAPE, 300), 0)
    hidden, tables, vectors = parameter_groups(model)
    everything = [id(p) for p in model.parameters()]
    assert sorted(id(p) for p in [*hidden, *tables, *vectors]) == sorted(everything)
    assert len(tables) == 1
    for kind in ("adamw", "muon"):
        training = TrainingConfig(steps=1, optimizer=kind, weight_decay=0.2)  # type: ignore[arg-type]
        for group in build_optimizer(model, training).param_groups:
            decayed = all(p.ndim == 2 for p in group["params"])
            assert group["weight_decay"] == (0.2 if decayed else 0.0)


def test_muon_over_sharded_matrices_is_refused() -> None:
    model = build_model(hf_config(SHAPE, 300), 0)
    for parameter in model.parameters():
        parameter.device_mesh = object()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="cannot train sharded parameters"):
        build_optimizer(model, TrainingConfig(steps=1, optimizer="muon"))
