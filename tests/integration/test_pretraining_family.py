"""Whole runs of the smallest family: what is written, resumed, refused."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.pretraining import checkpoint
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.family import pretrain
from repsim.pretraining.folder import model_ref, read_provenance
from repsim.pretraining.loop import DivergedError
from repsim.pretraining.metrics import read_metrics
from repsim.pretraining.step import Engine

Make = Callable[..., FamilyConfig]
RUNS: list[dict[str, Any]] = [
    {"name": "eng", "languages": ["eng_Latn"], "init_seed": 1},
    {"name": "deu", "languages": ["deu_Latn"], "init_seed": 1},
    {"name": "mixed", "languages": ["eng_Latn", "deu_Latn"], "init_seed": 2, "data_seed": 4},
    {"name": "fork", "languages": ["deu_Latn"], "fork": {"from": "mixed", "at": 0.75}},
    {"name": "bare", "languages": ["deu_Latn"],
     "fork": {"from": "mixed", "at": 0.75, "state": "weights"}},
    {"name": "dose", "languages": ["eng_Latn"], "steps": 2, "fork": {"from": "mixed", "at": 1.0}},
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, family: Make) -> Path:
    """A family with every kind of history, trained once."""
    saving = {"state_every": 3, "log_every": 3, "validation_bytes": 500}
    config = family(saving=saving, runs=RUNS)
    out = tmp_path_factory.mktemp("family")
    refs = pretrain(config, out, device="cpu")
    assert [ref.name for ref in refs] == [run["name"] for run in RUNS]
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_models_load_as_they_are(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in (trained / "eng", trained / "eng" / "checkpoints" / "step-000000"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("aei ou", return_tensors="pt")["input_ids"]
        assert ids[0, 0] == tokenizer.bos_token_id == model.config.bos_token_id
        assert model.generation_config.eos_token_id == tokenizer.bos_token_id  # text has no <eos>
        assert model(input_ids=ids).logits.shape[-1] == 384
        stored = weights(folder)
        assert all(torch.equal(model.state_dict()[name], stored[name]) for name in stored)


def test_provenance_states_the_whole_history(trained: Path) -> None:
    ref = model_ref(trained / "fork")
    assert (ref.role, ref.languages, ref.init_seed, ref.data_seed) == (
        "monolingual", ("deu_Latn",), 2, 4,
    )  # fmt: skip
    assert (ref.forked_from, ref.fork_step, ref.width, ref.layers) == ("mixed", 6, 16, 2)
    assert model_ref(trained / "mixed").role == "mixed"
    document = read_provenance(trained / "fork")
    assert document is not None
    phases = [(p["run"], p["first_step"], p["last_step"]) for p in document["history"]]
    assert phases == [("mixed", 0, 6), ("fork", 6, 8)]
    assert document["tokens"] == 8 * 4 * 16
    assert set(document["bits_per_byte"]) == {"eng_Latn", "deu_Latn"}
    assert set(document["unigram_floor"]) == {"eng_Latn", "deu_Latn"}
    card = (trained / "fork" / "README.md").read_text()
    assert "| mixed | 0 to 6 |" in card
    assert f"| deu_Latn | {document['bits_per_byte']['deu_Latn']:.3f} |" in card
    assert '\nlicense: "unknown"\n' in card
    assert document["checkpoints"] == [6, 7, 8]
    assert 'hf upload ORGANISATION/NAME "$step"' in card
    assert str(trained) not in json.dumps(document) + card.replace(document["corpus"]["source"], "")


def test_bits_per_byte_are_those_of_the_model_on_disk(trained: Path, corpus: Path) -> None:
    from transformers import AutoModelForCausalLM

    from repsim.corpora.tokenizers import load_tokenizer
    from repsim.evaluation.bits_per_byte import evaluate_bits_per_byte

    text = (corpus / "eng_Latn.heldout.txt").read_text(encoding="utf-8").strip().split("\n\n")
    model = AutoModelForCausalLM.from_pretrained(trained / "eng")
    measured = evaluate_bits_per_byte(model, load_tokenizer(trained / "eng"), text, 16)
    document = read_provenance(trained / "eng")
    assert document is not None
    assert float(measured) == pytest.approx(document["bits_per_byte"]["eng_Latn"], rel=1e-5)


def test_training_helps_its_own_language(trained: Path) -> None:
    rows = read_metrics(trained / "eng" / "metrics.jsonl")
    scores = [row["eng_Latn"] for row in rows if row["kind"] == "validation"]
    assert scores[-1] < scores[0] - 0.2
    losses = [row["step"] for row in rows if row["kind"] == "train"]
    assert losses == list(range(1, 9))


def test_the_same_init_seed_is_the_same_beginning(trained: Path) -> None:
    names = ("eng", "deu", "mixed")
    first = {name: trained / name / "checkpoints" / "step-000000" for name in names}
    assert equal(first["eng"], first["deu"])
    assert not equal(first["eng"], first["mixed"])


def test_a_fork_begins_where_its_trunk_stood(trained: Path) -> None:
    trunk = trained / "mixed" / "checkpoints" / "step-000006"
    assert equal(trained / "fork" / "checkpoints" / "step-000006", trunk)
    assert equal(trained / "bare" / "checkpoints" / "step-000006", trunk)
    assert not equal(trained / "fork", trained / "bare")
    assert equal(trained / "dose" / "checkpoints" / "step-000008", trained / "mixed")


def test_the_engine_that_runs_share_leaves_no_trace(
    trained: Path, family: Make, tmp_path: Path
) -> None:
    config = family(runs=[RUNS[2]], saving={"log_every": 1})
    pretrain(config, tmp_path, device="cpu")
    assert equal(tmp_path / "mixed", trained / "mixed")


def test_what_is_complete_is_not_done_again(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = family()
    pretrain(config, tmp_path, device="cpu")

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Engine, "step", never)
    assert [ref.name for ref in pretrain(config, tmp_path, device="cpu")] == ["eng"]
    with pytest.raises(AssertionError, match="trained again"):
        pretrain(config, tmp_path, device="cpu", resume=False)


def test_a_folder_of_another_configuration_is_refused(family: Make, tmp_path: Path) -> None:
    pretrain(family(saving={"keep_state": True}), tmp_path, device="cpu")
    other = {"steps": 8, "batch": 4, "learning_rate": 2e-2}
    with pytest.raises(UsageError, match="holds a model of another configuration"):
        pretrain(family(training=other), tmp_path, device="cpu")
    (tmp_path / "eng" / "repsim_provenance.json").unlink()
    with pytest.raises(UsageError, match="holds a run of another configuration"):
        pretrain(family(training=other), tmp_path, device="cpu")
    with pytest.raises(UsageError, match="holds training data of another corpus or tokenizer"):
        pretrain(family(tokenizer={"kind": "bytes"}), tmp_path, device="cpu")


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_its_state(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Engine.step

    calls: list[int] = []

    def broken(
        self: Engine, windows: torch.Tensor, rate: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        loss, norm = step(self, windows, rate)
        return (loss * float("nan"), norm) if len(calls) == 6 else (loss, norm)

    monkeypatch.setattr(Engine, "step", broken)
    message = r"loss is nan at step 6 \(learning rate 0.01\); the last good state is step 4"
    with pytest.raises(DivergedError, match=message):
        pretrain(family(), tmp_path, device="cpu")
    rows = read_metrics(tmp_path / "eng" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"][-1] == 5
    monkeypatch.undo()
    pretrain(family(), tmp_path, device="cpu")
    pretrain(family(), tmp_path / "whole", device="cpu")
    assert equal(tmp_path / "eng", tmp_path / "whole" / "eng")


def test_a_full_disk_ends_the_run_and_resuming_gives_the_same_curve(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(family(), whole, device="cpu")
    write = checkpoint.write_json

    def full(path: Path, document: Any) -> Path:
        if document.get("step") == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, document)

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(ResourceError, match="the training state of step 6 could not be written"):
        pretrain(family(), cut, device="cpu")
    monkeypatch.undo()
    pretrain(family(), cut, device="cpu")
    assert equal(whole / "eng", cut / "eng")
    curves = [(f / "eng" / "metrics.jsonl").read_bytes() for f in (whole, cut)]
    assert curves[0] == curves[1]


def test_a_run_that_was_killed_while_it_finished_is_finished(family: Make, tmp_path: Path) -> None:
    pretrain(family(), tmp_path, device="cpu")
    run = tmp_path / "eng"
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "model.safetensors")}
    (run / "repsim_provenance.json").unlink()
    (run / "model.safetensors").unlink()
    pretrain(family(), tmp_path, device="cpu")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_disk_that_is_full_for_metrics_is_a_full_disk(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("repsim.pretraining.metrics.Metrics.flush", full)
    with pytest.raises(ResourceError, match="disk is full: the files of run 'eng' could not be"):
        pretrain(family(), tmp_path, device="cpu")


def test_a_missing_shard_is_made_anew(family: Make, tmp_path: Path) -> None:
    first = pretrain(family(), tmp_path, device="cpu")
    shard = tmp_path / "shards" / "shared" / "eng_Latn.train.bin"
    whole = shard.read_bytes()
    shard.unlink()
    (tmp_path / "eng" / "repsim_provenance.json").unlink()
    again = pretrain(family(), tmp_path, device="cpu", resume=False)
    assert shard.read_bytes() == whole
    assert [ref.weights_hash for ref in again] == [ref.weights_hash for ref in first]


def test_a_trunk_that_kept_nothing_is_named(family: Make, tmp_path: Path) -> None:
    runs = [RUNS[2], RUNS[3]]
    pretrain(family(runs=runs), tmp_path, device="cpu", only=["mixed"])
    shutil.rmtree(tmp_path / "mixed" / "forks")
    assert not (tmp_path / "mixed" / "state").exists()
    with pytest.raises(InputError, match="run 'mixed' kept no training state of step 6"):
        pretrain(family(runs=runs), tmp_path, device="cpu")
    refs = pretrain(family(runs=[RUNS[2], RUNS[4]]), tmp_path, device="cpu", only=["bare"])
    assert [ref.name for ref in refs] == ["mixed", "bare"]


def test_stored_bfloat16_weights_are_the_ones_that_were_measured(
    family: Make, tmp_path: Path
) -> None:
    config = family(saving={"dtype": "bfloat16", "checkpoints": "none", "validation_bytes": 0})
    pretrain(config, tmp_path, device="cpu")
    stored = weights(tmp_path / "eng")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "eng" / "config.json").read_text())["dtype"] == "bfloat16"
    assert not (tmp_path / "eng" / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["per-language", "bytes"])
def test_other_tokenizers_and_the_other_architecture(
    family: Make, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    shape = {"family": "gpt2", "hidden": 16, "layers": 2, "heads": 2, "context": 16, "tied": False}
    config = family(tokenizer={"kind": kind, "vocab_size": 280}, architecture=shape, runs=RUNS[:2])
    refs = pretrain(config, tmp_path, device="cpu")
    assert (refs[0].tokenizer_hash == refs[1].tokenizer_hash) == (kind == "bytes")
    model = AutoModelForCausalLM.from_pretrained(refs[1].path)
    assert model.lm_head.weight.data_ptr() != model.transformer.wte.weight.data_ptr()
    document = read_provenance(refs[1].path)
    assert document is not None
    assert set(document["bits_per_byte"]) == {"eng_Latn", "deu_Latn"}


def test_a_run_is_trained_by_one_process_at_a_time(family: Make, tmp_path: Path) -> None:
    from repsim.core.aside import locked

    refused = pytest.raises(UsageError, match="another process is training 'eng'")
    with locked(tmp_path / ".locks" / "eng", "busy"), refused:
        pretrain(family(), tmp_path, device="cpu")


def test_the_command_prints_folders_and_leaves_with_the_errors_code(
    document: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from repsim.pretraining.__main__ import main

    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(document()), encoding="utf-8")
    out = str(tmp_path / "out")
    assert main([str(path), "-o", out, "--dry-run"]) == 0
    assert "eng\teng_Latn\tsteps 0-8\t512 tokens" in capsys.readouterr().out
    assert main([str(path), "-o", out, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{out}/eng\n"
    assert main([str(path), "-o", out, "--only", "fra"]) == 2
    assert "unknown run 'fra'" in capsys.readouterr().err
