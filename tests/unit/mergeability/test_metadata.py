"""What is declared of models is reported as declared, and what is not is unknown."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError
from repsim.core.model_ref import ModelRef
from repsim.mergeability.features import FEATURES, metadata_features
from repsim.mergeability.features.catalogue import measured_names
from repsim.mergeability.features.declared import Declared, shared_init, shared_tokens
from repsim.mergeability.features.opened import OpenedModel
from repsim.models.zoo import zoo_folder
from repsim.testing.tiny_models import write_provenance, write_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "model", head=True)


def copied(model: Path, folder: Path, **provenance: Any) -> Path:
    shutil.copytree(model, folder)
    if provenance:
        write_provenance(folder, **provenance)
    return folder


def read_declared(model: str | Path) -> Declared:
    return OpenedModel(model).declared


def phase(run: str, first: int, last: int, **mix: float) -> dict[str, Any]:
    return {"run": run, "mix": mix, "first_step": first, "last_step": last, "data_seed": 0}


@pytest.mark.parametrize(
    ("pair", "shared", "fraction"),
    [
        (("eng-fork", "deu-fork"), 1.0, 849_920 / 1_000_448),
        (("eng-fork", "mixed"), 1.0, 849_920 / 1_000_448),
        (("eng-1", "deu-1"), 1.0, 0.0),
        (("eng-1", "eng-fork"), 1.0, 0.0),
        (("eng-1", "eng-2"), 0.0, 0.0),
        (("deu-2", "mixed"), 0.0, 0.0),
        (("eng-1", "eng-1"), 1.0, 1.0),
    ],
)
def test_ancestry_of_the_zoo_is_what_its_provenance_states(
    pair: tuple[str, str], shared: float, fraction: float
) -> None:
    found = metadata_features([f"zoo:{name}" for name in pair]).as_dict()
    assert found["shared_init"] == shared
    assert found["fork_fraction"] == pytest.approx(fraction, rel=1e-12)
    assert found["same_architecture"] == found["same_shape"] == found["same_tokenizer"] == 1.0


def test_languages_count_what_was_read_before_the_fork_too() -> None:
    found = metadata_features(["zoo:eng-fork", "zoo:deu-fork"], languages=["fra_Latn"]).as_dict()
    trunk = 849_920 / 1_000_448
    assert found["speakers@eng_Latn"] == 0.5
    assert found["exposure_worst@eng_Latn"] == pytest.approx(trunk / 2)
    assert found["exposure@eng_Latn"] == pytest.approx((trunk / 2 + (1 - trunk / 2)) / 2)
    assert found["speakers@fra_Latn"] == found["exposure@fra_Latn"] == 0.0
    assert found["own_share"] == pytest.approx(1 - trunk)
    assert found["language_overlap"] == 0.0


def test_more_than_two_parents_give_the_mean_and_the_worst_pair() -> None:
    found = metadata_features(["zoo:eng-fork", "zoo:deu-fork", "zoo:eng-2"]).as_dict()
    assert found["k"] == 3.0
    assert found["shared_init"] == pytest.approx(1 / 3)
    assert found["shared_init_worst"] == found["fork_fraction_worst"] == 0.0
    assert found["own_share_worst"] == 1.0


def test_what_provenance_does_not_state_is_unknown_and_said(tiny: Path, tmp_path: Path) -> None:
    silent = copied(tiny, tmp_path / "silent")
    result = metadata_features([tiny, silent])
    found = result.as_dict()
    for name in ("shared_init", "fork_fraction", "language_overlap", "own_share", "tokens_log10"):
        assert math.isnan(found[name]), name
    assert not [key for key in found if "@" in key]
    assert "'silent' does not state the seed of its initial weights" in result.notes
    assert "'silent' does not state the history of its training" in result.notes


def test_a_declared_reference_counts_before_the_file(tiny: Path, tmp_path: Path) -> None:
    folders = [copied(tiny, tmp_path / name, init_seed=1, languages=["eng_Latn"]) for name in "ab"]
    refs = [
        ModelRef("a", str(folders[0]), languages=("deu_Latn",), init_seed=2),
        ModelRef("b", str(folders[1])),
    ]
    found = metadata_features(refs).as_dict()
    assert found["shared_init"] == 0.0
    assert found["speakers@deu_Latn"] == found["speakers@eng_Latn"] == 0.5


def test_one_seed_is_one_start_only_for_one_shape(tiny: Path, tmp_path: Path) -> None:
    wide = write_tiny_model("llama", tmp_path / "wide", head=True, intermediate_size=64)
    write_provenance(wide, init_seed=1)
    same = copied(tiny, tmp_path / "same", init_seed=1)
    again = copied(tiny, tmp_path / "again", init_seed=1)
    assert metadata_features([same, again]).as_dict()["shared_init"] == 1.0
    found = metadata_features([same, wide]).as_dict()
    assert (found["shared_init"], found["same_shape"], found["same_architecture"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("histories", "expected"),
    [
        # One run and an earlier checkpoint of it: all that the earlier one read.
        (([phase("a", 0, 100)], [phase("a", 0, 40)]), 40.0),
        # Two forks at one step, and at different steps, of one trunk.
        (([phase("t", 0, 50), phase("a", 50, 100)], [phase("t", 0, 50), phase("b", 50, 100)]), 50),
        (([phase("t", 0, 30), phase("a", 30, 100)], [phase("t", 0, 50), phase("b", 50, 100)]), 30),
        # A fork of a fork shares both trunks with its sister.
        (
            (
                [phase("t", 0, 20), phase("u", 20, 60), phase("a", 60, 100)],
                [phase("t", 0, 20), phase("u", 20, 60), phase("b", 60, 100)],
            ),
            60.0,
        ),
        # The same name at different steps is not the same stretch.
        (([phase("t", 0, 20), phase("u", 20, 100)], [phase("t", 0, 30), phase("u", 30, 100)]), 20),
        (([phase("a", 0, 100)], [phase("b", 0, 100)]), 0.0),
    ],
)
def test_shared_tokens_follow_the_histories(
    tiny: Path, tmp_path: Path, histories: tuple[list[dict[str, Any]], ...], expected: float
) -> None:
    declared = []
    for number, history in enumerate(histories):
        steps, own = history[-1]["last_step"], history[-1]["last_step"] - history[-1]["first_step"]
        folder = copied(
            tiny, tmp_path / str(number), init_seed=0, history=history,
            tokens=10 * steps, own_tokens=10 * own,
        )  # fmt: skip
        declared.append(read_declared(folder))
    assert shared_tokens(*declared) == pytest.approx(10 * expected)
    assert shared_tokens(*reversed(declared)) == pytest.approx(10 * expected)


def test_own_tokens_are_converted_exactly_where_the_batch_changed(
    tiny: Path, tmp_path: Path
) -> None:
    folder = copied(
        tiny, tmp_path / "m", init_seed=0, tokens=1000, own_tokens=100,
        history=[phase("t", 0, 50, eng_Latn=1.0), phase("a", 50, 100, deu_Latn=1.0)],
    )  # fmt: skip
    declared = read_declared(folder)
    assert [(p.first, p.last) for p in declared.phases] == [(0.0, 900.0), (900.0, 1000.0)]
    assert declared.exposure("deu_Latn") == pytest.approx(0.1)


def test_other_tokenizers_show_what_they_have_in_common(tiny: Path, tmp_path: Path) -> None:
    other = copied(tiny, tmp_path / "other")
    document = json.loads((other / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    known = len(vocabulary)
    lost, number = next((t, n) for t, n in vocabulary.items() if len(t) == 1)
    del vocabulary[lost]
    vocabulary["a new token"] = number
    (other / "tokenizer.json").write_text(json.dumps(document))
    found = metadata_features([tiny, other]).as_dict()
    assert found["same_tokenizer"] == 0.0
    assert found["token_overlap"] == pytest.approx((known - 1) / (known + 1))


def test_a_decoder_and_an_encoder_are_told_apart(tiny: Path, tmp_path: Path) -> None:
    bert = write_tiny_model("bert", tmp_path / "bert")
    result = metadata_features([tiny, bert])
    found = result.as_dict()
    assert found["same_architecture"] == found["same_shape"] == 0.0
    assert any("differ in model_type" in note for note in result.notes)


@pytest.mark.parametrize("key", ["rope_theta", "hidden_act"])
def test_shapes_can_agree_where_architectures_do_not(tiny: Path, tmp_path: Path, key: str) -> None:
    options = {"rope_theta": 5e5} if key == "rope_theta" else {"hidden_act": "gelu"}
    other = write_tiny_model("llama", tmp_path / "other", head=True, **options)
    found = metadata_features([tiny, other]).as_dict()
    assert (found["same_shape"], found["same_architecture"]) == (1.0, 0.0)


def test_a_config_alone_will_do(tmp_path: Path, tiny: Path) -> None:
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = metadata_features([tmp_path, tmp_path])
    found = result.as_dict()
    assert 10 ** found["parameters_log10"] == pytest.approx(6_738_415_616)
    assert found["same_shape"] == 1.0
    assert math.isnan(found["same_tokenizer"])
    assert any("has no safetensors weights" in note for note in result.notes)


def test_every_value_is_declared_and_none_is_emitted_twice() -> None:
    result = metadata_features(["zoo:eng-fork", "zoo:deu-1", "zoo:mixed"])
    keys = [(value.feature, value.language) for value in result.values]
    assert len(keys) == len(set(keys))
    for value in result.values:
        spec = FEATURES[value.feature]
        assert (spec.tier, spec.per_language) == ("T0", bool(value.language))
    assert set(measured_names("T0")) == {value.feature for value in result.values}
    assert result.seconds < 5


def test_damage_is_an_error_and_not_a_missing_value(tiny: Path, tmp_path: Path) -> None:
    broken = copied(tiny, tmp_path / "broken", history=[{"run": "a"}], tokens=5)
    with pytest.raises(InputError, match="history in .* is malformed"):
        metadata_features([tiny, broken])
    short = copied(tiny, tmp_path / "short")
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        metadata_features([tiny, short])
    with pytest.raises(InputError, match=r"no config\.json"):
        metadata_features([tiny, _empty(tmp_path / "empty")])


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_same_weights_by_hash_are_one_start() -> None:
    hashes = [read_declared(f"zoo:{name}").weights_hash for name in ("eng-1", "eng-2")]
    assert all(hashes)
    one, other = (read_declared(zoo_folder(f"zoo:{name}")) for name in ("eng-1", "eng-2"))
    twin = dataclasses.replace(other, weights_hash=one.weights_hash)
    assert (shared_init(one, other), shared_init(one, twin)) == (0.0, 1.0)
