"""Planted twins are brought back, whatever the family; what alignment did is stated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.merging.align import align, collect_activations, output_difference
from repsim.merging.align.activation_matching import head_cka
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.twins import planted_twin
from repsim.merging.align.weights import pack, unpack
from repsim.models.arch import spec_for
from repsim.testing.tiny_models import tiny_model, write_tiny_model

UNITS = (
    "kv_groups", "query_heads", "mlp_units", "experts", "expert_units", "expert_groups",
    "shared_units", "latent_heads", "query_latent", "key_latent", "channels", "states",
)  # fmt: skip
ORDERS = (*UNITS, "residual_permutation")
TURNS = (
    *UNITS, "value_basis", "query_key_basis", "latent_value_basis", "latent_query_key_basis",
    "step_basis", "residual_rotation",
)  # fmt: skip
DECODERS = ["llama+tied", "qwen3", "gemma", "phi3", "gpt2", "gpt_neox", "qwen3_moe", "deepseek_v3",
            "mamba"]  # fmt: skip
State = dict[str, torch.Tensor]


def model_of(kind: str, seed: int = 0) -> tuple[Any, State]:
    model = tiny_model(kind, head=kind != "bert", seed=seed)
    return model.config, dict(model.state_dict())


def folded(config: Any, state: State) -> tuple[Any, State]:
    spaces = spec_for(config.model_type).spaces(config)
    weights, untied = fold_norms(unpack(state, spaces), spaces)
    after = copy.deepcopy(config)
    after.tie_word_embeddings = False
    return after, pack(weights, state, untied)


def average(states: list[State]) -> State:
    return {name: sum(s[name] for s in states) / len(states) for name in states[0]}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "noise"),
    [
        ("llama", 0.0),
        ("llama", 0.03),
        ("phi3", 0.0),
        ("gpt2", 0.03),
        ("gpt_neox", 0.0),
        ("bert", 0.03),
        ("falcon+grouped", 0.0),
        ("mixtral", 0.03),
        ("gpt_oss", 0.0),
        ("deepseek_v3", 0.0),
        ("mamba", 0.0),
    ],
)
def test_a_planted_permutation_is_found_exactly(kind: str, noise: float) -> None:
    config, state = model_of(kind)
    twin, planted = planted_twin(config, state, ORDERS, seed=1, noise=noise)
    result = align(state, [twin], config, check=False)
    for key, order in planted.items():
        if order.ndim == 1:
            assert torch.equal(order[result.maps[0][key]], torch.arange(len(order))), key
    if noise == 0:
        assert all(torch.equal(result.states[1][name], state[name]) for name in state)
        assert result.report[0].distance_after == 0.0


@pytest.mark.parametrize("kind", DECODERS)
def test_merging_with_a_rotated_twin_gives_the_model_back(kind: str) -> None:
    original, state = model_of(kind)
    config, reference = folded(original, state)
    twin, _ = planted_twin(config, reference, TURNS, seed=1)
    assert output_difference(config, reference, average([reference, twin])) > 0.1
    result = align(reference, [twin], config, method="orthogonal")
    merged = average(result.states)
    assert output_difference(original, state, merged, after_config=config) <= 1e-5
    assert result.report[0].function_kept
    assert result.report[0].distance_after < 1e-6


@pytest.mark.parametrize(("kind", "method"), [("llama", "orthogonal"), ("gpt2", "permutation")])
def test_strangers_keep_their_function_and_come_nearer(kind: str, method: Any) -> None:
    config, state = model_of(kind)
    _, stranger = model_of(kind, seed=1)
    result = align(state, [stranger], config, method=method)
    report = result.report[0]
    assert report.improved
    assert report.function_kept
    assert report.note == ""
    assert report.moved["0.mlp_units"] > 0.5


def test_several_models_are_all_brought_to_the_reference() -> None:
    config, state = model_of("llama")
    twins = [planted_twin(config, state, ORDERS, seed=seed)[0] for seed in (1, 2, 3)]
    result = align(state, twins, config, check=False)
    assert len(result.states) == 4
    assert len(result.report) == 3
    merged = average(result.states)
    torch.testing.assert_close(merged, state, rtol=0, atol=1e-6)


def test_tied_models_are_untied_by_rotation_only() -> None:
    config, state = model_of("llama+tied")
    _, stranger = model_of("llama+tied", seed=1)
    del state["lm_head.weight"]
    del stranger["lm_head.weight"]
    ordered = align(state, [stranger], config)
    assert ordered.config.tie_word_embeddings
    assert "lm_head.weight" not in ordered.states[1]
    turned = align(state, [stranger], config, method="orthogonal")
    assert not turned.config.tie_word_embeddings
    assert all("lm_head.weight" in tensors for tensors in turned.states)
    assert turned.report[0].function_kept
    assert config.tie_word_embeddings


def test_models_that_share_their_coordinates_are_left_alone() -> None:
    config, state = model_of("llama")
    near = {name: tensor * 1.01 for name, tensor in state.items()}
    report = align(state, [near], config).report[0]
    assert not report.improved
    assert all(moved == 0 for moved in report.moved.values())
    assert "aligning brought nothing: the distance to the reference went from 0.01 to 0.01" in (
        report.note
    )
    same = align(state, [state], config, check=False).report[0]
    assert "the models share their coordinates" in same.note


def test_the_residual_stream_can_be_left_as_it_is() -> None:
    config, state = model_of("gpt2")
    _, stranger = model_of("gpt2", seed=1)
    maps = align(state, [stranger], config, residual=False, check=False).maps[0]
    assert "residual_permutation" not in maps
    assert "0.mlp_units" in maps


def test_alignment_is_the_same_each_time_and_reports_its_rounds() -> None:
    config, state = model_of("llama")
    _, stranger = model_of("llama", seed=1)
    rounds: list[tuple[int, float]] = []
    first, second = (
        align(
            state, [stranger], config, method="orthogonal", check=False, max_iterations=3,
            on_round=lambda number, d: rounds.append((number, d)),
        )
        for _ in range(2)
    )  # fmt: skip
    assert all(torch.equal(first.states[1][name], second.states[1][name]) for name in state)
    assert [number for number, _ in rounds] == [1, 2, 3, 1, 2, 3]
    distances = [d for _, d in rounds[:3]]
    assert distances == sorted(distances, reverse=True)
    assert first.report[0].rounds == 3
    assert not first.report[0].converged


def test_orders_keep_types_and_rotations_are_in_single_precision() -> None:
    config, state = model_of("llama")
    _, stranger = model_of("llama", seed=1)
    low = [{name: t.to(torch.bfloat16) for name, t in s.items()} for s in (state, stranger)]
    ordered = align(low[0], [low[1]], config)
    assert {tensor.dtype for tensor in ordered.states[1].values()} == {torch.bfloat16}
    assert ordered.report[0].function_kept
    turned = align(low[0], [low[1]], config, method="orthogonal")
    assert {tensor.dtype for tensor in turned.states[1].values()} == {torch.float32}
    assert turned.report[0].function_kept
    assert "rotated weights are float32: rounded to bfloat16 again" in turned.report[0].note


@pytest.mark.parametrize("swap", [False, True])
def test_a_tied_model_and_its_rotated_twin_align(swap: bool, tmp_path: Path) -> None:
    original, state = model_of("llama+tied")
    untied, reference = folded(original, state)
    twin, _ = planted_twin(untied, reference, TURNS, seed=1)
    models = [(original, state), (untied, twin)]
    for number, (config, tensors) in enumerate(reversed(models) if swap else models):
        folder = write_tiny_model("llama+tied", tmp_path / str(number), head=True)
        config.save_pretrained(folder)
        stored = {n: t for n, t in tensors.items() if n != "lm_head.weight" or config is untied}
        save_file(stored, folder / "model.safetensors")
    named = align(tmp_path / "0", [tmp_path / "1"], method="orthogonal")
    assert named.report[0].distance_after < 1e-6
    assert named.report[0].function_kept
    if not swap:
        given = align(state, [twin], original, method="orthogonal")
        assert given.report[0].distance_after < 1e-6
    # Orders alone do not undo a rotation, but both have heads then.
    ordered = align(tmp_path / "0", [tmp_path / "1"])
    assert ordered.config.tie_word_embeddings is False
    assert all("lm_head.weight" in state for state in ordered.states)


def test_a_map_that_changes_the_model_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(weights: Any, state: Any, spaces: Any) -> Any:
        rolled = {key: w.roll(1, -2) for key, w in weights.items() if key == "0.q"}
        return pack({**weights, **rolled}, state, spaces)

    monkeypatch.setattr("repsim.merging.align.blocks.pack", broken)
    config, state = model_of("llama")
    report = align(state, [model_of("llama", seed=1)[1]], config).report[0]
    assert report.function_kept is False
    assert "the map is not a symmetry of this model" in report.note


def test_outputs_that_cannot_be_compared_are_said_not_to_be() -> None:
    config, state = model_of("bert")
    partial = {f"bert.{name}": tensor for name, tensor in state.items()}
    report = align(partial, [partial], config).report[0]
    assert report.function_kept is None
    assert "outputs were not compared: the tensors do not make up a BertForMaskedLM" in report.note


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "bert"])
def test_activation_matching_finds_a_planted_permutation(kind: str) -> None:
    config, state = model_of(kind)
    twin, planted = planted_twin(config, state, ORDERS, seed=1)
    ids = torch.randint(4, 260, (8, 24), generator=torch.Generator().manual_seed(0))
    seen = [collect_activations(config, tensors, ids) for tensors in (state, twin)]
    result = align(state, [twin], config, match="activations", activations=seen)
    for key, order in planted.items():
        if order.ndim == 1:
            assert torch.equal(order[result.maps[0][key]], torch.arange(len(order))), key
    assert result.report[0].distance_after == 0.0
    assert result.report[0].rounds == 0


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_activation_matching_finds_a_planted_rotation(kind: str) -> None:
    config, reference = folded(*model_of(kind))
    twin, planted = planted_twin(config, reference, TURNS, seed=1)
    ids = torch.randint(4, 260, (8, 24), generator=torch.Generator().manual_seed(0))
    seen = [collect_activations(config, tensors, ids) for tensors in (reference, twin)]
    result = align(
        reference, [twin], config, method="orthogonal", match="activations", activations=seen
    )
    found = result.maps[0]["residual_rotation"]
    undone = found @ planted["residual_rotation"]
    torch.testing.assert_close(undone, torch.eye(32, dtype=torch.float64), rtol=0, atol=1e-4)
    assert result.report[0].distance_after < 1e-3


def test_padding_and_first_tokens_are_no_rows_of_activations() -> None:
    config, state = model_of("gpt2")
    ids = torch.full((2, 6), 7)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    assert collect_activations(config, state, ids, mask)["resid", 0].shape == (5 + 2, 32)


def test_constant_heads_resemble_nothing() -> None:
    x = torch.ones(5, 4)
    assert not bool(head_cka(x, x, kv=2, q=1).any())


def test_activations_that_are_missing_or_of_other_rows_are_refused() -> None:
    config, state = model_of("llama")
    ids = torch.arange(4, 28).reshape(2, 12)
    seen = collect_activations(config, state, ids)
    with pytest.raises(UsageError, match="needs those of all 2 models, 0 given"):
        align(state, [state], config, match="activations")
    less = {where: values for where, values in seen.items() if where != ("heads", 2)}
    with pytest.raises(UsageError, match="needs 'heads' of layer 2 of every model"):
        align(state, [state], config, match="activations", activations=[seen, less])
    short = {where: values[1:] for where, values in seen.items()}
    with pytest.raises(UsageError, match="models must read the same rows"):
        align(state, [state], config, match="activations", activations=[seen, short])


def test_heads_under_an_older_name_are_heads() -> None:
    config, state = model_of("gpt_neox")
    old = {
        name.replace("lm_head", "embed_out"): t for name, t in model_of("gpt_neox", 1)[1].items()
    }
    result = align(state, [old], config, method="orthogonal")
    assert result.report[0].function_kept
    assert "embed_out.weight" in result.states[1]
    assert "lm_head.weight" not in result.states[1]


def test_impossible_arguments_are_refused() -> None:
    config, state = model_of("llama")
    with pytest.raises(UsageError, match="unknown alignment method 'rotation'"):
        align(state, [state], config, method="rotation")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown way to match 'weight'"):
        align(state, [state], config, match="weight")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs at least one round, 0 allowed"):
        align(state, [state], config, max_iterations=0)


def test_models_of_other_shapes_are_refused() -> None:
    config, state = model_of("llama")
    other = tiny_model("llama", head=True, intermediate_size=40).state_dict()
    wanted = r"'0.gate' is \(48, 32\) in the reference and \(40, 32\) in model 2"
    with pytest.raises(IncompatibleModelsError, match=wanted):
        align(state, [other], config)
    biased = dict(state)
    biased["model.layers.0.mlp.up_proj.bias"] = torch.zeros(48)
    with pytest.raises(
        IncompatibleModelsError, match=r"'0.up_bias' is missing in the reference and"
    ):
        align(state, [biased], config)


def test_a_family_that_cannot_be_rotated_is_refused() -> None:
    config, state = model_of("bert")
    with pytest.raises(IncompatibleModelsError, match="'bert' cannot be rotated"):
        align(state, [state], config, method="orthogonal")


def test_models_may_be_named_by_their_folders(tmp_path: Path) -> None:
    folders = [write_tiny_model("llama", tmp_path / f"m{i}", head=True, seed=i) for i in (0, 1)]
    config, state = model_of("llama", seed=0)
    named, given = (
        align(folders[0], folders[1:]),
        align(state, [model_of("llama", seed=1)[1]], config),
    )
    torch.testing.assert_close(named.states, given.states, rtol=0, atol=0)
    with pytest.raises(UsageError, match="do not say what they are"):
        align(state, [state])
