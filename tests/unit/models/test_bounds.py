"""What a model asks of the machine is compared with the machine before it is given."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.activations import extract
from repsim.core.config import parse
from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.evaluation import evaluate_bits_per_byte
from repsim.models import bounds, load_causal_lm, load_model
from repsim.models.headers import TensorHeader
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.build import build_model
from repsim.testing.tiny_models import tiny_config, write_tiny_model

CORPUS = ParallelCorpus("two", ("1", "2"), {"eng_Latn": ("A cat zebra.", "Two dogs bark.")})


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "normaliser",
    [
        replaced({"Regex": "."}, "ab" * 5000),
        {"type": "Prepend", "prepend": "ab" * 10_000_000},
        {"type": "Sequence", "normalizers": [replaced({"String": c}, "b" * 9) for c in "abcdefg"]},
    ],
    ids=["multiplied", "prepended", "step by step"],
)
def test_a_tokenizer_that_multiplies_its_input_is_refused_in_seconds(
    normaliser: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    change(folder / "tokenizer.json", normalizer=normaliser)
    began = time.process_time()
    with pytest.raises(InputError, match="characters of one"):
        load_model(folder)
    assert time.process_time() - began < 5


def test_real_normalisers_pass() -> None:
    kept = [{"type": "Prepend", "prepend": "▁"}, replaced({"String": " "}, "▁")]
    chars = {"type": "Precompiled", "precompiled_charsmap": "ALQ"}
    llama = {"type": "Sequence", "normalizers": kept}
    xlm = {"type": "Sequence", "normalizers": [chars, replaced({"Regex": " {2,}"}, " ")]}
    for normaliser in (llama, xlm, {"type": "NFKC"}, None):
        assert bounds.expansion(normaliser) <= 4


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    assert bounds.memory_left() > 1 << 20
    monkeypatch.setattr(bounds, "memory_left", lambda: 1000)
    with pytest.raises(ResourceError, match=r"model 'm' needs .* GB of memory"):
        load_model(folder)


def test_the_memory_needed_is_that_of_the_type_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = [TensorHeader("BF16", (10, 10))]
    monkeypatch.setattr(bounds, "memory_left", lambda: 399)
    bounds.require_memory("m", headers, None)
    with pytest.raises(ResourceError):
        bounds.require_memory("m", headers, 32)


@pytest.mark.parametrize("key", ["layers", "hidden", "heads", "intermediate", "context"])
def test_a_shape_beyond_measure_is_refused_before_it_is_planned(key: str) -> None:
    with pytest.raises(UsageError, match=f"'{key}' is 1e[+]08, must be at most"):
        parse(ArchitectureConfig, {"size": "1m", key: 100_000_000})


def test_a_model_to_train_that_does_not_fit_into_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config("llama")
    monkeypatch.setattr(bounds, "memory_left", lambda: 1000)
    with pytest.raises(ResourceError, match="needs .* GB of memory"):
        build_model(config, 0)


def test_a_token_beyond_the_vocabulary_is_named(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", head=True)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {t: n + 1000 * (t == "z") for t, n in vocabulary.items()}
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"gives token 10\d\d, and its embedding has 272 rows"):
        extract(folder, CORPUS, cache=tmp_path)
    model, tokenizer, _ = load_causal_lm(folder)
    with pytest.raises(InputError, match=r"gives token 10\d\d"):
        evaluate_bits_per_byte(model, tokenizer, ["A zebra."], 16)


def test_a_sentence_of_twenty_megabytes_is_named(tmp_path: Path) -> None:
    corpus = ParallelCorpus("long", ("1", "2"), {"eng_Latn": ("A.", "x" * 20_000_000)})
    with pytest.raises(InputError, match="sentence '2' has 20,000,000 characters"):
        extract(write_tiny_model("llama", tmp_path / "m"), corpus, cache=tmp_path)


def test_an_unknown_activation_is_named(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    change(folder / "config.json", hidden_act="relu7")
    with pytest.raises(InputError, match="relu7"):
        load_model(folder)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    folder = write_tiny_model("llama", tmp_path / "m")
    found = extract(folder, CORPUS, cache=in_the_way / "cache")[0]
    assert torch.from_numpy(found.array("resid", 1)).isfinite().all()
    assert "cannot be written: activations are not kept" in caplog.text


def test_there_is_a_cache_folder_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    from repsim.core.files import cache_folder

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "REPSIM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert cache_folder().name.startswith("repsim-")
