"""Any module is read where the user says, pooled by a stated rule, and compared like models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

import repsim
from repsim.activations.modules import pool_units, read_modules
from repsim.core.errors import InputError, UsageError
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer

IMAGES = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _vit(seed: int) -> Any:
    torch.manual_seed(seed)
    return ViTModel(ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=16, patch_size=8,
    ))  # fmt: skip


def _resnet(seed: int) -> Any:
    torch.manual_seed(seed)
    return ResNetModel(ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic",
    ))  # fmt: skip


def test_blocks_of_a_vision_transformer_are_its_hidden_states() -> None:
    model = _vit(0).train()
    found = read_modules({"vit": model}, IMAGES, ["layers.0", "layers.1"], batch_size=7)[0]
    assert not any(m._forward_hooks for m in model.modules())
    with torch.inference_mode():
        states = model.eval()(IMAGES, output_hidden_states=True).hidden_states
    for layer in (0, 1):
        expected = states[layer + 1].mean(dim=1).numpy()
        np.testing.assert_allclose(found.array("", layer), expected, atol=1e-6)
    assert found.info["layer_names"] == ["layers.0", "layers.1"]


def test_a_tensor_a_loader_and_a_mapping_hold_the_same_inputs() -> None:
    model = _resnet(0).train()
    points = {"early": model.encoder.stages[0], "late": "encoder.stages.1"}
    labelled = torch.utils.data.TensorDataset(IMAGES, torch.arange(40))
    loader = torch.utils.data.DataLoader(labelled, batch_size=9)
    ways: list[Any] = [IMAGES, loader, {"pixel_values": IMAGES}, (b for b in IMAGES.split(11))]
    read = [read_modules({"m": model}, way, points)[0].array("", 1) for way in ways]
    for other in read[1:]:
        np.testing.assert_allclose(other, read[0], atol=1e-5)
    assert read[0].shape == (40, 12)
    assert model.training


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((4, 5), {}, lambda x: x),
        ((4, 6, 5), {}, lambda x: x.mean(1)),
        ((4, 6, 5), {"pooling": "last"}, lambda x: x[:, -1]),
        ((4, 6, 5), {"channels": "first"}, lambda x: x.mean(2)),
        ((4, 6, 3, 2), {}, lambda x: x.mean((2, 3))),
        ((4, 3, 2, 6), {"channels": "last"}, lambda x: x.mean((1, 2))),
        ((4, 6, 3, 2), {"pooling": "flatten"}, lambda x: x.flatten(1)),
    ],
)
def test_outputs_are_pooled_as_stated(shape: Any, options: Any, expected: Any) -> None:
    x = torch.randn(*shape)
    torch.testing.assert_close(pool_units(x, **options), expected(x))


def test_padding_does_not_count() -> None:
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer("$A")
    batch = tokenizer(["a long sentence of words", "short"], padding=True, return_tensors="pt")
    for pooling, place in (("mean", None), ("last", -1)):
        rows = read_modules({"m": model}, dict(batch), ["h.1"], pooling=pooling)[0]  # type: ignore[arg-type]
        alone = tokenizer(["short"], return_tensors="pt")
        with torch.inference_mode():
            state = model(**alone, output_hidden_states=True).hidden_states[2]
        seen: dict[str, Any] = {}
        hook = model.h[1].register_forward_hook(
            lambda m, a, out, seen=seen: seen.update(x=out[0] if isinstance(out, tuple) else out)
        )
        with torch.inference_mode():
            model(**alone)
        hook.remove()
        expected = seen["x"][0].mean(0) if place is None else seen["x"][0, place]
        assert state.shape == seen["x"].shape
        np.testing.assert_allclose(rows.array("", 0)[1], expected, atol=1e-5)


def test_two_models_give_the_table_of_their_arrays(tmp_path: Path) -> None:
    models = {"vit": _vit(0), "resnet": _resnet(0)}
    points: Any = {"vit": ["layers.0", "layers.1"], "resnet": ["embedder", "encoder.stages.1"]}
    table = repsim.compare_modules(models, IMAGES, points, permutations=19)
    arrays = {
        side.model.name: [side.array("", layer) for layer in (0, 1)]
        for side in read_modules(models, IMAGES, points)
    }
    plain = repsim.compare_arrays(arrays, permutations=19)
    assert table.column("value").tolist() == plain.column("value").tolist()
    assert table.info["layer_names"]["resnet"] == ["embedder", "encoder.stages.1"]
    panel = repsim.plots.FIGURES["heatmap"].info(table).panels[0]
    assert {*panel.names_a, *panel.names_b} == {*points["vit"], *points["resnet"]}


def test_two_checkpoints_of_a_training_loop_and_one_model_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(80, 6)
    before = read_modules({"before": net}, x, ["0", "2"])[0]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    after = read_modules({"after": net}, x, ["0", "2"])[0]
    assert before.model.weights_hash != after.model.weights_hash
    plain = repsim.measures.Statistics(covariates=(), permutations=19)
    table = repsim.sweep([before, after], point="", pairings=("same text",), statistics=plain)
    assert 0 < table.grid("before", "after", measure="cka").values[1, 1] < 1

    alone = repsim.compare_modules([net], x, {"in": net[0], "out": net[2]}, permutations=19)
    panel = repsim.plots.FIGURES["heatmap"].info(alone).panels[0]
    assert panel.values.shape == (2, 2)
    np.testing.assert_allclose(np.diag(panel.values), 1.0)
    assert panel.best.tolist() == [1, 0]  # of the other layers
    assert "most similar other layer" in repsim.plots.FIGURES["heatmap"].info(alone).note[-1]
    assert alone.to_report(tmp_path / "report").is_file()


@pytest.mark.parametrize(
    ("points", "options", "error", "message"),
    [
        (["3"], {}, UsageError, "unknown module of 'net' '3'"),
        ([], {}, UsageError, "points are a list of paths"),
        ("0", {}, UsageError, "points are a list of paths"),
        ({"x": nn.Linear(1, 1)}, {}, UsageError, "Linear is no module of these models"),
        (["0"], {"pooling": "max"}, UsageError, "unknown pooling of units 'max'"),
        (["0"], {"batch_size": 0}, UsageError, "batch_size is 0"),
        (["1"], {}, InputError, "module '1' of 'net' runs more than once per batch"),
        (["4"], {}, InputError, "module '4' of 'net' is not called"),
        (["2"], {}, InputError, r"gives \[5, 9\] for a batch of 9"),
    ],
)
def test_what_cannot_be_read_is_named(
    points: Any, options: Any, error: type[Exception], message: str
) -> None:
    class Turned(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).T

    parts = {"0": nn.Linear(6, 6), "1": nn.ReLU(), "2": Turned(6, 5), "4": nn.Linear(2, 2)}
    net = nn.ModuleDict(parts)

    def run(model: Any, x: torch.Tensor) -> None:
        model["2"](model["1"](model["1"](model["0"](x))))

    with pytest.raises(error, match=message):
        read_modules({"net": net}, torch.randn(9, 6), points, run=run, **options)


def test_inputs_that_are_none(tmp_path: Path) -> None:
    net = nn.Linear(3, 3)
    for inputs, message in (
        ([], "there are no inputs"), ("text", "str is no input"),
        ([["text"]], "holds no tensor"),
        ({"a": torch.ones(3, 1), "b": torch.ones(2, 1)}, "different lengths"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            read_modules({"m": net}, inputs, [""])
    with pytest.raises(UsageError, match="two models have one name"):
        repsim.compare_modules([net, net], torch.ones(9, 3), [""], names=["a", "a"])
    with pytest.raises(InputError, match="gives NaN or infinity"):
        read_modules({"m": net}, torch.full((9, 3), torch.nan), {"whole": ""})
