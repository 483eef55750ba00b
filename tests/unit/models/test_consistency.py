"""A config.json that contradicts the weights beside it is refused before anything is built."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from repsim.core.errors import InputError, RepsimError
from repsim.models.check import check_model
from repsim.models.consistency import beyond_measure, contradictions, stated
from repsim.models.headers import read_headers, weight_files
from repsim.models.inspect import check_config, inspect_model, read_config
from repsim.models.load import load_model
from repsim.testing.tiny_models import KINDS, write_tiny_model


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    changed = {name: change(t).contiguous() for name, t in load_file(path).items()}
    save_file(changed, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_as_its_family_saves_it_does_not_contradict_itself(
    kind: str, tmp_path: Path
) -> None:
    folder = write_tiny_model(kind, tmp_path / "m")
    headers = read_headers(weight_files(folder))
    config, spec = read_config(folder)
    assert contradictions(config, spec, headers) == []
    document = json.loads((folder / "config.json").read_text())
    assert contradictions(stated(document), spec, headers) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocab_size": 100}, "100 tokens"),
        ({"vocab_size": 50_000}, "50,000 tokens"),
        ({"num_hidden_layers": 1}, "1 block, and the weights hold 2"),
        ({"num_hidden_layers": 9}, "9 blocks, and the weights hold 2"),
        ({"hidden_size": 64}, "by its sizes"),
        ({"intermediate_size": 64}, "by its sizes"),
        ({"num_key_value_heads": 4}, "by its sizes"),
        ({"head_dim": 4}, "by its sizes"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers is 10000000"),
        ({"vocab_size": 10**300}, "more than 40 digits"),
        ({"num_labels": 10**10}, "num_labels is"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused_by_every_reader(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", head=True)
    change_config(folder, **values)
    headers = read_headers(weight_files(folder))
    began = time.process_time()
    for read in (
        lambda: check_config("m", folder, headers),
        lambda: inspect_model(folder),
        lambda: load_model(folder),
    ):
        with pytest.raises(InputError, match=said):
            read()
    assert time.process_time() - began < 5


_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim",
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(_KEYS), value=st.integers(1, 600))
def test_no_size_can_be_changed_without_a_refusal_or_the_same_shapes(
    key: str, value: int, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    if not folder.exists():
        write_tiny_model("llama", folder)
    path = folder / "config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {key: value}))
    try:
        config, _ = read_config(folder)
        check_config("m", folder, read_headers(weight_files(folder)))
    except RepsimError:
        return
    finally:
        path.write_text(json.dumps(document))
    import transformers

    with torch.device("meta"):
        built = transformers.AutoModel.from_config(config)
    shapes = {name: tuple(p.shape) for name, p in built.named_parameters()}
    assert shapes == {n: h.shape for n, h in read_headers(weight_files(folder)).items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.round().to(torch.int8), "stored as I8"),
        (lambda t: t.to(torch.float8_e4m3fn), "stored as F8_E4M3"),
        (torch.zeros_like, "all zero"),
        (lambda t: torch.full_like(t, float("nan")), "NaN"),
    ],
    ids=["int8", "float8", "zero", "nan"],
)
def test_a_check_refuses_weights_that_are_none(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path
) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    change_weights(folder, change)
    failed = [found for found in check_model(folder) if not found.ok]
    assert failed
    assert said in failed[0].message


def test_biases_that_a_config_has_no_place_for_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", attention_bias=True)
    change_config(folder, attention_bias=False)
    with pytest.raises(InputError, match=r"leaves 8 tensor\(s\) of its weights unused"):
        load_model(folder)


def test_numbers_that_are_no_sizes_may_be_large() -> None:
    fine = {"rope_theta": 1e12, "max_position_embeddings": 10_485_760, "bos_token_id": -1}
    assert beyond_measure(fine) is None
    assert beyond_measure({"text_config": {"num_layers": 10**9}}) is not None
    assert beyond_measure({"rms_norm_eps": 10**4000}) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_size": "/etc/passwd"}, {"vocab_size": None}, {"num_hidden_layers": None},
        {"head_dim": {"a": {}}}, {"head_dim": "-"}, {"architectures": 2},
    ],
)  # fmt: skip
def test_configs_that_lack_a_number_are_refused_by_forecasts_and_merges(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    from repsim.mergeability.features import metadata_features
    from repsim.merging import merge

    folders = [write_tiny_model("llama", tmp_path / name, head=True) for name in "ab"]
    path = folders[1] / "config.json"
    document = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    with pytest.raises(InputError, match=r"contradicts its weights|not the config of a model"):
        metadata_features(folders)
    recipe = {"method": "linear", "models": [str(folder) for folder in folders]}
    with pytest.raises(InputError, match=r"contradicts its weights|not the config of a model"):
        merge(recipe, tmp_path / "out")
