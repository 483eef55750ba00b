"""What a model folder is, and what is wrong with it, is said without loading it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.core.files import hash_files
from repsim.core.model_ref import ModelRef
from repsim.models.headers import count_parameters, read_headers, weight_files
from repsim.models.inspect import inspect_model
from repsim.testing.tiny_models import tiny_model, write_provenance, write_tiny_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model("llama", tmp_path / "tiny", num_hidden_layers=3)


def test_a_folder_is_described_from_its_files(folder: Path) -> None:
    ref = inspect_model(folder)
    model = tiny_model("llama", num_hidden_layers=3)
    assert (ref.name, ref.path, ref.architecture) == ("tiny", str(folder), "llama")
    assert (ref.width, ref.layers) == (32, 3)
    assert ref.parameters == sum(p.numel() for p in model.parameters())
    assert ref.weights_hash == hash_files([folder / "model.safetensors"])
    assert ref.tokenizer_hash == hash_files([folder / "tokenizer.json"])
    assert (ref.role, ref.languages) == ("other", ())


def test_the_label_and_a_trailing_slash_do_not_change_what_is_found(folder: Path) -> None:
    assert inspect_model(f"{folder}/").name == "tiny"
    assert inspect_model(folder, label="mine").name == "mine"


def test_history_is_read_from_the_provenance_file(folder: Path) -> None:
    write_provenance(
        folder, role="monolingual", languages=["deu_Latn"], init_seed=3, fork_step=20, unknown=1
    )
    ref = inspect_model(folder)
    assert (ref.role, ref.languages) == ("monolingual", ("deu_Latn",))
    assert (ref.init_seed, ref.data_seed, ref.fork_step) == (3, None, 20)


def test_a_ref_keeps_its_name_and_declared_history(folder: Path) -> None:
    write_provenance(folder, role="mixed", init_seed=1)
    ref = inspect_model(ModelRef("en", str(folder), role="monolingual", languages=("eng_Latn",)))
    assert (ref.name, ref.role, ref.languages) == ("en", "monolingual", ("eng_Latn",))
    assert ref.init_seed == 1
    assert inspect_model(ref) == ref


def test_a_ref_to_weights_that_have_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    ref = inspect_model(folder)
    other = write_tiny_model("llama", tmp_path / "other", seed=1, num_hidden_layers=3)
    (other / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(InputError, match="are not those declared"):
        inspect_model(ref)


def test_hashes_are_remembered_until_a_file_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = inspect_model(folder)
    module = sys.modules["repsim.models.inspect"]
    monkeypatch.setattr(module, "hash_files", lambda paths: pytest.fail("hashed again"))
    assert inspect_model(folder) == ref
    monkeypatch.undo()
    monkeypatch.setenv("REPSIM_CACHE", str(folder.parent / "cache"))
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(1, 1))
    assert inspect_model(folder).weights_hash == hash_files([path]) != ref.weights_hash


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(folder / "config.json"))
    assert inspect_model(folder).weights_hash == hash_files([folder / "model.safetensors"])


def test_something_that_is_nowhere_names_the_places_looked_at() -> None:
    with pytest.raises(InputError, match=r"'some-org/some-model' is no folder .* hub cache") as e:
        inspect_model("some-org/some-model")
    assert "allow_network=True" in str(e.value)
    assert e.value.exit_code == 3


def test_a_hub_model_keeps_its_id_and_revision(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    ref = inspect_model("some-org/some-model", revision="abc", allow_network=True)
    assert (ref.name, ref.path, ref.revision) == ("some-model@abc", "some-org/some-model", "abc")
    assert (asked["local_files_only"], asked["revision"]) == (False, "abc")
    assert not any(pattern.endswith(".bin") for pattern in asked["allow_patterns"])
    inspect_model(ref)
    assert (asked["local_files_only"], asked["revision"]) == (True, "abc")


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(InputError, match="and cannot be had from the hub") as raised:
        inspect_model("some-org/some-model", allow_network=True)
    assert "LocalEntryNotFoundError" in str(raised.value)


@pytest.mark.parametrize("name", ["./no/such", "/no/such", "runs/en/step-3", Path("gone")])
def test_a_missing_folder_is_never_taken_for_a_hub_id(name: str | Path) -> None:
    with pytest.raises(InputError, match="model folder '.*' does not exist"):
        inspect_model(name, allow_network=True)


def test_what_is_in_a_folder_instead_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json; models are in its folders tiny/"):
        inspect_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(
        InputError, match=r"and holds 1 shard\(s\), first model-00001-of-00002"
    ) as no:
        inspect_model(folder)
    assert "the index" in str(no.value)
    (folder / "model-00001-of-00002.safetensors").rename(folder / "consolidated.safetensors")
    with pytest.raises(InputError, match=r"and holds consolidated.safetensors \(hint: rename"):
        inspect_model(folder)


def test_an_unknown_family_is_refused_and_its_code_is_not_run(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    document |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "evil.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(IncompatibleModelsError, match="no spec for model type 'mine'"):
        inspect_model(folder)
    with pytest.raises(IncompatibleModelsError, match="does not take the config") as raised:
        inspect_model(folder, generic=True)
    assert "never run" in str(raised.value)


def test_pickled_weights_are_refused_with_what_to_do(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only as pytorch_model.bin") as raised:
        inspect_model(folder)
    assert "save_pretrained" in str(raised.value)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no model.safetensors"):
        inspect_model(folder)


def test_shards_are_found_by_the_index_and_missing_ones_are_named(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    files = weight_files(tmp_path)
    assert len(files) > 1
    assert count_parameters(read_headers(files)) == sum(p.numel() for p in model.parameters())
    files[-1].unlink()
    with pytest.raises(InputError, match=f"lacks shard\\(s\\) {files[-1].name}"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="states no weight_map"):
        weight_files(tmp_path)


def test_a_config_with_a_value_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    folder = Path(write_tiny_model("llama", tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(InputError, match="hidden_size is 'wide', not a number"):
        inspect_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": "small"}))
    with pytest.raises(IncompatibleModelsError, match=r"does not take the config.*rms_norm_eps"):
        inspect_model(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("languages", "eng"), ("languages", [["eng"]]), ("init_seed", "one")]
)
def test_a_history_of_another_type_is_refused(folder: Path, field: str, value: object) -> None:
    write_provenance(folder, **{field: value})
    with pytest.raises(InputError, match=f"states {field}"):
        inspect_model(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", None, r"no config.json; it holds .*model.safetensors"),
        ("config.json", "{}", "states no model_type"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("repsim_provenance.json", '{"role": "parent"}', "states role 'parent'"),
        ("repsim_provenance.json", "[1]", "is not a JSON object"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    folder: Path, file: str, text: str | None, message: str
) -> None:
    (folder / file).unlink(missing_ok=True)
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        inspect_model(folder)
    with pytest.raises(InputError, match=r"model.safetensors' is a file"):
        inspect_model(folder / "model.safetensors")
