"""A finished run is held against its own checksums; what is damaged is made anew, to the byte."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from repsim.pretraining import pretrain
from repsim.pretraining.config import FamilyConfig

MODEL = ("model.safetensors", "config.json", "tokenizer.json", "repsim_provenance.json")


@pytest.fixture(scope="module")
def whole() -> dict[str, Path]:
    """The undisturbed run, made once."""
    return {}


def results(out: Path) -> dict[str, bytes]:
    names = (*MODEL, "metrics.jsonl")
    paths = [path for path in sorted((out / "eng").rglob("*")) if path.name in names]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("eng/model.safetensors", "cut"),
        ("eng/config.json", "flip"),
        ("eng/tokenizer.json", "empty"),
        ("eng/repsim_provenance.json", "empty"),
        ("eng/repsim_provenance.json", "edit"),
        ("eng/checkpoints/step-000004/model.safetensors", "flip"),
        ("eng/checkpoints/step-000004/tokenizer.json", "cut"),
        ("shards/shared/manifest.json", "empty"),
        ("shards/shared/eng_Latn.train.bin", "flip"),
        ("tokenizers/shared/tokenizer.json", "cut"),
        ("data.json", "empty"),
    ],
)
def test_what_is_damaged_of_a_finished_run_is_made_anew_to_the_byte(
    family: Callable[..., FamilyConfig], whole: dict[str, Path], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture,
    file: str, damage: str,
) -> None:  # fmt: skip
    if not whole:
        whole["out"] = tmp_path_factory.mktemp("whole")
        pretrain(family(), whole["out"], device="cpu")
    out = tmp_path / "out"
    shutil.copytree(whole["out"], out)
    data = bytearray((out / file).read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "edit":
        document = json.loads(data) | {"bits_per_byte": {"eng_Latn": 0.1}}
        data = bytearray(json.dumps(document).encode())
    else:
        data = bytearray()
    (out / file).write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="repsim.pretraining"):
        pretrain(family(), out, device="cpu")
    assert Path(file).name in caplog.text
    assert results(out) == results(whole["out"])


def test_a_damaged_curve_is_told_and_kept(
    family: Callable[..., FamilyConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(family(), tmp_path, device="cpu")
    metrics = tmp_path / "eng" / "metrics.jsonl"
    text = metrics.read_text().replace("1", "2", 1)
    metrics.write_text(text)
    pretrain(family(), tmp_path, device="cpu")
    assert "metrics.jsonl' is damaged" in caplog.text
    assert metrics.read_text() == text
