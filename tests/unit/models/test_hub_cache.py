"""Models of the hub's cache at a revision, as it lies on a disk, without a network."""

from __future__ import annotations

import fnmatch
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import repsim
from repsim.cli.main import cli
from repsim.core.errors import InputError, UsageError
from repsim.models import inspect_model, load_model
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer, write_tiny_model
from tests.planted.held_files import write_tiny_gguf

STEPS = {"step0": "a" * 40, "step1000": "b" * 40}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository with two revisions under refs/ and snapshots/; its id."""
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("network was used"))
    repository = tmp_path / "hub" / "models--org--tiny"
    for seed, (name, commit) in enumerate(STEPS.items()):
        write_tiny_model("llama", repository / "snapshots" / commit, head=True, seed=seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    return "org/tiny"


def test_a_revision_is_part_of_the_name(cached: str) -> None:
    first, last = (inspect_model(f"{cached}@{step}") for step in STEPS)
    assert (first.name, first.path, first.revision) == ("tiny@step0", cached, "step0")
    assert first.weights_hash != last.weights_hash
    assert inspect_model(cached, revision="step1000").weights_hash == last.weights_hash
    assert inspect_model(last).weights_hash == last.weights_hash  # a reference finds it again
    assert inspect_model(f"late={cached}@step1000").name == "late"
    assert load_model(f"{cached}@{STEPS['step0']}").ref.weights_hash == first.weights_hash


def test_gguf_files_of_the_hub_are_models(cached: str, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("c" * 40)
    (folder / "deep").mkdir(parents=True)
    (folder.parents[1] / "refs" / "packed").write_text("c" * 40)
    model = tiny_model("llama", head=True)
    for file in ("a-Q8_0.gguf", "deep/b.gguf"):
        write_tiny_gguf(folder / file, model, tiny_tokenizer())
    alone = inspect_model(f"{cached}@packed")
    assert (alone.name, alone.path, alone.revision) == ("tiny@packed", cached, "packed")
    named = inspect_model(f"{cached}@packed:deep/b.gguf")
    assert (named.name, named.path) == ("b@packed", f"{cached}:deep/b.gguf")
    assert inspect_model(named) == named
    assert inspect_model(f"x={cached}:deep/b.gguf", revision="packed").name == "x"
    assert named.parameters == alone.parameters
    with pytest.raises(InputError, match=r"holds no file 'c.gguf' in the local .*deep/b.gguf"):
        inspect_model(f"{cached}@packed:c.gguf")
    with pytest.raises(InputError, match=r"'model.safetensors' of 'org/tiny' is no GGUF file"):
        inspect_model(f"{cached}@packed:model.safetensors")
    (folder / "b.gguf").write_bytes((folder / "deep" / "b.gguf").read_bytes())
    with pytest.raises(InputError, match=r"holds 2 GGUF files: .*name one of them"):
        inspect_model(f"{cached}@packed")


def test_only_one_gguf_file_is_fetched(cached: str, monkeypatch: pytest.MonkeyPatch,
                                       tmp_path: Path) -> None:  # fmt: skip
    remote, local = tmp_path / "remote", tmp_path / "local"
    model = tiny_model("llama", head=True)
    for folder in (remote, local):
        folder.mkdir()
    write_tiny_gguf(remote / "a.gguf", model, tiny_tokenizer(), per_part=12)
    (remote / "README.md").write_text("a model")

    def listed(*_: object, **__: object) -> list[str]:
        return [path.name for path in remote.iterdir()]

    def fetched(*_: object, allow_patterns: list[str], **__: object) -> str:
        for name in listed():
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                shutil.copyfile(remote / name, local / name)
        return str(local)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", listed)
    found = inspect_model("org/packed", allow_network=True)
    assert (found.name, found.layers) == ("a", 2)
    assert {path.name for path in local.iterdir()} == {n for n in listed() if n != "README.md"}
    write_tiny_gguf(remote / "b.gguf", model, tiny_tokenizer())
    assert inspect_model("org/packed:b.gguf", allow_network=True).name == "b"
    with pytest.raises(InputError, match="'org/packed' holds 2 GGUF files: .*org/packed:"):
        inspect_model("org/packed", allow_network=True)


def test_what_is_not_in_the_cache_is_named_with_what_is(cached: str) -> None:
    with pytest.raises(InputError, match=r"its revision 'step5' is not in the local hub cache "
                       r"\(hint: here are its revisions step0, step1000;"):  # fmt: skip
        inspect_model(f"{cached}@step5")
    with pytest.raises(InputError, match=r"here are its revisions step0, step1000"):
        inspect_model(cached)  # main is not here
    with pytest.raises(UsageError, match="named at revision 'step0' and at 'step1000'"):
        inspect_model(f"{cached}@step0", revision="step1000")
    with pytest.raises(InputError, match=r"model folder './tiny@step0' does not exist"):
        inspect_model("./tiny@step0")


def test_recipes_and_verbs_take_revisions_and_labels(cached: str, tmp_path: Path) -> None:
    parents = [f"early={cached}@step0", f"late={cached}@step1000"]
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump({
        "merge_method": "linear", "dtype": "float32",
        "models": [{"model": {"model": cached, "revision": step}, "parameters": {"weight": 0.5}}
                   for step in STEPS],
    }))  # fmt: skip
    merged = repsim.merge(str(recipe), tmp_path / "merged")
    stated = json.loads((merged / "repsim_provenance.json").read_text())["parents"]
    assert [parent["path"] for parent in stated] == [f"{cached}@{step}" for step in STEPS]
    same = repsim.merge({"method": "linear", "models": parents}, tmp_path / "same")
    assert inspect_model(same).weights_hash == inspect_model(merged).weights_hash

    def run(*args: str) -> Any:
        done = CliRunner().invoke(cli, [*args, "--json"], catch_exceptions=False)
        assert done.exit_code in (0, 4), done.output
        return json.loads(done.stdout)

    checked = run("check", *parents)
    assert "'early' and 'late'" in {finding["where"] for finding in checked["findings"]}
    pair = run("lineage", *parents)["pairs"][0]
    assert (pair["model_a"], pair["model_b"]) == ("early", "late")
    tried = run("models", "--check", cached, "--revision", "step0")
    assert tried["ok"]
    compared = run(
        "compare", cached, f"other={cached}@step1000", "--revision", "step1000", "--limit", "25",
        "-l", "eng_Latn", "-m", "cka", "--permutations", "0", "--dtype", "float64",
    )["summary"][0]  # fmt: skip
    assert (compared["model_a"], compared["model_b"]) == ("tiny@step1000", "other")
    assert compared["middle"] == pytest.approx(1.0)
