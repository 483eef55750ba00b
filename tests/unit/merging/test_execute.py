"""Merging on disk: the right numbers, in bounded memory, into a whole folder or none."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.core.errors import IncompatibleModelsError, InputError, ResourceError, UsageError
from repsim.merging import execute, merge, output
from repsim.merging.checkpoint import Checkpoint
from repsim.merging.methods import find_method, list_methods

MakeModel = Callable[..., Path]
LINEAR = {"method": "linear", "models": ["a", "b"]}
TOKENS = [f"t{i}" for i in range(16)]
NORM = "model.norm.weight"


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (40, 6), NORM: (6,), "model.layers.0.mlp.w": (9, 6)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "out" in path.name]


def test_a_linear_merge_is_the_weighted_mean(make_model: MakeModel) -> None:
    make_model("a", 0)
    make_model("b", 1)
    models = [{"model": "a", "weight": 0.25}, {"model": "b", "weight": 0.75}]
    folder = merge({"method": "linear", "models": models}, "out", device="cpu")
    merged, a, b = weights(folder), weights("a"), weights("b")
    assert merged.keys() == a.keys()
    for name, tensor in merged.items():
        assert torch.allclose(tensor, 0.25 * a[name] + 0.75 * b[name], atol=1e-7)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((method.name, {}) for method in list_methods() if not method.needs),
    ("ties", {"scope": "model", "density": 0.3}),
    ("ties", {"density": 0.37, "weight": 0.7, "rescale": "l1"}),
    ("nuslerp", {"row_wise": True}),
    ("nuslerp", {"column_wise": True}),
    ("model_stock", {"filter_wise": True}),
    ("sce", {"select_topk": 0.4}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.2}),
]
#: Rest on singular vectors, which numpy and torch compute by libraries of their own.
SPECTRAL = ("tsv_m", "iso_c", "knots")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(("method", "parameters"), VARIANTS)
def test_a_tensor_merged_in_parts_or_by_torch_is_the_tensor_merged_whole(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, method: str,
    parameters: dict[str, Any], dtype: torch.dtype,
) -> None:  # fmt: skip
    for seed, name in enumerate("abc"):
        # Eighths: many differences are equal, and so many entries lie exactly at the cut.
        state = {key: (8 * t).round() / 8 for key, t in tensors_of(seed).items()}
        make_model(name, tensors=state, dtype=dtype)
    names = ["a", "b"][: find_method(method).max_models]
    recipe: dict[str, Any] = {"method": method, "models": names, "parameters": parameters}
    if find_method(method).needs_base:
        recipe["base_model"] = "c"
    whole = weights(merge(recipe, "whole", device="cpu", any_base=True))
    by_torch = weights(merge(recipe, "torch", device="cpu:0", any_base=True))
    monkeypatch.setattr(execute, "PART", 20)
    apart = weights(merge(recipe, "apart", device="cpu", any_base=True))
    for name, tensor in whole.items():
        assert torch.equal(tensor, apart[name])
        if method in SPECTRAL:
            assert torch.allclose(tensor, by_torch[name], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(tensor, by_torch[name])


def test_many_files_hold_what_one_file_holds(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("a", 0)
    make_model("b", 1)
    one = weights(merge(LINEAR, "one", device="cpu"))
    monkeypatch.setattr(output, "SHARD_BYTES", 600)
    folder = merge(LINEAR, "many", device="cpu")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in one.values())
    many = Checkpoint(folder)
    assert all(torch.equal(one[name], many.read(name)) for name in one)
    again = merge({"method": "passthrough", "models": ["many"]}, "joined", device="cpu")
    assert all(torch.equal(one[name], Checkpoint(again).read(name)) for name in one)


def test_sums_of_bfloat16_are_rounded_once(make_model: MakeModel) -> None:
    ones, step = torch.ones(4), torch.full((4,), 1 + 2**-7)
    for name, tensor in (("a", ones), ("b", step)):
        make_model(name, tensors={NORM: tensor}, dtype=torch.bfloat16)
    models = [{"model": "a", "weight": 0.3}, {"model": "b", "weight": 0.7}]
    merged = weights(merge({"method": "linear", "models": models}, "out", device="cpu"))[NORM]
    exact = 0.3 * 1.0 + 0.7 * (1 + 2**-7)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, torch.full((4,), exact).bfloat16())


def test_the_stored_type_is_what_the_recipe_says_and_the_config_follows(
    make_model: MakeModel,
) -> None:
    make_model("a", 0)
    make_model("b", 1)
    folder = merge({**LINEAR, "out_dtype": "bfloat16"}, "out", device="cpu")
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_float64_is_merged_in_float64_if_asked_for(make_model: MakeModel) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed, dtype=torch.float64)
    recipe = {**LINEAR, "parameters": {"weight": 1 / 3}}
    exact = (weights("a")[NORM] + weights("b")[NORM]) / 2
    fine = weights(merge({**recipe, "dtype": "float64"}, "fine", device="cpu"))[NORM]
    coarse = weights(merge(recipe, "coarse", device="cpu"))[NORM]
    assert float((fine - exact).abs().max()) < 1e-15
    assert float((coarse - exact).abs().max()) > 1e-10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_a_parent_is_named_and_nothing_is_left(
    make_model: MakeModel, tmp_path: Path, bad: float
) -> None:
    make_model("a", 0)
    broken = weights("a")
    broken["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
    make_model("b", tensors=broken)
    with pytest.raises(InputError, match=r"'model.layers.1.mlp.up_proj.weight' of model 'b' holds"):
        merge(LINEAR, "out", device="cpu")
    assert left_behind(tmp_path) == []


def test_what_leaves_the_range_of_its_type_is_refused(
    make_model: MakeModel, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    recipe = {**LINEAR, "parameters": {"weight": 1e5, "normalize": False}, "out_dtype": "float16"}
    with pytest.raises(InputError, match="does not fit into F16: it holds NaN or infinity"):
        merge(recipe, "out", device="cpu")
    assert left_behind(tmp_path) == []


def test_a_disk_that_is_full_is_noticed_before_work(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(ResourceError, match=r"is full: the result needs 0.00 GB, 0.00 GB are free"):
        merge(LINEAR, "out", device="cpu")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_becomes_full_is_a_lack_of_resources(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)

    def write(descriptor: int, data: memoryview, start: int) -> int:
        raise OSError(number, "no space left on device")

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(ResourceError, match="is full: the result needs"):
        merge(LINEAR, "out", device="cpu")
    assert left_behind(tmp_path) == []


def test_another_error_of_the_disk_stays_what_it_is(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)

    def write(descriptor: int, data: memoryview, start: int) -> int:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(OSError, match="input/output error"):
        merge(LINEAR, "out", device="cpu")
    assert left_behind(tmp_path) == []


def test_short_writes_are_continued(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    whole = weights(merge(LINEAR, "whole", device="cpu"))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, start: real(fd, data[:100], start))
    short = weights(merge(LINEAR, "short", device="cpu"))
    assert all(torch.equal(whole[name], short[name]) for name in whole)


def test_a_target_is_replaced_only_if_it_is_a_merge_and_that_is_asked_for(
    make_model: MakeModel, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    first = weights(merge(LINEAR, "out", device="cpu"))
    with pytest.raises(UsageError, match="'out' exists.*--force"):
        merge({**LINEAR, "method": "slerp"}, "out", device="cpu")
    second = weights(merge({**LINEAR, "method": "slerp"}, "out", device="cpu", force=True))
    assert not torch.equal(first[NORM], second[NORM])
    assert left_behind(tmp_path) == ["out"]
    with pytest.raises(UsageError, match="'b' is one of the models that are merged"):
        merge(LINEAR, "b", device="cpu", force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else than a merge"):
        merge(LINEAR, "mine", device="cpu", force=True)
    with pytest.raises(UsageError, match=r"then: .*convert_hf_to_gguf.py m --outfile m.gguf"):
        merge({"method": "linear", "models": ["a", "b"]}, "m.gguf")
    with pytest.raises(UsageError, match="is not the name of a new folder"):
        merge(LINEAR, "..", device="cpu", force=True)


def test_two_merges_do_not_write_one_folder(make_model: MakeModel, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    layout = output.lay_out({})
    with (
        output.Output.open(tmp_path / ".out.merging", layout, "other"),
        pytest.raises(UsageError, match="another process is writing"),
    ):
        merge(LINEAR, "out", device="cpu")


def test_an_interrupted_merge_goes_on_where_it_was(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    whole = weights(merge(LINEAR, "whole", device="cpu"))
    real, merged = execute.Job.merge, []

    def until(stop: int) -> Any:
        def one(job: execute.Job, plan: Any, context: Any) -> Any:
            if len(merged) == stop:
                raise KeyboardInterrupt
            merged.append(plan.name)
            return real(job, plan, context)

        return one

    monkeypatch.setattr(execute.Job, "merge", until(3))
    with pytest.raises(KeyboardInterrupt):
        merge(LINEAR, "out", device="cpu")
    assert left_behind(tmp_path) == [".out.merging"]
    monkeypatch.setattr(execute.Job, "merge", until(-1))
    resumed = weights(merge(LINEAR, "out", device="cpu"))
    assert sorted(merged) == sorted(whole)  # none of them twice
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert left_behind(tmp_path) == ["out"]


def test_what_another_recipe_left_is_not_gone_on_with(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    expected = weights(merge({**LINEAR, "method": "karcher"}, "expected", device="cpu"))
    real, count = execute.Job.merge, [0]

    def one(job: execute.Job, plan: Any, context: Any) -> Any:
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        return real(job, plan, context)

    monkeypatch.setattr(execute.Job, "merge", one)
    with pytest.raises(KeyboardInterrupt):
        merge(LINEAR, "out", device="cpu")
    found = weights(merge({**LINEAR, "method": "karcher"}, "out", device="cpu"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_tied_head_is_not_written(make_model: MakeModel) -> None:
    make_model("a", 0, tied=True)
    doubled = weights("a")
    doubled["lm_head.weight"] = doubled["model.embed_tokens.weight"].clone()
    make_model("b", tensors=doubled, config={"tie_word_embeddings": True})
    folder = merge(LINEAR, "out", device="cpu")
    assert "lm_head.weight" not in weights(folder)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True


def test_layers_of_two_models_are_stacked(make_model: MakeModel) -> None:
    kinds = ["full_attention", "sliding_attention", "chunked_attention"]
    make_model("a", 0, layers=3, config={"layer_types": kinds})
    make_model("b", 1, layers=2, config={"layer_types": kinds[1:]})
    models = [{"model": "a", "layers": [1, 3]}, {"model": "b", "layers": [0, 2]}]
    folder = merge({"method": "passthrough", "models": models}, "out", device="cpu")
    found, a, b = weights(folder), weights("a"), weights("b")
    name = "model.layers.{}.mlp.up_proj.weight"
    origins = [(a, 1), (a, 2), (b, 0), (b, 1)]
    for number, (source, layer) in enumerate(origins):
        assert torch.equal(found[name.format(number)], source[name.format(layer)])
    assert torch.equal(found["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], b["lm_head.weight"])
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert config["layer_types"] == [kinds[1], kinds[2], kinds[1], kinds[2]]


def test_rows_are_matched_by_token_if_that_is_asked_for(make_model: MakeModel) -> None:
    turned = [*TOKENS[5:], *TOKENS[:5]]
    make_model("a", 0, tokens=TOKENS)
    make_model("b", 1, tokens=turned)
    with pytest.raises(IncompatibleModelsError, match="16 of 16 tokens differ.*strategy: map"):
        merge(LINEAR, "out", device="cpu")
    recipe = {**LINEAR, "tokenizer": {"strategy": "map"}}
    merged, a, b = weights(merge(recipe, "out", device="cpu")), weights("a"), weights("b")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        for number, token in enumerate(TOKENS):
            expected = (a[name][number] + b[name][turned.index(token)]) / 2
            assert torch.allclose(merged[name][number], expected, atol=1e-7)
    assert torch.allclose(merged[NORM], (a[NORM] + b[NORM]) / 2)
    assert "matched by token" in (Path("out") / "README.md").read_text()


def test_the_vocabulary_may_be_that_of_another_model_and_size(make_model: MakeModel) -> None:
    make_model("a", 0, tokens=TOKENS)
    longer = weights("a")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        longer[name] = torch.cat([torch.ones(2, 8), longer[name]])
    make_model("b", tensors=longer, config={"vocab_size": 18})
    document = {"added_tokens": [{"content": f"<{i}>", "id": i} for i in range(2)],
                "normalizer": None, "pre_tokenizer": None,
                "model": {"type": "BPE", "merges": [],
                          "vocab": {token: i + 2 for i, token in enumerate(TOKENS)}}}  # fmt: skip
    (Path("b") / "tokenizer.json").write_text(json.dumps(document))
    recipe = {
        "merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"weight": 1.0}, "tokenizer_source": "b",
    }  # fmt: skip
    folder = merge(recipe, "out", device="cpu")
    merged = weights(folder)["model.embed_tokens.weight"]
    assert torch.equal(merged, longer["model.embed_tokens.weight"])
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 18
    assert (folder / "tokenizer.json").read_text() == json.dumps(document)


def test_a_vocabulary_that_is_not_known_is_not_matched(make_model: MakeModel) -> None:
    make_model("a", 0, tokens=TOKENS)
    make_model("b", 1)
    recipe = {**LINEAR, "tokenizer": {"strategy": "map"}}
    with pytest.raises(InputError, match="model 'b' has no tokenizer that shows its tokens"):
        merge(recipe, "out", device="cpu")


def test_statistics_are_read_from_the_files_of_the_recipe(make_model: MakeModel) -> None:
    from repsim.merging.statistics import save_statistics

    for seed, name in enumerate("ab"):
        make_model(name, seed)
        information = {key: torch.full_like(t, 1.0 + seed) for key, t in weights(name).items()}
        save_statistics(f"{name}.safetensors", information)
    models = [{"model": name, "statistics": f"{name}.safetensors"} for name in "ab"]
    merged = weights(merge({"method": "fisher", "models": models}, "out", device="cpu"))
    assert torch.allclose(merged[NORM], (weights("a")[NORM] + 2 * weights("b")[NORM]) / 3)
    with pytest.raises(UsageError, match="'fisher' needs Fisher information of every model"):
        merge({"method": "fisher", "models": ["a", "b"]}, "out2", device="cpu")


def test_transforms_are_applied_to_the_model_they_are_for(make_model: MakeModel) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    folder = merge(LINEAR, "out", device="cpu", transforms={"b": lambda name, tensor: -tensor})
    expected = (weights("a")[NORM] - weights("b")[NORM]) / 2
    assert torch.allclose(weights(folder)[NORM], expected, atol=1e-7)
    with pytest.raises(UsageError, match="unknown model of a transform 'bb'.*'b'"):
        merge(LINEAR, "out2", device="cpu", transforms={"bb": lambda name, tensor: tensor})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ResourceError, match="device 'cuda' is not there"):
        merge(LINEAR, "out", device="cuda")


def test_buffers_are_copied_and_must_agree(make_model: MakeModel) -> None:
    ids = {NORM: torch.ones(3), "ids": torch.arange(4)}
    make_model("a", tensors=ids)
    make_model("b", tensors=ids)
    assert weights(merge(LINEAR, "out", device="cpu"))["ids"].tolist() == [0, 1, 2, 3]
    save_file({**ids, "ids": torch.ones(4, dtype=torch.int64)}, Path("b") / "model.safetensors")
    with pytest.raises(IncompatibleModelsError, match="'ids' is no weight and differs between 'a'"):
        merge(LINEAR, "out2", device="cpu")


@pytest.mark.parametrize("damage", ["a tensor", "no journal", "an odd journal", "an empty journal"])
def test_a_merge_goes_on_with_what_is_whole_of_a_killed_one(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    whole = merge(LINEAR, "whole", device="cpu") / "model.safetensors"
    finish, done = output.Output.finish, []

    def interrupt(self: output.Output, tensor: str, **facts: object) -> None:
        finish(self, tensor, **facts)
        done.append(tensor)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output.Output, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            merge(LINEAR, "out", device="cpu")
    work = tmp_path / ".out.merging"
    journal = work / output.JOURNAL
    if damage == "a tensor":
        data = bytearray((work / "model.safetensors").read_bytes())
        start = int.from_bytes(data[:8], "little") + 8
        data[start] ^= 1  # of the first tensor: it is merged first
        (work / "model.safetensors").write_bytes(data)
    elif damage == "no journal":
        journal.unlink()
    else:
        journal.write_bytes(b"" if "empty" in damage else b"[1]\n\xff\xfe\n{}\n")
    found = merge(LINEAR, "out", device="cpu") / "model.safetensors"
    assert found.read_bytes() == whole.read_bytes()
