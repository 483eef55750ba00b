"""From model folders to tables and figures: evaluate, barrier, the command line, the harness."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsim.core.errors import IncompatibleModelsError, InputError, ResourceError, UsageError
from repsim.evaluation import (
    BarrierTable,
    EvaluationTable,
    barrier,
    builtin_minimal_pairs,
    evaluate,
    evaluate_bits_per_byte,
    load_evaluation_text,
    score_minimal_pairs,
)
from repsim.evaluation.harness import run_harness, write_tasks
from repsim.models import inspect_model, load_causal_lm
from repsim.testing.tiny_models import write_provenance, write_tiny_model
from tests.planted.commands import exit_code

LINES = ["the cat and the dog", "in the end there", "a man and a hand", "the den", "er in der"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models (the third is untrained too), two texts."""
    base = tmp_path_factory.mktemp("evaluation")
    for name, seed in (("a", 0), ("b", 1), ("mixed", 2)):
        write_tiny_model("llama", base / name, seed=seed, head=True)
    for language in ("eng_Latn", "deu_Latn"):
        for split, times in (("train", 3), ("heldout", 2)):
            text = "\n\n".join(f"{line} {i}" for i in range(times) for line in LINES)
            (base / f"{language}.{split}.txt").write_text(text, encoding="utf-8")
    return base


def options(folder: Path) -> dict[str, Any]:
    return {"corpus": str(folder), "languages": ["eng_Latn", "deu_Latn"], "context": 16}


def test_numbers_are_those_of_the_parts_and_tables_come_back(folder: Path, tmp_path: Path) -> None:
    table = evaluate([folder / "a"], **options(folder))
    loaded = load_causal_lm(folder / "a")
    texts = load_evaluation_text(str(folder), ["eng_Latn"]).texts["eng_Latn"]
    direct = evaluate_bits_per_byte(loaded.model, loaded.tokenizer, texts, 16)
    assert table.value("a", "eng_Latn", "bits_per_byte") == pytest.approx(float(direct))
    row = next(table.where(metric="bits_per_byte").rows())
    assert (row["n_documents"], row["n_bytes"]) == (10, sum(map(len, texts)))
    assert row["ci_low"] < row["value"] < row["ci_high"]
    table.export(tmp_path)
    again = EvaluationTable.load(tmp_path)
    assert list(again.rows()) == list(table.rows())
    assert again.info == table.info
    assert json.loads((tmp_path / "evaluation.json").read_text())["rows"] == list(table.rows())
    with pytest.raises(InputError, match="is not a table of barrier"):
        BarrierTable.load(tmp_path / "evaluation.parquet")


def test_parents_come_from_provenance_or_are_named(folder: Path, tmp_path: Path) -> None:
    merged = write_tiny_model("llama", tmp_path / "merged", seed=3, head=True)
    stated = [{"name": name, "path": str(folder / name), "base": name == "mixed"}
              for name in ("a", "b", "mixed")]  # fmt: skip
    write_provenance(merged, role="merged", parents=stated)
    table = evaluate([merged], **options(folder))
    assert table.unique("model") == ["merged", "a", "b", "mixed"]
    assert table.info["parents"] == {"merged": ["a", "b"]}
    assert table.info["bases"] == {"merged": "mixed"}
    for row in table.where(metric="gain_kept").rows():
        bits = {name: table.value(name, row["language"], "bits_per_byte")
                for name in ("merged", "mixed", row["reference"])}  # fmt: skip
        gained = bits["mixed"] - bits[row["reference"]]
        assert row["value"] == (
            pytest.approx((bits["mixed"] - bits["merged"]) / gained) if gained > 0 else None
        )
    assert set(table.where(metric="retention").unique("model")) == {"merged"}
    named = evaluate([folder / "mixed"], parents=[folder / "a"], **options(folder))
    assert named.info["parents"] == {"mixed": ["a"]}
    # Random models are worse than unigrams: nothing can be retained, and the table says so.
    notes = named.where(metric="retention").column("note")
    assert all("no parent is better than unigrams" in note for note in notes)
    write_provenance(merged, role="merged", parents=[{"name": "x", "path": str(folder / "x")}])
    with pytest.raises(InputError, match="parent 'x' of 'merged' cannot be used"):
        evaluate([merged], **options(folder))
    known = {"name": "x", "path": "x", "weights_hash": inspect_model(folder / "a").weights_hash}
    write_provenance(merged, role="merged", parents=[known])
    beside = evaluate([merged, folder / "a"], **options(folder))
    assert beside.info["parents"] == {"merged": ["a"]}


def test_what_cannot_be_evaluated_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not state their languages"):
        evaluate([folder / "a"], corpus=str(folder))
    with pytest.raises(UsageError, match="two models are called 'a'"):
        evaluate([folder / "a", write_tiny_model("llama", tmp_path / "a", head=True, seed=9)],
                 **options(folder))  # fmt: skip
    with pytest.raises(UsageError, match="takes 128 tokens, not a context of 500"):
        evaluate([folder / "a"], **options(folder) | {"context": 500})
    with pytest.raises(UsageError, match="a context of 0 tokens is not possible"):
        evaluate([folder / "a"], **options(folder) | {"context": 0})
    with pytest.raises(UsageError, match="no merge is among the models"):
        evaluate([folder / "a"], base=folder / "b", **options(folder))
    with pytest.raises(UsageError, match="every model is named as a parent"):
        evaluate([folder / "a"], parents=[folder / "a"], **options(folder))
    with pytest.raises(UsageError, match="there are no models to evaluate"):
        evaluate([])
    encoder = write_tiny_model("bert", tmp_path / "bert")
    with pytest.raises(IncompatibleModelsError, match="does not predict the next token"):
        load_causal_lm(encoder)
    (tmp_path / "empty").mkdir()
    for split in ("train", "heldout"):
        (tmp_path / "empty" / f"eng_Latn.{split}.txt").write_text("")
    with pytest.raises(InputError, match="has no held-out document in eng_Latn"):
        load_evaluation_text(str(tmp_path / "empty"), ["eng_Latn"])


def test_the_path_ends_in_the_models_and_has_its_maximum_over_the_chord(folder: Path) -> None:
    table = barrier(folder / "a", folder / "b", points=3, align="permutation", **options(folder))
    ends = evaluate([folder / "a", folder / "b"], **options(folder))
    for language in ("eng_Latn", "deu_Latn"):
        for alignment, tolerance in (("none", 0.0), ("permutation", 1e-4)):
            path = table.where(metric="bits_per_byte", language=language, alignment=alignment)
            first, middle, last = path.column("value")
            assert first == ends.value("a", language, "bits_per_byte")
            assert last == pytest.approx(ends.value("b", language, "bits_per_byte"), abs=tolerance)
            expected = max(0.0, middle - (first + last) / 2)
            assert table.barrier(language, alignment) == pytest.approx(expected, abs=1e-12)
    assert table.info["alignment"]["permutation"]["output_change"] < 1e-3
    with pytest.raises(UsageError, match="no barrier of eng_Latn with alignment 'orthogonal'"):
        table.barrier("eng_Latn", "orthogonal")


def test_the_barrier_of_a_model_with_itself_is_zero(folder: Path) -> None:
    table = barrier(folder / "a", folder / "a", points=5, **options(folder))
    np.testing.assert_allclose(table.where(metric="barrier").column("value"), 0.0, atol=1e-6)


def test_a_rotated_path_has_the_same_ends(folder: Path) -> None:
    arguments = options(folder) | {"languages": ["eng_Latn"]}
    table = barrier(folder / "a", folder / "b", points=3, align=["orthogonal"], **arguments)
    for t in (0.0, 1.0):
        values = table.where(metric="bits_per_byte", t=t).column("value")
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_paths_that_do_not_exist_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a path of 2 points has no inside"):
        barrier(folder / "a", folder / "b", points=2, **options(folder))
    with pytest.raises(UsageError, match="unknown alignment 'permute'.*permutation"):
        barrier(folder / "a", folder / "b", align="permute", **options(folder))  # type: ignore[arg-type]
    wide = write_tiny_model("llama", tmp_path / "wide", head=True, intermediate_size=64)
    with pytest.raises(IncompatibleModelsError, match=r"gate_proj.weight' is \(48, 32\) in 'a'"):
        barrier(folder / "a", wide, **options(folder))
    other = write_tiny_model("gpt2", tmp_path / "other", head=True)
    with pytest.raises(IncompatibleModelsError, match="missing in 'other'"):
        barrier(folder / "a", other, **options(folder))


def test_the_command_line_writes_tables_and_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--corpus", str(folder), "-l", "eng_Latn", "--context", "16"]
    a, b = str(folder / "a"), str(folder / "b")
    for command in (
        ["evaluate", a, b, *common, "-o", str(tmp_path / "e")],
        ["barrier", a, b, *common, "--points", "3", "-o", str(tmp_path / "b")],
    ):
        assert exit_code(*command) == 0
    said = capsys.readouterr()
    assert "bits/byte eng_Latn" in said.out
    assert "barrier (bits/byte)" in said.out
    assert "floor  eng_Latn" in said.err
    assert f"repsim barrier {a} {b}" in said.err
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "barrier.parquet", "barrier.csv", "barrier.json", "barrier.png", "barrier.svg",
    }  # fmt: skip
    exit_code("evaluate", a, *common, "--json")
    assert json.loads(capsys.readouterr().out)["schema"] == "repsim/evaluation/1"


def test_without_the_harness_its_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ResourceError, match=r"not installed, or not whole.*repsim-lm\[harness\]"):
        run_harness(folder / "a", tmp_path, [])
    with pytest.raises(InputError, match="nothing to make tasks of"):
        write_tasks(tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed"
)
@pytest.mark.filterwarnings("default")
def test_the_harness_agrees_on_documents_that_fit(folder: Path, tmp_path: Path) -> None:
    text = load_evaluation_text(str(folder), ["eng_Latn"])
    pairs = builtin_minimal_pairs("eng_Latn")[:6]
    tasks = write_tasks(tmp_path, text, {"eng_Latn": pairs})
    found = run_harness(folder / "a", tmp_path, tasks, context=128)
    loaded = load_causal_lm(folder / "a")
    ours = evaluate_bits_per_byte(loaded.model, loaded.tokenizer, text.texts["eng_Latn"], 128)
    theirs = found["repsim_bits_per_byte_eng_Latn"]["bits_per_byte"]
    assert theirs == pytest.approx(float(ours), rel=1e-4)
    preferred = score_minimal_pairs(loaded.model, loaded.tokenizer, pairs).accuracy.value
    assert found["repsim_minimal_pairs_eng_Latn"]["acc"] == pytest.approx(preferred)


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    barrier(folder / "a", folder / "b", points=3, **options(folder) | {"languages": ["eng_Latn"]})
    assert torch.equal(before, torch.random.get_rng_state())
