"""Merges broken on purpose: the cause is named, and the part that was broken restores the loss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.mergeability.diagnosis import CAUSES, Diagnosis, diagnose
from repsim.merging.align.twins import planted_twin
from repsim.merging.to_disk import merge
from repsim.models import load_causal_lm
from repsim.models.zoo import zoo_folder
from tests.planted.commands import exit_code

State = dict[str, torch.Tensor]
FORKS = ("zoo:eng-fork", "zoo:deu-fork")


def weights(name: str) -> State:
    return {
        k: t.float() for k, t in load_file(zoo_folder(f"zoo:{name}") / "model.safetensors").items()
    }


def write(
    folder: Path, state: State, *, config: Callable[[Any], None] = lambda c: None,
    tokenizer: Callable[[Any], None] | None = None,
) -> Path:  # fmt: skip
    shutil.copytree(zoo_folder("zoo:eng-fork"), folder)
    (folder / "repsim_provenance.json").unlink()
    save_file({k: t.contiguous() for k, t in state.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    for file, change in (("config.json", config), ("tokenizer.json", tokenizer)):
        if change:
            document = json.loads((folder / file).read_text())
            change(document)
            (folder / file).write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def zoo() -> dict[str, State]:
    return {
        name: weights(name) for name in ("eng-fork", "deu-fork", "mixed", "eng-1", "eng-2", "deu-1")
    }


@pytest.fixture(scope="module")
def mean(zoo: dict[str, State]) -> State:
    return {k: (t + zoo["deu-fork"][k]) / 2 for k, t in zoo["eng-fork"].items()}


def told(merge: Path, parents: tuple[str, ...] = FORKS, base: str | None = None) -> Diagnosis:
    return diagnose(
        merge, parents, base=base, languages=["eng_Latn"], max_bytes=8000, forecast=False
    )


def named(found: Diagnosis) -> str:
    assert found.broken
    return found.causes[0][0]


def test_a_good_merge_is_whole(mean: State, tmp_path: Path) -> None:
    found = told(write(tmp_path / "m", mean))
    assert not found.broken
    assert found.causes == ()


def test_ids_that_stand_for_other_tokens(mean: State, tmp_path: Path) -> None:
    def shuffled(document: Any) -> None:
        vocabulary = document["model"]["vocab"]
        tokens = [token for token, number in vocabulary.items() if number >= 300]
        ids = [vocabulary[token] for token in tokens]
        vocabulary.update(zip(tokens, ids[7:] + ids[:7], strict=True))

    found = told(write(tmp_path / "m", mean, tokenizer=shuffled))
    assert named(found) == "tokenizer"
    assert found.case.restored("tokenizer") > 0.8


@pytest.mark.parametrize("key", ["rope", "eps"])
def test_a_config_that_computes_something_else(mean: State, tmp_path: Path, key: str) -> None:
    def change(config: Any) -> None:
        if key == "eps":
            config["rms_norm_eps"] = 1.0
        elif "rope_parameters" in config:
            config["rope_parameters"]["rope_theta"] = 20.0
        else:
            config["rope_theta"] = 20.0

    found = told(write(tmp_path / "m", mean, config=change))
    assert named(found) == "config"
    assert found.case.restored("config") > 0.5


def test_gains_that_are_noise(mean: State, tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    state = {
        k: 2 * t.mean() * torch.rand(t.shape, generator=drawn) if "norm" in k else t
        for k, t in mean.items()
    }
    assert named(told(write(tmp_path / "m", state))) == "norms"


def test_a_block_of_noise(mean: State, tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    state = {
        k: t.std() * torch.randn(t.shape, generator=drawn)
        if ".layers.2." in k and t.dim() == 2 else t
        for k, t in mean.items()
    }  # fmt: skip
    found = told(write(tmp_path / "m", state))
    assert named(found) == "foreign block"
    assert found.causes[0][1].part == "2"
    assert found.case.restored("2") == max(found.case.restored(n) for n in "0123")
    blocks = {row["part"]: row for row in found.readings.blocks("eng_Latn")}
    assert list(blocks) == ["embedding", "0", "1", "2", "3"]
    before, after = (blocks[n]["similarity eng-fork"] for n in "12")
    assert before > 0.95 > after
    assert blocks["2"]["restored"] == found.case.restored("2")


def test_embeddings_of_another_model(mean: State, zoo: dict[str, State], tmp_path: Path) -> None:
    state = {k: zoo["eng-2"][k] if "embed" in k else t for k, t in mean.items()}
    found = told(write(tmp_path / "m", state))
    assert named(found) == "embedding"
    assert found.case.restored("embedding") > 0.9


def test_a_base_that_is_no_ancestor(zoo: dict[str, State], tmp_path: Path) -> None:
    state = {k: t + zoo["deu-fork"][k] - zoo["eng-2"][k] for k, t in zoo["eng-fork"].items()}
    assert named(told(write(tmp_path / "m", state), base="zoo:eng-2")) == "wrong base"


def test_weights_that_sum_to_two(zoo: dict[str, State], tmp_path: Path) -> None:
    state = {k: t + zoo["deu-fork"][k] for k, t in zoo["eng-fork"].items()}
    found = told(write(tmp_path / "m", state))
    assert named(found) == "scale"
    assert "2.00" in found.causes[0][1].text


def test_updates_added_three_times(zoo: dict[str, State], tmp_path: Path) -> None:
    base = zoo["mixed"]
    state = {
        k: b + 3 * (zoo["eng-fork"][k] - b) + 3 * (zoo["deu-fork"][k] - b) for k, b in base.items()
    }
    assert named(told(write(tmp_path / "m", state), base="zoo:mixed")) == "extrapolation"


@pytest.mark.parametrize(
    ("pair", "cause"),
    [(("eng-1", "eng-2"), "other origin"), (("eng-1", "deu-1"), "trained too far apart")],
)
def test_parents_that_do_not_fit(
    zoo: dict[str, State], tmp_path: Path, pair: tuple[str, str], cause: str
) -> None:
    a, b = (zoo[name] for name in pair)
    merge = write(tmp_path / "m", {k: (t + b[k]) / 2 for k, t in a.items()})
    assert named(told(merge, tuple(f"zoo:{name}" for name in pair))) == cause


def test_what_is_forecast_to_mend_a_merge_mends_it(zoo: dict[str, State], tmp_path: Path) -> None:
    state = {k: (t + zoo["eng-2"][k]) / 2 for k, t in zoo["eng-1"].items()}
    parents = ("zoo:eng-1", "zoo:eng-2")
    said: list[str] = []
    found = diagnose(
        write(tmp_path / "m", state), parents, languages=["eng_Latn"], max_bytes=8000,
        say=lambda label, text: said.append(label),
    )  # fmt: skip
    assert said[0] == "plan"
    assert max(row["variance"] for row in found.readings.blocks("eng_Latn")[1:]) < 0.1
    best = found.recipes[0]
    recipe = {"method": best.method, "models": list(parents), "align": best.alignment}
    mended = merge(recipe, tmp_path / "mended", device="cpu")
    kept = told(mended, parents).lost["eng_Latn"]
    assert found.lost["eng_Latn"] < 0.5 < kept
    assert best.worst is not None
    assert best.worst.low is not None
    assert kept > best.worst.low  # what was promised at 90 %


def test_two_parents_of_one_name_are_kept_apart(mean: State, tmp_path: Path) -> None:
    folders = [tmp_path / name / "final" for name in "abm"]
    states = [*(weights(name.removeprefix("zoo:")) for name in FORKS), mean]
    for folder, state in zip(folders, states, strict=True):
        folder.parent.mkdir()
        write(folder, state)
    found = told(folders[2], (str(folders[0]), str(folders[1])))
    assert {parent.name for parent in found.case.parents} == {"final (2)", "final (3)"}
    assert found.case.weights("body") == pytest.approx({"final (2)": 0.5, "final (3)": 0.5})


def test_a_parent_whose_units_stand_in_another_order(zoo: dict[str, State], tmp_path: Path) -> None:
    model = load_causal_lm("zoo:eng-1").model
    moved, _ = planted_twin(model.config, model.state_dict(), ["mlp_units"], seed=1)
    twin = {k: moved[k].float() for k in zoo["eng-1"]}
    parent = write(tmp_path / "twin", twin)
    merge = write(tmp_path / "m", {k: (t + twin[k]) / 2 for k, t in zoo["eng-1"].items()})
    assert named(told(merge, ("zoo:eng-1", str(parent)))) == "re-ordered parent"


def test_a_single_nan(mean: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = dict(mean)
    name = next(k for k in state if "down_proj" in k)
    state[name] = state[name].clone()
    state[name][0, 0] = torch.nan
    merge = write(tmp_path / "m", state)
    assert named(told(merge)) == "not finite"
    assert exit_code("diagnose", merge, *FORKS, "--no-forecast", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["causes"][0]["cause"] == "not finite"
    assert (document["retention"], document["parts"]) == ({}, [])


def test_the_command_names_cause_and_remedy(
    zoo: dict[str, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {k: (t + zoo["eng-2"][k]) / 2 for k, t in zoo["eng-1"].items()}
    merge = write(tmp_path / "m", state)
    command = f"diagnose {merge} zoo:eng-1 zoo:eng-2 -l eng_Latn --max-bytes 8000 --no-forecast"
    assert exit_code(*command.split(), "--dtype", "bfloat16", "-o", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "1. other origin" in out
    assert "variance, times parents'" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"diagnosis.parquet", "diagnosis.png", "parts.parquet", "lineage.parquet"} <= written


def test_every_cause_says_what_it_means() -> None:
    assert len(CAUSES) >= 12
    assert all(CAUSES[name].meaning.endswith(".") for name in CAUSES)
