"""One step: its loss, its accumulation, and the engine that runs share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repsim.core.errors import ResourceError, UsageError
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.attention import stay_causal
from repsim.pretraining.build import build_model, hf_config
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import (
    World,
    full_optimizer_state,
    full_state,
    load_full_optimizer_state,
    load_full_state,
)
from repsim.pretraining.engine import build_engine
from repsim.pretraining.step import Engine, NextTokenLoss

SHAPE = ArchitectureConfig(hidden=16, layers=2, heads=2, context=8).resolved()
ALONE = World(0, 1, torch.device("cpu"))
TRAINING = TrainingConfig(steps=4, batch=4, learning_rate=1e-2)


def windows(seed: int = 0, rows: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 300, (rows, 9), generator=generator)


def run(engine: Engine, steps: int = 3) -> list[float]:
    return [engine.step(windows(step), 1e-2)[0].item() for step in range(steps)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_the_models_own(family: str) -> None:
    shape = ArchitectureConfig(family=family, hidden=16, layers=2, heads=2, context=8)  # type: ignore[arg-type]
    model = build_model(hf_config(shape.resolved(), 300), 0)
    batch = windows()
    theirs = model(input_ids=batch, labels=batch).loss if family == "llama" else None
    ours = NextTokenLoss(model)(batch)
    assert ours.shape == (4, 8)
    if theirs is None:  # its positions end where the last target's would begin
        logits = model(input_ids=batch[:, :-1]).logits
        theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.testing.assert_close(ours.mean(), theirs)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_engine_trains_the_next_run_as_a_new_one_would(optimizer: str) -> None:
    training = TRAINING.model_copy(update={"optimizer": optimizer})
    config = hf_config(SHAPE, 300)
    first, second = (full_state(build_model(config, seed)) for seed in (1, 2))
    used, fresh = build_engine(config, training, ALONE), build_engine(config, training, ALONE)
    used.begin(first, training)
    run(used)
    used.begin(second, training)
    fresh.begin(second, training)
    assert run(used) == run(fresh)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_goes_on_to_the_same_bits_from_whole_state(optimizer: str) -> None:
    training = TRAINING.model_copy(update={"optimizer": optimizer})
    config = hf_config(SHAPE, 300)
    engine, other = build_engine(config, training, ALONE), build_engine(config, training, ALONE)
    engine.begin(full_state(build_model(config, 1)), training)
    run(engine)
    weights = full_state(engine.model)
    optimizer_state = full_optimizer_state(engine.model, engine.optimizer)
    expected = run(engine)
    other.begin(weights, training)
    load_full_optimizer_state(other.model, other.optimizer, optimizer_state)
    assert run(other) == expected


def test_accumulated_parts_are_one_batch() -> None:
    config = hf_config(SHAPE, 300)
    weights = full_state(build_model(config, 1))
    losses = []
    for parts in (1, 4):
        training = TRAINING.model_copy(update={"accumulation": parts})
        engine = build_engine(config, training, ALONE)
        engine.begin(weights, training)
        losses.append(run(engine))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_gradient_is_clipped_and_its_norm_reported() -> None:
    config = hf_config(SHAPE, 300)
    training = TRAINING.model_copy(update={"clip": 1e-9, "weight_decay": 0.0})
    engine = build_engine(config, training, ALONE)
    engine.begin(full_state(build_model(config, 1)), training)
    engine.optimizer = torch.optim.SGD(engine.model.parameters(), lr=1.0)
    before = full_state(engine.model)
    _, norm = engine.step(windows(), 1.0)
    after = full_state(engine.model)
    moved = torch.sqrt(sum(((after[k] - before[k]) ** 2).sum() for k in before))
    assert norm > 1e-3
    assert moved <= 1e-8


def test_weights_of_another_shape_are_refused() -> None:
    model = build_model(hf_config(SHAPE, 300), 0)
    weights = full_state(model)
    name = next(iter(weights))
    with pytest.raises(UsageError, match=f"'{name}' is only in one"):
        load_full_state(model, {k: v for k, v in weights.items() if k != name})
    with pytest.raises(UsageError, match=r"is \[3\], not \[384, 16\]"):
        load_full_state(model, weights | {name: torch.zeros(3)})


def test_bfloat16_keeps_full_precision_weights() -> None:
    config = hf_config(SHAPE, 300)
    training = TRAINING.model_copy(update={"precision": "bf16"})
    engine = build_engine(config, training, ALONE)
    engine.begin(full_state(build_model(config, 1)), training)
    exact = build_engine(config, TRAINING, ALONE)
    exact.begin(full_state(build_model(config, 1)), TRAINING)
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}
    low, high = run(engine), run(exact)
    assert low != high
    assert low == pytest.approx(high, rel=2e-2)


def test_devices_that_are_not_there_are_named() -> None:

    from repsim.pretraining.distributed import world

    with pytest.raises(UsageError, match="'abacus' is not a device"), world("abacus"):
        pass
    with pytest.raises(UsageError, match="cpu or cuda, not on 'mps'"), world("mps"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no CUDA device here"), world("cuda"):
            pass
    with pytest.raises(UsageError, match="a batch of 5 cannot be shared by 2 processes"):
        World(0, 2, torch.device("cpu")).share(5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_loss_and_gradient_are_one_graph(family: str) -> None:
    shape = ArchitectureConfig(family=family, hidden=16, layers=2, heads=2, context=8)  # type: ignore[arg-type]
    module = NextTokenLoss(build_model(hf_config(shape.resolved(), 300), 0))
    plain = module(windows()).mean()
    torch._dynamo.reset()
    assert stay_causal(module.model)  # type: ignore[arg-type]
    calls: list[Any] = []

    def look(graph: torch.fx.GraphModule, _: Any) -> Any:
        attention = torch.nn.functional.scaled_dot_product_attention
        calls.extend(node for node in graph.graph.nodes if node.target is attention)
        return graph.forward

    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend=look)
    torch.testing.assert_close(compiled(windows()).mean(), plain)
    assert len(calls) == shape.layers
    for call in calls:  # the flash kernel takes no mask
        assert (call.kwargs["is_causal"], call.kwargs["attn_mask"]) == (True, None)
    other = full_state(build_model(hf_config(shape.resolved(), 300), 1))
    counters = torch._dynamo.utils.counters["stats"]
    graphs = counters["unique_graphs"]
    load_full_state(module.model, other)  # type: ignore[arg-type]
    assert compiled(windows()).mean() != plain
    assert counters["unique_graphs"] == graphs, "exchanging weights compiled again"


def test_depth_scaled_weights_differ_only_where_blocks_write() -> None:
    config = hf_config(SHAPE, 300)
    plain, scaled = (full_state(build_model(config, 1, depth_scaled=x)) for x in (False, True))
    for name, tensor in plain.items():
        written = name.endswith(("o_proj.weight", "down_proj.weight"))
        torch.testing.assert_close(scaled[name], tensor / 2 if written else tensor)
