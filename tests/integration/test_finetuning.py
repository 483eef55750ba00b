"""Fine-tuning of models that exist: whole or by an adapter, of any family, resumed, as siblings."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

import repsim
from repsim.cli.main import cli
from repsim.core.errors import IncompatibleModelsError, ResourceError, UsageError
from repsim.evaluation.bits_per_byte import evaluate_bits_per_byte
from repsim.evaluation.text import load_evaluation_text
from repsim.models.causal import load_causal_lm
from repsim.models.inspect import inspect_model
from repsim.models.zoo import zoo_folder
from repsim.pretraining import before_and_after, read_metrics, read_provenance
from repsim.pretraining.config import from_mapping
from repsim.pretraining.loop import Run
from repsim.pretraining.planning import plan
from repsim.testing.tiny_models import write_tiny_model

QUICK: dict[str, Any] = {
    "tokens": 512, "context": 32, "batch": 2, "evaluation_bytes": 3_000, "learning_rate": 1e-2,
    "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def zoo_child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zoo") / "deu"
    repsim.finetune("zoo:eng-1", out, languages=["deu_Latn"], also=["eng_Latn"], **QUICK)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.named_parameters())


def test_the_score_before_is_that_of_the_parent_and_training_helps(zoo_child: Path) -> None:
    scores = before_and_after(zoo_child)
    folder = zoo_folder("zoo:eng-1")
    text = load_evaluation_text("bible", ["deu_Latn"])
    documents = text.texts["deu_Latn"]
    limit = np.searchsorted(np.cumsum([len(t.encode()) for t in documents]), 3_000, side="right")
    parent = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone = evaluate_bits_per_byte(parent, tokenizer, documents[: max(1, int(limit))], 32)
    assert scores["deu_Latn"]["before"] == pytest.approx(float(alone), rel=1e-5)
    assert scores["deu_Latn"]["after"] < scores["deu_Latn"]["before"] - 0.1
    assert scores["eng_Latn"]["after"] != scores["eng_Latn"]["before"]


def test_the_folder_holds_a_model_its_tokenizer_and_its_parent(zoo_child: Path) -> None:
    parent = repsim.load_model("zoo:eng-1").ref
    child = repsim.load_model(zoo_child).ref
    assert child.tokenizer_hash == parent.tokenizer_hash
    assert (child.role, child.forked_from) == ("fine-tuned", parent.weights_hash)
    provenance = read_provenance(zoo_child)
    assert provenance is not None
    assert provenance["init_from"]["weights_hash"] == parent.weights_hash
    assert [phase["run"] for phase in provenance["history"]] == ["eng-1", "deu"]
    assert str(zoo_child.parent) not in json.dumps(provenance)
    assert not (zoo_child / "training").exists()


def test_children_of_a_model_of_unknown_history_are_siblings(tmp_path: Path) -> None:
    from repsim.mergeability.features.metadata import metadata_features

    parent = write_tiny_model("llama", tmp_path / "parent", head=True)
    for language in ("deu_Latn", "fra_Latn"):
        repsim.finetune(str(parent), tmp_path / language, languages=[language], **QUICK)
    found = metadata_features([tmp_path / "deu_Latn", tmp_path / "fra_Latn"]).as_dict()
    assert found["shared_init"] == 1.0
    assert np.isnan(found["fork_fraction"])


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_neox", "cohere", "opt", "granite"])
def test_any_family_learns_and_every_one_of_its_weights_moves(family: str, tmp_path: Path) -> None:
    parent = write_tiny_model(family, tmp_path / "parent", head=True)
    out = tmp_path / "child"
    repsim.finetune(str(parent), out, languages=["eng_Latn"], **QUICK)
    before, after = weights(parent), weights(out)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    score = before_and_after(out)["eng_Latn"]
    assert score["after"] < score["before"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # gpt2 stores its matrices transposed
def test_an_adapter_is_what_peft_reads_and_is_merged_exactly(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    parent = write_tiny_model(family, tmp_path / "parent", head=True)
    out = tmp_path / "child"
    repsim.finetune(
        str(parent), out, languages=["eng_Latn"], lora={"rank": 3, "alpha": 5.0}, **QUICK
    )
    x = torch.arange(5, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    plain = base(x).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        attached = PeftModel.from_pretrained(base, out / "adapter").eval()(x).logits
    merged = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(x).logits
    assert torch.allclose(attached, merged, atol=1e-5)
    # The adapter alone is a model too: it finds its base and states its history.
    alone = load_causal_lm(out / "adapter")
    assert torch.allclose(alone.model(x).logits, merged, atol=1e-5)
    assert (alone.ref.name, alone.ref.languages) == ("child-adapter", ("eng_Latn",))
    assert alone.ref.forked_from == inspect_model(parent).weights_hash
    assert (plain - merged).abs().max() > 1e-3
    moved = {n for n, w in weights(out).items() if not torch.equal(w, weights(parent)[n])}
    assert moved
    assert all(w.ndim == 2 for n, w in weights(out).items() if n in moved)
    settings = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (3, 5.0)
    assert str(tmp_path) not in json.dumps(settings)


@pytest.mark.parametrize("lora", [None, {}], ids=["whole", "adapter"])
def test_a_stopped_call_goes_on_to_the_same_weights(
    lora: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = QUICK | {"tokens": 1_280, "lora": lora, "languages": ["eng_Latn"]}
    parent = str(write_tiny_model("llama", tmp_path / "parent", head=True))
    repsim.finetune(parent, tmp_path / "a" / "child", **settings)
    true_log = Run._log

    def stopped(self: Run, tokens: int) -> None:
        if self.step == 13:
            raise KeyboardInterrupt
        true_log(self, tokens)

    monkeypatch.setattr(Run, "_log", stopped)
    with pytest.raises(KeyboardInterrupt):
        repsim.finetune(parent, tmp_path / "b" / "child", **settings)
    monkeypatch.undo()
    repsim.finetune(parent, tmp_path / "b" / "child", **settings)
    first, again = weights(tmp_path / "a" / "child"), weights(tmp_path / "b" / "child")
    assert all(torch.equal(first[name], again[name]) for name in first)
    rows = [read_metrics(tmp_path / x / "child" / "metrics.jsonl") for x in "ab"]
    assert rows[0] == rows[1]


def test_a_family_in_yaml_starts_from_a_model_and_forks(tmp_path: Path) -> None:
    parent = write_tiny_model("qwen2", tmp_path / "parent", head=True)
    config = from_mapping(
        {
            "name": "doses",
            "corpus": {"source": "bible", "languages": ["eng_Latn", "deu_Latn"],
                       "max_bytes": 60_000},
            "init_from": str(parent),
            "architecture": {"context": 32},
            "training": {"steps": 4, "learning_rate": 1e-3, "lora": {"rank": 2}},
            "saving": {"final_bytes": 2_000, "validation_bytes": 2_000, "checkpoints": "none"},
            "runs": [
                {"name": "eng", "languages": ["eng_Latn"]},
                {"name": "more", "languages": ["deu_Latn"], "steps": 2,
                 "fork": {"from": "eng", "at": 1.0}},
            ],
        }
    )  # fmt: skip
    assert [run.role for run in plan(config)] == ["fine-tuned", "fine-tuned"]
    eng, more = repsim.pretrain(config, tmp_path / "out", device="cpu")
    first, second = weights(Path(eng.path)), weights(Path(more.path))
    distance = sum((first[n] - second[n]).norm().item() for n in first)
    travelled = sum((first[n] - w).norm().item() for n, w in weights(parent).items())
    assert 0 < distance < travelled


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "context": ({"context": 4096}, UsageError, "takes 128 tokens"),
    "target": ({"lora": {"targets": ["nothing"]}}, UsageError, "adapter does not fit"),
    "rank": ({"lora": {"rank": 0}}, UsageError, "rank' is 0"),
    "language": ({"languages": ["xxx_Latn"]}, UsageError, "xxx_Latn"),
    "no language": ({"languages": []}, UsageError, "no language"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    changed, error, words = BAD[case]
    parent = write_tiny_model("llama", tmp_path / "parent", head=True)
    settings = QUICK | {"languages": ["eng_Latn"]} | changed
    with pytest.raises(error, match=words):
        repsim.finetune(str(parent), tmp_path / "child", **settings)


def test_an_encoder_and_a_folder_in_use_are_refused(
    zoo_child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = write_tiny_model("bert", tmp_path / "bert")
    with pytest.raises(IncompatibleModelsError, match="does not predict"):
        repsim.finetune(str(encoder), tmp_path / "child", languages=["eng_Latn"])
    with pytest.raises(UsageError, match="other settings"):
        repsim.finetune("zoo:eng-1", zoo_child, languages=["fra_Latn"])
    with pytest.raises(UsageError, match="not empty"):
        repsim.finetune("zoo:eng-1", tmp_path, languages=["eng_Latn"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ResourceError, match="not installed"):
        repsim.finetune("zoo:eng-1", tmp_path / "a", languages=["eng_Latn"], lora={}, **QUICK)


def test_the_verb_plans_trains_and_prints_before_and_after(tmp_path: Path) -> None:
    command = ["finetune", "zoo:deu-1", "-l", "tgl_Latn", "--tokens", "256", "--context", "64",
               "--batch", "2", "--evaluation-bytes", "2000", "-o",
               str(tmp_path / "tgl")]  # fmt: skip
    planned = CliRunner().invoke(cli, [*command, "--dry-run", "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["steps"] == 2
    assert not (tmp_path / "tgl").exists()
    done = CliRunner().invoke(cli, [*command, "--json"])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)["bits_per_byte"]["tgl_Latn"]
    assert set(scores) == {"before", "after", "unigram floor"}
    again = CliRunner().invoke(cli, command)
    assert again.exit_code == 0
    assert "tgl_Latn" in again.stdout
