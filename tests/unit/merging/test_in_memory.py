"""Merging state dicts in memory is the same merge as on disk."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.merging import merge_state_dicts

State = dict[str, torch.Tensor]


def state(seed: int, **changes: torch.Tensor) -> State:
    generator = torch.Generator().manual_seed(seed)
    found = {"model.embed_tokens.weight": torch.randn(6, 4, generator=generator)}
    for i in range(3):
        found[f"model.layers.{i}.mlp.up_proj.weight"] = torch.randn(5, 4, generator=generator)
    return {**found, "model.norm.weight": torch.randn(4, generator=generator), **changes}


A, B, BASE = state(0), state(1), state(2)


def test_each_tensor_is_merged_by_the_method() -> None:
    merged = merge_state_dicts([A, B], "linear", parameters={"weight": [3.0, 1.0]})
    assert merged.keys() == A.keys()
    for name in A:
        assert torch.allclose(merged[name], (3 * A[name] + B[name]) / 4, atol=1e-7)


def test_inputs_stay_as_they_were() -> None:
    before = {name: tensor.clone() for name, tensor in A.items()}
    merged = merge_state_dicts([A], "passthrough")
    merged["model.norm.weight"].zero_()
    assert all(torch.equal(before[name], A[name]) for name in A)


def test_a_model_may_have_its_own_gradient() -> None:
    parameters = {"weight": [[1.0, 0.0], [{"filter": "layers", "value": [0.0, 1.0]}]]}
    merged = merge_state_dicts([A, B], "linear", parameters=parameters)
    first, last = "model.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"
    assert torch.equal(merged[first], A[first])
    assert torch.equal(merged[last], B[last])


def test_a_list_of_filters_is_one_value_for_all_models() -> None:
    parameters = {"weight": [{"filter": "norm", "value": 2.0}, {"value": 1.0}], "normalize": False}
    merged = merge_state_dicts([A, B], "linear", parameters=parameters)
    name = "model.norm.weight"
    assert torch.allclose(merged[name], 2 * A[name] + 2 * B[name])


def test_a_tied_head_is_merged_once_and_stays_tied() -> None:
    pair = [{**one, "lm_head.weight": one["model.embed_tokens.weight"]} for one in (A, B)]
    merged = merge_state_dicts(pair, "slerp")
    assert merged["lm_head.weight"] is merged["model.embed_tokens.weight"]
    copies = [{**one, "lm_head.weight": one["lm_head.weight"].clone()} for one in pair]
    merged = merge_state_dicts(copies, "slerp", config={"tie_word_embeddings": True})
    assert merged["lm_head.weight"] is merged["model.embed_tokens.weight"]
    merged = merge_state_dicts(copies, "slerp", config={"tie_word_embeddings": False})
    assert merged["lm_head.weight"] is not merged["model.embed_tokens.weight"]


def test_types_are_those_of_the_base_and_sums_are_in_float32() -> None:
    half = [{name: tensor.bfloat16() for name, tensor in one.items()} for one in (A, B, BASE)]
    merged = merge_state_dicts(half[:2], "task_arithmetic", base=half[2])
    for name, tensor in merged.items():
        exact = half[0][name].double() + half[1][name].double() - half[2][name].double()
        assert torch.equal(tensor, exact.float().bfloat16())


def test_transforms_come_first() -> None:
    merged = merge_state_dicts([A, B], "linear", transforms=[None, lambda name, tensor: -tensor])
    name = "model.norm.weight"
    assert torch.allclose(merged[name], (A[name] - B[name]) / 2)


def test_notes_are_handed_out_by_tensor() -> None:
    notes: dict[str, list[str]] = {}
    opposed = {name: -tensor for name, tensor in A.items()}
    merge_state_dicts([A, opposed], "slerp", notes=notes)
    assert set(notes) == set(A)
    assert "antipodal" in notes["model.norm.weight"][0]


def test_a_seed_fixes_what_is_drawn() -> None:
    def drawn(seed: int) -> State:
        return merge_state_dicts([A, B], "dare_linear", base=BASE, seed=seed)

    assert all(torch.equal(drawn(1)[name], drawn(1)[name]) for name in A)
    assert any(not torch.equal(drawn(1)[name], drawn(2)[name]) for name in A)


def test_whole_model_ties_trims_by_one_magnitude() -> None:
    merged = merge_state_dicts(
        [A, B], "ties", base=BASE, parameters={"scope": "model", "density": [0.2, 0.5]}
    )
    deltas = [torch.cat([(one[n] - BASE[n]).flatten() for n in A]) for one in (A, B)]
    cuts = []
    for delta, density in zip(deltas, (0.2, 0.5), strict=True):
        size = delta.abs().sort(descending=True).values
        cuts.append(float(size[int(density * len(size)) - 1]))
    name = "model.layers.1.mlp.up_proj.weight"
    kept = [(one[name] - BASE[name]) * ((one[name] - BASE[name]).abs() >= cut)
            for one, cut in zip((A, B), cuts, strict=True)]  # fmt: skip
    sign = torch.where(kept[0] + kept[1] >= 0, 1.0, -1.0)
    agrees = torch.stack([k * (k * sign > 0) for k in kept])
    expected = BASE[name] + agrees.sum(0) / (agrees != 0).sum(0).clamp(min=1)
    assert torch.allclose(merged[name], expected, atol=1e-6)


def test_statistics_reach_the_method() -> None:
    ones = {name: torch.ones_like(tensor) for name, tensor in A.items()}
    thrice = {name: 3 * tensor for name, tensor in ones.items()}
    merged = merge_state_dicts([A, B], "fisher", statistics=[ones, thrice])
    name = "model.norm.weight"
    assert torch.allclose(merged[name], (A[name] + 3 * B[name]) / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "regmean"}, "needs Gram matrices of every model.*collect_gram"),
        ({"method": "fisher"}, "needs Fisher information of every model.*collect_fisher"),
        ({"method": "linear", "transforms": [None]}, "1 transforms or statistics for 2 models"),
        ({"method": "linear", "parameters": {"weight": [1, 2, 3]}}, "has 3 values for 2 models"),
        ({"method": "linear", "parameters": {"wieght": 1}}, "unknown .*'parameters.wieght'"),
        ({"method": "ties"}, "merges differences to a base"),
        ({"method": "linear", "device": "gpu0"}, "unknown device 'gpu0'"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merge_state_dicts([A, B], **options)


def test_tensors_must_be_the_same_in_all_models() -> None:
    extra = {**B, "model.layers.0.mlp.up_proj.bias": torch.ones(5)}
    for pair, lacking in (([A, extra], "model 1"), ([extra, A], "model 2")):
        message = f"up_proj.bias' of 'model .' is missing in '{lacking}'"
        with pytest.raises(IncompatibleModelsError, match=message):
            merge_state_dicts(pair, "linear")
    lacking_norm = {name: tensor for name, tensor in B.items() if "norm" not in name}
    with pytest.raises(IncompatibleModelsError, match=r"norm.weight' of 'model 1' is missing in"):
        merge_state_dicts([A, lacking_norm], "linear")
    other = state(1, **{"model.norm.weight": torch.ones(3)})
    with pytest.raises(IncompatibleModelsError, match=r"is \[3\], and \[4\] in 'model 1'"):
        merge_state_dicts([A, other], "linear")


def test_buffers_must_agree() -> None:
    with_ids = [state(i, ids=torch.arange(3)) for i in range(2)]
    merged = merge_state_dicts(with_ids, "linear")
    assert merged["ids"].tolist() == [0, 1, 2]
    merged["ids"].zero_()
    assert with_ids[0]["ids"].tolist() == [0, 1, 2]
    with_ids[1]["ids"] = torch.arange(3) + 1
    with pytest.raises(IncompatibleModelsError, match="'ids' is no weight and differs between"):
        merge_state_dicts(with_ids, "linear")


def test_models_without_weights_are_refused() -> None:
    with pytest.raises(IncompatibleModelsError, match="the models hold no weights"):
        merge_state_dicts([{"ids": torch.arange(3)}, {"ids": torch.arange(3)}], "linear")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scope": "model", "density": [{"filter": "norm", "value": 0.1}]},
         "'density' of model 'model 1' holds for the whole model"),
        ({"scope": [{"filter": "norm", "value": "model"}]}, "'scope' holds for the whole model"),
    ],
)  # fmt: skip
def test_a_trim_of_the_whole_model_needs_one_value(parameters: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merge_state_dicts([A, B], "ties", base=BASE, parameters=parameters)
