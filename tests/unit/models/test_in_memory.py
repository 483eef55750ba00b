"""A loaded module goes wherever a path goes, gives the same numbers, and is left as it was."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import repsim
from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.model_ref import ModelRef
from repsim.merging import check_models
from repsim.merging.checkpoint import Checkpoint
from repsim.models import inspect_model, load_causal_lm, load_model, named_models
from repsim.models.identity import weights_in_memory
from repsim.models.inspect import locate
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer, write_tiny_model

Pair = tuple[Any, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def tokenizer() -> Any:
    return tiny_tokenizer("<s> $A")


@pytest.fixture
def pair() -> Pair:
    return tiny_model("llama", head=True), tiny_model("llama", head=True, seed=1)


def _train_a_step(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=torch.arange(4, 12)[None], labels=torch.arange(4, 12)[None]).loss.backward()
    optimizer.step()


def test_modules_and_folders_of_the_same_weights_give_the_same_numbers(
    pair: Pair, tokenizer: Any, tmp_path: Path
) -> None:
    folders = [write_tiny_model("llama", tmp_path / n, head=True, seed=i)
               for i, n in enumerate("ab")]  # fmt: skip
    asked: dict[str, Any] = {
        "corpus": "kolibri", "languages": ["eng_Latn"], "limit": 30, "measures": ["cka"],
        "permutations": 0,
    }  # fmt: skip
    held = repsim.compare(list(pair), names=["a", "b"], tokenizer=tokenizer, **asked)
    named = repsim.compare({"a": folders[0], "b": (pair[1], tokenizer)}, **asked)
    stored = repsim.compare(folders, **asked)
    for table in (held, named):
        assert table.column("value").tolist() == stored.column("value").tolist()

    alone = repsim.compare([pair[0]], tokenizer=tokenizer, **asked)  # its own layers
    grid = alone.grid("LlamaForCausalLM", "LlamaForCausalLM", measure="cka").values
    assert grid.shape == (3, 3)
    assert (grid == grid.T).all()

    text: dict[str, Any] = {"languages": ["eng_Latn"], "max_bytes": 5_000, "context": 32}
    scores = [
        repsim.evaluate(models, **more, **text).where(metric="bits_per_byte").column("value")
        for models, more in (({"a": pair[0], "b": pair[1]}, {"tokenizer": tokenizer}),
                             (folders, {}))
    ]  # fmt: skip
    assert scores[0].tolist() == scores[1].tolist()


def test_a_module_is_left_as_it_was(pair: Pair, tokenizer: Any) -> None:
    model = pair[0].train()
    before = weights_in_memory(model)
    loaded = load_causal_lm((model, tokenizer))
    assert not loaded.model.training
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    own = loaded.model.get_submodule("model.layers.0.mlp.up_proj").weight
    assert own.data_ptr() == model.model.layers[0].mlp.up_proj.weight.data_ptr()
    read = Checkpoint(locate(model).folder).read("model.norm.weight")
    read.mul_(2)
    repsim.diagnose(
        (model, tokenizer), [(m, tokenizer) for m in pair], languages=["eng_Latn"],
        max_bytes=5_000, context=32, forecast=False,
    )  # fmt: skip
    assert weights_in_memory(model) == before
    assert not any(m._forward_hooks for m in model.modules())
    _train_a_step(model)


def test_training_gives_new_weights_and_new_activations(pair: Pair, tokenizer: Any) -> None:
    corpus = repsim.load_corpus("kolibri", languages=["eng_Latn"], limit=20)
    model = pair[0]

    def last() -> tuple[Any, bool]:
        found = repsim.extract(model, corpus, tokenizer=tokenizer)[0]
        return found.array("resid", 2), found.info["cached"]

    ref, (first, cached), (again, known) = inspect_model(model), last(), last()
    assert (first == again).all()
    assert (cached, known) == (False, True)
    _train_a_step(model)
    after, cached = last()
    assert (after != first).any()
    assert not cached
    assert inspect_model(model).weights_hash != ref.weights_hash
    with pytest.raises(InputError, match="changed in memory since it was inspected"):
        load_model(ref)


def test_writing_past_the_version_counter_is_noticed(pair: Pair) -> None:
    before = inspect_model(pair[0]).weights_hash
    pair[0].model.norm.weight.data.mul_(2.0)
    assert inspect_model(pair[0]).weights_hash != before


@pytest.mark.parametrize("kind", ["llama+tied", "gpt2", "bert", "mt5"])
def test_weights_have_the_names_that_a_folder_gives_them(kind: str, tmp_path: Path) -> None:
    head = kind != "mt5"
    folder = write_tiny_model(kind, tmp_path / "m", head=head)
    stored = Checkpoint(folder)
    model = tiny_model(kind, head=head)
    held = Checkpoint(locate(model).folder)
    assert held.headers == stored.headers
    assert all(torch.equal(held.read(name), stored.read(name)) for name in stored.headers)


def test_a_model_without_a_head_or_tokenizer_does_what_it_can(pair: Pair, tokenizer: Any) -> None:
    base = pair[0].model
    assert inspect_model(base, label="mine").name == "mine"
    assert load_model((base, tokenizer)).spec.name == "llama"
    assert not [f for f in check_models(list(pair)) if f.level == "error"]
    assert repsim.lineage({"a": pair[0], "b": pair[1]}).relation("a", "b") == "unrelated"
    with pytest.raises(IncompatibleModelsError, match="without the head that predicts"):
        load_causal_lm((base, tokenizer))
    with pytest.raises(InputError, match="came without its tokenizer"):
        load_model(pair[0])


def test_types_and_wrappers(pair: Pair, tokenizer: Any) -> None:
    half = pair[0].to(torch.bfloat16)
    assert load_model((half, tokenizer)).model.dtype == torch.bfloat16
    assert load_model((half, tokenizer), dtype="float32").model.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert inspect_model(nn.DataParallel(half)).architecture == "llama"


def test_names(pair: Pair, tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    unnamed = named_models([*pair, folder])
    assert [ref.name for ref in unnamed[:2] if isinstance(ref, ModelRef)] == [
        "LlamaForCausalLM (1)", "LlamaForCausalLM (2)"]  # fmt: skip
    assert unnamed[2] == folder
    assert named_models({"x": folder}) == [ModelRef("x", str(folder))]
    assert inspect_model(f"x={folder}").name == "x"
    odd = write_tiny_model("llama", tmp_path / "lr=1e-4")
    assert inspect_model(str(odd)).name == "lr=1e-4"
    with pytest.raises(UsageError, match="1 names for 2 models"):
        named_models(list(pair), ["a"])
    with pytest.raises(UsageError, match="2 tokenizers for 1 models"):
        named_models([pair[0]], tokenizer=[1, 2])
    with pytest.raises(UsageError, match="one model stands where a list"):
        named_models(pair[0])


def test_what_is_no_model_is_named(pair: Pair, tokenizer: Any) -> None:
    with pytest.raises(IncompatibleModelsError, match=r"Linear 'Linear' has no config"):
        inspect_model(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="tokenizer of model 'LlamaForCausalLM' is int"):
        inspect_model((pair[0], 3))
    with pytest.raises(UsageError, match="int is no model"):
        inspect_model(3)
    with torch.device("meta"):
        empty = tiny_model("llama")
    with pytest.raises(InputError, match="weights that are not in memory"):
        inspect_model(empty)
    model = tiny_model("llama")
    ref = inspect_model(model)
    del model
    gc.collect()
    with pytest.raises(InputError, match="was in memory and is gone"):
        load_model(ref)
