"""Models, their initial weights, and the count of operations."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import (
    build_model,
    hf_config,
    padded_vocabulary,
    parameter_count,
    shape_from_scratch,
)
from repsim.pretraining.step import NextTokenLoss

LLAMA = ArchitectureConfig(
    family="llama", hidden=32, layers=2, heads=4, kv_heads=2, context=16
).resolved()
GPT2 = ArchitectureConfig(family="gpt2", hidden=32, layers=2, heads=4, context=16).resolved()


@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_the_seed_alone_decides_initial_weights(shape: ArchitectureConfig) -> None:
    config = hf_config(shape, 300)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (build_model(config, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name in first if first[name].ndim == 2]
    assert not any(torch.equal(first[name], other[name]) for name in matrices)


@pytest.mark.parametrize("shape", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_counted_operations_are_those_that_run(shape: ArchitectureConfig, tied: bool) -> None:
    shape = shape.model_copy(update={"tied": tied})
    model = build_model(hf_config(shape, 300), 0)
    windows = torch.zeros(1, shape.context + 1, dtype=torch.int64)
    plain_kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain_kernel, FlopCounterMode(display=False) as counter:
        NextTokenLoss(model)(windows).mean().backward()
    counted = shape_from_scratch(shape, 300).flops_per_token * shape.context
    # The plain kernel computes the half of the scores that causal attention does not need.
    uncounted = 6 * shape.layers * shape.hidden * shape.context**2
    vectors = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    gap = counter.get_total_flops() - uncounted - counted
    assert abs(gap) <= 6 * vectors * shape.context


def test_parameters_are_known_without_building() -> None:
    for shape in (LLAMA, GPT2):
        built = build_model(hf_config(shape, 300), 0)
        assert shape_from_scratch(shape, 300).parameters == parameter_count(built)
        assert built.config.vocab_size == padded_vocabulary(300) == 384
