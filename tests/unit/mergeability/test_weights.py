"""Features of weights on pairs whose answer is known."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.mergeability.features import weight_features
from repsim.mergeability.features.catalogue import measured_names
from repsim.mergeability.features.fit import Weights
from repsim.mergeability.features.opened import OpenedModel
from repsim.merging.align.twins import planted_twin
from repsim.merging.checkpoint import StateDict
from repsim.models.arch import spec_for
from repsim.testing.tiny_models import tiny_model, write_tiny_model

State = dict[str, torch.Tensor]
PERMUTATIONS = ("kv_groups", "query_heads", "mlp_units", "residual_permutation")


def zoo_state(name: str) -> tuple[State, Any]:
    opened = OpenedModel(f"zoo:{name}").weights
    tensors = {key: opened.source.read(key).float() for key in opened.source.headers}
    return tensors, opened.config


def noisy(state: State, relative: float, seed: int = 0) -> State:
    """Each tensor with Gaussian noise of a given norm relative to its own."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        found[name] = tensor + relative * tensor.norm() / noise.norm() * noise
    return found


@pytest.fixture(scope="module")
def eng() -> tuple[State, Any]:
    return zoo_state("eng-1")


def test_a_model_beside_itself() -> None:
    found = weight_features(["zoo:eng-1", "zoo:eng-1"]).as_dict()
    same = [name for name in found if name.startswith("weight_cosine")]
    same += ["unit_match", "head_match", "origin_score", "shared_origin", "subspace_overlap"]
    for name in [*same, "sign_agreement"]:
        assert found[name] == pytest.approx(1.0, abs=1e-5), name
    away = [n for n in found if n.startswith(("weight_distance", "quotient", "alignment_gain"))]
    for name in [*away, "interference", "update_size", "norm_gap", "stable_rank_gap"]:
        assert found[name] == pytest.approx(0.0, abs=1e-6), name


def test_a_permuted_twin_is_far_in_coordinates_and_near_up_to_symmetry(
    eng: tuple[State, Any],
) -> None:
    state, config = eng
    twin, _ = planted_twin(config, state, PERMUTATIONS)
    found = weight_features([state, twin], config=config).as_dict()
    assert abs(found["weight_cosine"]) < 0.05
    assert found["weight_distance"] > 1.35
    assert found["unit_match"] < 0.05
    assert found["shared_origin"] == 0.0
    assert found["quotient_distance_permutation"] < 1e-6
    assert found["quotient_distance_orthogonal"] < 1e-5
    assert found["alignment_gain_permutation"] > 0.999
    assert found["stable_rank_gap"] < 1e-4  # spectra do not see the order


def test_permuted_units_alone_leave_heads_and_attention_as_they_are(eng: tuple[State, Any]) -> None:
    state, config = eng
    twin, _ = planted_twin(config, state, ["mlp_units"])
    found = weight_features([state, twin], config=config, quotient=False).as_dict()
    assert found["weight_cosine_attention"] == pytest.approx(1.0, abs=1e-5)
    assert abs(found["weight_cosine_mlp"]) < 0.05
    assert found["head_match"] == 1.0
    assert found["unit_match"] < 0.05


def test_a_rotated_twin_is_near_up_to_rotation_alone(eng: tuple[State, Any]) -> None:
    """The twin has its gains folded and a head of its own; the model itself has neither."""
    state, config = eng
    twin, _ = planted_twin(config, state, ["residual_rotation"])
    assert set(twin) - set(state) == {"lm_head.weight"}
    untied = copy.deepcopy(config)
    untied.tie_word_embeddings = False
    models = [
        Weights("model", StateDict("model", state), config),
        Weights("twin", StateDict("twin", twin), untied),
    ]
    found = weight_features(models).as_dict()
    assert abs(found["weight_cosine"]) < 0.05
    assert abs(found["weight_cosine_embedding"]) < 0.15
    assert found["quotient_distance_orthogonal"] < 1e-4
    assert found["quotient_distance_embedding"] < 1e-4
    assert found["quotient_distance_permutation"] > 1.0
    assert found["alignment_gain_orthogonal"] > 0.999


@pytest.mark.parametrize("relative", [0.02, 0.5])
def test_noise_at_a_set_distance(eng: tuple[State, Any], relative: float) -> None:
    state, config = eng
    found = weight_features([state, noisy(state, relative)], config=config).as_dict()
    length = math.sqrt(1 + relative**2)
    assert found["weight_cosine"] == pytest.approx(1 / length, abs=2e-3)
    assert found["weight_distance"] == pytest.approx(2 * relative / (1 + length), rel=0.01)
    assert found["shared_origin"] == 1.0
    assert found["quotient_distance_permutation"] == pytest.approx(
        found["weight_distance"], rel=1e-5
    )
    assert found["alignment_gain_permutation"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("pair", "one_start"),
    [
        (("eng-fork", "deu-fork"), True),
        (("mixed", "eng-fork"), True),
        (("eng-1", "deu-1"), True),
        (("eng-2", "deu-2"), True),
        (("deu-1", "mixed"), True),
        (("eng-1", "eng-2"), False),
        (("deu-1", "deu-2"), False),
        (("eng-2", "deu-1"), False),
        (("deu-2", "mixed"), False),
    ],
)
def test_the_origin_of_the_zoo_shows_in_its_weights(pair: tuple[str, str], one_start: bool) -> None:
    found = weight_features([f"zoo:{name}" for name in pair], quotient=False).as_dict()
    assert found["shared_origin"] == float(one_start)
    assert (found["origin_score"] > 0.2) == one_start
    assert (found["weight_cosine"] > 0.03) == one_start
    forked = all(name in ("mixed", "eng-fork", "deu-fork") for name in pair)
    assert (found["unit_match"] > 0.99) == forked


def test_updates_from_a_common_base(eng: tuple[State, Any]) -> None:
    state, config = eng
    first, second, third = (noisy(state, size, seed) for seed, size in enumerate((0.1, 0.1, 0.2)))
    far = weight_features([first, second], base=state, config=config, quotient=False).as_dict()
    assert far["update_size"] == pytest.approx(0.1, rel=1e-3)
    assert far["update_cosine"] == pytest.approx(0.0, abs=5e-3)
    assert far["update_sign_agreement"] == pytest.approx(0.5, abs=5e-3)
    assert far["update_subspace_overlap"] == pytest.approx(0.0, abs=0.02)
    assert far["interference"] == pytest.approx(0.1 / math.sqrt(2), rel=0.01)
    assert far["retained_update"] == pytest.approx(1 / math.sqrt(2), abs=5e-3)
    near = weight_features(
        [first, first, third], base=state, config=config, quotient=False
    ).as_dict()
    assert near["update_cosine"] == pytest.approx(1 / 3, abs=5e-3)
    assert near["update_cosine_worst"] == pytest.approx(0.0, abs=5e-3)
    assert near["update_size"] == pytest.approx(0.4 / 3, rel=1e-3)
    assert near["update_size_worst"] == pytest.approx(0.2, rel=1e-3)


def test_without_a_base_updates_are_unknown_and_their_size_is_from_the_mean() -> None:
    result = weight_features(["zoo:eng-1", "zoo:eng-2"], quotient=False)
    found = result.as_dict()
    for name in ("update_cosine", "update_sign_agreement", "retained_update"):
        assert math.isnan(found[name])
    # Orthogonal models of equal norm are as far from their mean as the mean is long.
    assert found["update_size"] == pytest.approx(1.0, abs=0.01)
    assert found["interference"] == pytest.approx(1.0, abs=0.01)
    assert any(note.startswith("no base") for note in result.notes)


def test_several_parents_give_mean_and_worst_of_their_pairs() -> None:
    names = ["eng-fork", "deu-fork", "eng-2"]
    whole = weight_features([f"zoo:{name}" for name in names], quotient=False).as_dict()
    pairs = [
        weight_features([f"zoo:{a}", f"zoo:{b}"], quotient=False).as_dict()
        for a, b in (names[:2], names[::2], names[1:])
    ]
    for name, choose in (("weight_cosine", min), ("weight_distance", max), ("unit_match", min)):
        values = [found[name] for found in pairs]
        assert whole[name] == pytest.approx(sum(values) / 3, rel=1e-6)
        assert whole[f"{name}_worst"] == pytest.approx(choose(values), rel=1e-6)
        assert all(found[name] == found[f"{name}_worst"] for found in pairs)


@pytest.mark.parametrize(
    "kind", ["llama", "olmo2", "phi3", "gpt2", "gpt_neox", "opt", "bloom", "bert", "t5"]
)
def test_every_family_has_a_body_and_tells_itself_from_another(kind: str) -> None:
    one, other = (tiny_model(kind, seed=seed) for seed in (0, 1))
    states = [model.state_dict() for model in (one, one, other)]
    same = weight_features(states[:2], config=one.config, quotient=False).as_dict()
    apart = weight_features(states[1:], config=one.config, quotient=False).as_dict()
    for name in ("weight_cosine_attention", "weight_cosine_mlp", "weight_cosine_embedding"):
        assert same[name] == pytest.approx(1.0, abs=1e-5)
        assert abs(apart[name]) < 0.15
    declared = spec_for(kind).why_unalignable(one.config) is None
    assert math.isnan(same["unit_match"]) != declared
    if declared:
        assert (same["unit_match"], same["head_match"]) == (1.0, 1.0)
        assert (same["shared_origin"], apart["shared_origin"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "spared"), [("bert", "orthogonal"), ("bloom", ""), ("gpt2", "none")]
)
def test_families_without_a_symmetry_are_noted_and_not_guessed(kind: str, spared: str) -> None:
    states = [tiny_model(kind, seed=seed).state_dict() for seed in (0, 1)]
    config = tiny_model(kind).config
    result = weight_features(states, config=config)
    found = result.as_dict()
    assert math.isnan(found["quotient_distance_permutation"]) == (spared == "")
    assert math.isnan(found["quotient_distance_orthogonal"]) == (spared != "none")
    notes = " ".join(result.notes)
    assert ("no distance up to" in notes) == (spared != "none")


def test_the_search_is_left_out_where_memory_does_not_allow_it() -> None:
    result = weight_features(["zoo:eng-1", "zoo:deu-1"], max_memory=2**20)
    assert math.isnan(result.as_dict()["quotient_distance_permutation"])
    assert any("GiB of memory" in note for note in result.notes)


def test_shards_types_and_memory_give_what_one_file_gives(tmp_path: Path) -> None:
    folders = [
        write_tiny_model("llama", tmp_path / name, head=True, seed=seed)
        for seed, name in enumerate("ab")
    ]
    expected = weight_features(folders).as_dict()
    opened = [OpenedModel(folder).weights for folder in folders]
    states = [{n: m.source.read(n).clone() for n in m.source.headers} for m in opened]
    in_memory = weight_features(states, config=opened[0].config).as_dict()
    (folders[1] / "model.safetensors").unlink()
    _write_shards(states[1], folders[1])
    sharded = weight_features(folders).as_dict()
    for name, value in expected.items():
        assert in_memory[name] == pytest.approx(value, nan_ok=True), name
        assert sharded[name] == pytest.approx(value, nan_ok=True), name
    half = [{name: tensor.bfloat16() for name, tensor in state.items()} for state in states]
    rounded = weight_features(half, config=opened[0].config).as_dict()
    assert rounded["weight_distance"] == pytest.approx(expected["weight_distance"], rel=1e-3)


def _write_shards(state: State, folder: Path) -> None:
    names = sorted(state)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: state[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def test_every_value_is_declared_and_every_declared_one_is_emitted() -> None:
    result = weight_features(["zoo:eng-fork", "zoo:deu-fork"], base="zoo:mixed")
    names = [value.feature for value in result.values]
    assert len(names) == len(set(names))
    assert set(names) == set(measured_names("T1"))
    assert not [value for value in result.values if math.isnan(value.value)]
    assert 0 < result.seconds < 30


def test_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    llama, bert = (write_tiny_model(kind, tmp_path / kind) for kind in ("llama", "bert"))
    wide = write_tiny_model("llama", tmp_path / "wide", intermediate_size=64)
    with pytest.raises(IncompatibleModelsError, match="do not fit: llama and bert"):
        weight_features([llama, bert])
    with pytest.raises(IncompatibleModelsError, match=r"is \(32, 48\) and \(32, 64\)"):
        weight_features([llama, wide])
    with pytest.raises(IncompatibleModelsError, match="do not fit"):
        weight_features([llama, llama], base=wide)


@pytest.mark.parametrize("longer", [False, True])
def test_other_vocabularies_leave_the_bodies_comparable(tmp_path: Path, longer: bool) -> None:
    one = write_tiny_model("llama+tied", tmp_path / "one", head=True)
    other = write_tiny_model(
        "llama+tied", tmp_path / "other", head=True, vocab_size=400 if longer else 272
    )
    if not longer:
        text = (other / "tokenizer.json").read_text()
        document = json.loads(text)
        ids = document["model"]["vocab"]
        ids["!"], ids["?"] = ids["?"], ids["!"]
        (other / "tokenizer.json").write_text(json.dumps(document))
    result = weight_features([one, other])
    found = result.as_dict()
    assert not math.isnan(found["weight_cosine"])
    assert not math.isnan(found["unit_match"])
    for name in ("weight_cosine_embedding", "weight_distance_embedding"):
        assert math.isnan(found[name])
    assert math.isnan(found["quotient_distance_orthogonal"])
    reason = "differ in size: 272 and 400 rows" if longer else "stand for different tokens"
    assert sum(reason in note for note in result.notes) == 2


def test_bad_input_is_named() -> None:
    model = tiny_model("llama")
    state = model.state_dict()
    with pytest.raises(UsageError, match="is a state dict"):
        weight_features([state, state])
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj.* of model 'model 2' holds NaN"):
        weight_features([state, broken], config=model.config)


def test_a_bar_counts_the_weights_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    totals: list[float] = []
    steps: list[float] = []

    @contextlib.contextmanager
    def bar(what: str, total: float, unit: str) -> Iterator[SimpleNamespace]:
        totals.append(total)
        yield SimpleNamespace(update=steps.append)

    monkeypatch.setattr("repsim.mergeability.features.scan.progress", bar)
    weight_features(["zoo:eng-1", "zoo:deu-1"], quotient=False)
    # Two models of 1.3 million parameters, all but their biases.
    assert totals == [sum(steps)]
    assert 2.4e6 < totals[0] < 2.8e6
    assert len(steps) > 4 * 7
