"""Slopes of the loss at the parents: as exact as double differentiation, and what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from repsim.core.errors import UsageError
from repsim.mergeability.features.catalogue import FEATURES, measured_names
from repsim.mergeability.features.gradients import (
    Batch,
    Tensors,
    gradient_features,
    loss_and_gradient,
    slope,
    training_batch,
)
from repsim.mergeability.features.opened import OpenedParents
from repsim.testing.tiny_models import tiny_model, write_tiny_model

ENGLISH = "eng_Latn"


def batch_of(rows: int = 3, length: int = 20) -> Batch:
    tokens = torch.randint(4, 260, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    scored = torch.ones(rows, length, dtype=torch.bool)
    scored[-1, length // 2 :] = False
    return Batch(tokens, scored, size=100.0, floor=500.0)


def weights_of(model: torch.nn.Module) -> Tensors:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def step_of(weights: Tensors, scale: float) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    return {
        name: scale * torch.randn(tensor.shape, generator=generator)
        for name, tensor in weights.items()
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2", "llama+tied"])
def test_both_derivatives_are_those_of_double_differentiation(kind: str) -> None:
    model, batch = tiny_model(kind, head=True), batch_of()
    weights = weights_of(model)
    step = step_of(weights, 0.02)
    found = slope(model, weights, step, batch)

    def loss(t: torch.Tensor) -> torch.Tensor:
        moved = {name: tensor + t * step[name] for name, tensor in weights.items()}
        inputs = {"input_ids": batch.tokens[:, :-1]}
        logits = torch.func.functional_call(model, moved, (), inputs).logits
        targets = batch.tokens[:, 1:][batch.scored]
        nats = torch.nn.functional.cross_entropy(logits[batch.scored], targets, reduction="sum")
        return nats / math.log(2)

    with sdpa_kernel(SDPBackend.MATH):
        at = torch.zeros((), requires_grad=True)
        value = loss(at)
        (first,) = torch.autograd.grad(value, at, create_graph=True)
        (second,) = torch.autograd.grad(first, at)
    assert found.bits == pytest.approx(value.item(), rel=1e-5)
    assert found.first == pytest.approx(first.item(), rel=1e-3, abs=1e-3)
    assert found.second == pytest.approx(second.item(), rel=5e-3)


def test_the_model_is_left_as_it_was() -> None:
    model, batch = tiny_model("llama", head=True).requires_grad_(False), batch_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss_and_gradient(model, step_of(weights_of(model), 1.0), batch)
    slope(model, weights_of(model), step_of(weights_of(model), 0.1), batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_targets_that_are_not_scored_do_not_count() -> None:
    model, batch = tiny_model("llama", head=True), batch_of()
    other = batch.tokens.clone()
    other[-1, 15:] = 7
    first, gradient = loss_and_gradient(model, weights_of(model), batch)
    changed = Batch(other, batch.scored, batch.size, batch.floor)
    second, same = loss_and_gradient(model, weights_of(model), changed)
    assert first == pytest.approx(second, rel=1e-6)
    assert torch.allclose(gradient, same, atol=1e-4)


@pytest.fixture(scope="module")
def zoo() -> dict[str, dict[str, float]]:
    """Features on two windows of English."""
    pairs = {
        "self": ("eng-1", "eng-1"), "lives": ("eng-fork", "deu-fork"),
        "strangers": ("eng-1", "deu-1"), "seeds": ("eng-1", "eng-2"),
    }  # fmt: skip
    return {
        name: {
            value.feature: value.value
            for value in gradient_features(
                [f"zoo:{model}" for model in pair], languages=[ENGLISH], windows=1, device="cpu"
            ).values
        }
        for name, pair in pairs.items()
    }


def test_a_model_merged_with_itself_has_nowhere_to_go(zoo: dict[str, dict[str, float]]) -> None:
    alone = zoo["self"]
    assert alone["gradient_cosine"] == pytest.approx(1.0)
    assert alone["gradient_distance"] == pytest.approx(0.0, abs=1e-9)
    assert alone["taylor_retention"] == 1.0
    for name in ("first_order", "curvature", "quadratic_barrier"):
        assert alone[name] == 0.0
    for name in ("descent_cosine", "sharpness"):
        assert math.isnan(alone[name])


def test_the_second_order_tells_the_pair_that_lives(zoo: dict[str, dict[str, float]]) -> None:
    # What evaluation of these averages says: 0.93, -0.94 and 0.29 (figures/zoo_merges.md).
    assert zoo["lives"]["taylor_retention"] == pytest.approx(0.93, abs=0.07)
    assert zoo["strangers"]["taylor_retention"] < 0 < zoo["seeds"]["taylor_retention"] < 0.75
    for name in ("curvature", "quadratic_barrier_relative"):
        assert zoo["lives"][name] < zoo["seeds"][name] < zoo["strangers"][name]


def test_gradients_of_one_basin_point_the_same_way(zoo: dict[str, dict[str, float]]) -> None:
    assert zoo["lives"]["gradient_cosine"] > 0.1
    for name in ("seeds", "strangers"):
        assert abs(zoo[name]["gradient_cosine"]) < 0.05


def test_windows_come_from_as_many_documents_as_there_are() -> None:
    parent = OpenedParents(["zoo:eng-1", "zoo:eng-2"], device="cpu").loaded[0]

    def draw(windows: int, seed: int = 0) -> Batch:
        return training_batch(parent, "bible", ENGLISH, windows=windows, context=32, seed=seed)

    few, many = draw(3), draw(60)
    bos = parent.tokenizer.bos_token_id
    assert few.tokens.shape == (3, 33)
    # One window per document first, and each starts with the document.
    assert (few.tokens[:, 0] == bos).all()
    assert not (many.tokens[:, 0] == bos).all()
    assert torch.equal(many.tokens[:3], few.tokens)
    assert not torch.equal(draw(3, seed=1).tokens, few.tokens)
    text = parent.tokenizer.decode(few.tokens[:, 1:].flatten())
    assert few.size == pytest.approx(len(text.encode()), rel=0.15)
    assert few.floor > 0


def test_where_there_is_no_average_there_are_no_gradients(tmp_path: Path) -> None:
    tiny = write_tiny_model("llama", tmp_path / "llama", head=True)
    encoders = [write_tiny_model("bert", tmp_path / f"bert{i}", seed=i) for i in (0, 1)]
    wide = write_tiny_model("llama", tmp_path / "wide", head=True, hidden_size=64)
    for models, reason in (
        ([tiny, "zoo:eng-1"], "different tokenizers"),
        (encoders, "an encoder"),
        ([tiny, wide], r"is (272, 32) in 'llama' and (272, 64) in 'wide'"),
    ):
        result = gradient_features(models, languages=[ENGLISH], device="cpu")
        assert [value.feature for value in result.values] == measured_names("T3")
        assert all(math.isnan(value.value) for value in result.values)
        assert reason in result.notes[0]


def test_three_parents_and_the_declarations() -> None:
    result = gradient_features(
        ["zoo:eng-1", "zoo:eng-2", "zoo:eng-fork"], languages=[ENGLISH], windows=1, context=64,
        device="cpu",
    )  # fmt: skip
    values = {value.feature: value.value for value in result.values}
    assert values["gradient_cosine_worst"] < values["gradient_cosine"]
    assert values["gradient_norm_worst"] >= values["gradient_norm"] > 0
    assert all(np.isfinite(list(values.values())))
    assert result.seconds > 0
    for name in values:
        assert (FEATURES[name].tier, FEATURES[name].per_language) == ("T3", True)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="0 windows"):
        gradient_features(["zoo:eng-1", "zoo:eng-2"], languages=[ENGLISH], windows=0)
    with pytest.raises(UsageError, match="no language"):
        gradient_features(["zoo:eng-1", "zoo:eng-2"], languages=[])
