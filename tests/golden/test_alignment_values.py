"""Alignment against twins that an independent script made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig

from repsim.merging.align import align, build_model
from repsim.merging.align.checking import model_output
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.solvers import inner_products, rotation_from
from repsim.merging.align.weights import pack, unpack
from repsim.models.arch import ARCHITECTURES

FOLDER = Path(__file__).parent / "alignment"
State = dict[str, torch.Tensor]


def load(name: str) -> State:
    return load_file(FOLDER / f"{name}.safetensors")


def config() -> Any:
    return LlamaConfig(**json.loads((FOLDER / "config.json").read_text(encoding="utf-8")))


def largest_difference(a: State, b: State) -> float:
    assert set(a) == set(b)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def average(a: State, b: State) -> State:
    return {name: (a[name] + b[name]) / 2 for name in a}


def with_noise(state: State, size: float) -> State:
    generator = torch.Generator().manual_seed(5)
    return {k: v + size * torch.randn(v.shape, generator=generator) for k, v in state.items()}


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
def test_the_planted_order_of_units_and_heads_is_found(noise: float) -> None:
    result = align(load("reference"), [with_noise(load("permuted"), noise)], config())
    planted = json.loads((FOLDER / "permuted.json").read_text(encoding="utf-8"))["layers"]
    for layer, truth in enumerate(planted):
        # Unit i of the twin is unit truth[i] of the model: the map undoes that.
        units = torch.tensor(truth["mlp"])[result.maps[0][f"{layer}.mlp_units"]]
        assert units.tolist() == list(range(64))
        groups = torch.tensor(truth["kv"])[result.maps[0][f"{layer}.kv_groups"]]
        assert groups.tolist() == [0, 1]
    assert result.report[0].converged
    assert result.report[0].function_kept


def test_a_model_merged_with_its_permuted_twin_is_the_model() -> None:
    reference, twin = load("reference"), load("permuted")
    aligned = align(reference, [twin], config()).states
    assert largest_difference(average(*aligned), reference) == 0.0
    known = load("inputs_logits")
    ids = known["input_ids"]
    merged = model_output(build_model(config(), average(*aligned)), ids)
    torch.testing.assert_close(merged, known["logits_A_untied"], rtol=0, atol=1e-5)
    naive = model_output(build_model(config(), average(reference, twin)), ids)
    assert float((naive - known["logits_A_untied"]).abs().max()) > 1.0


def test_folding_gives_the_folded_model() -> None:
    spaces = ARCHITECTURES["llama"].spaces(config())
    reference = load("reference")
    weights, untied = fold_norms(unpack(reference, spaces), spaces)
    assert largest_difference(pack(weights, reference, untied), load("folded")) < 1e-7


def test_the_planted_rotation_is_found_to_rounding() -> None:
    result = align(load("reference"), [load("rotated")], config(), method="orthogonal")
    assert rotation_error(result.maps[0]["residual_rotation"]) < 1e-6
    assert result.report[0].function_kept


def test_a_model_merged_with_its_rotated_twin_is_the_folded_model() -> None:
    result = align(load("reference"), [load("rotated")], config(), method="orthogonal")
    merged = average(*result.states)
    assert largest_difference(merged, load("folded")) < 1e-6
    known = load("rotation")
    logits = model_output(build_model(result.config, merged), known["input_ids"])
    torch.testing.assert_close(logits, known["logits_A"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("noise", "bound"), [(0.01, 0.012), (0.03, 0.036)])
def test_a_rotation_under_noise_is_found_from_all_weights(noise: float, bound: float) -> None:
    gains = [name for name in load("rotated") if name.endswith("norm.weight")]
    twin = {**with_noise(load("rotated"), noise), **{name: load("rotated")[name] for name in gains}}
    result = align(load("reference"), [twin], config(), method="orthogonal")
    assert rotation_error(result.maps[0]["residual_rotation"]) < bound


def test_all_weights_tell_more_of_a_rotation_than_the_embeddings() -> None:
    spaces = ARCHITECTURES["llama"].spaces(config())
    a, b = (unpack(state, spaces) for state in (load("folded"), with_noise(load("rotated"), 0.03)))
    space = spaces["residual_rotation"]
    from_all = rotation_error(rotation_from(inner_products(a, b, space), space))
    embeddings = [{"embed": weights["embed"]} for weights in (a, b)]
    assert 2 * from_all < rotation_error(rotation_from(inner_products(*embeddings, space), space))


def rotation_error(found: torch.Tensor) -> float:
    """Largest error of an entry; Q may be stored for either direction."""
    planted = load("rotation")["Q"]
    return min(float((found - q).abs().max()) for q in (planted, planted.T))
