"""A merge with learned alignment: by recipe and by options, stated in its provenance, planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import repsim
from repsim.cli.main import cli
from repsim.core.errors import UsageError
from repsim.merging.reading import read_recipe


def test_two_seeds_of_one_language_are_brought_together_and_it_is_said_how(tmp_path: Path) -> None:
    recipe = {
        "method": "linear",
        "models": ["zoo:eng-1", "zoo:eng-2"],
        "align": "learned",
        "learn": {"corpus": "bible", "languages": ["eng_Latn"], "tokens": 4_096, "batch": 4},
        "repair": {"corpus": "bible", "languages": ["eng_Latn"], "limit": 8},
    }
    said: list[str] = []
    repsim.merge(recipe, tmp_path / "learned", say=lambda label, text: said.append(text))
    repsim.merge({"method": "linear", "models": recipe["models"]}, tmp_path / "naive")
    table = repsim.evaluate(
        [tmp_path / "learned", tmp_path / "naive"], languages=["eng_Latn"], max_bytes=10_000
    )
    kept = {row["model"]: row["value"] for row in table.rows() if row["metric"] == "retention"}
    assert kept["learned"] > 0.8 > 0.5 > kept["naive"]
    provenance = json.loads((tmp_path / "learned" / "repsim_provenance.json").read_text())
    assert provenance["learn"]["tokens"] == 4_096
    assert any("numbers of the map learned in 8 updates" in note for note in provenance["notes"])
    assert any("repair after learned maps lowered" in note for note in provenance["notes"])
    assert set(provenance["notes"]) <= set(said)


def test_the_options_of_the_verb_make_the_same_recipe(tmp_path: Path) -> None:
    command = ["merge", "zoo:eng-1", "zoo:eng-2", str(tmp_path / "out"), "--align", "learned",
               "--text", "bible", "-l", "eng_Latn", "--tokens", "2048"]  # fmt: skip
    planned = CliRunner().invoke(cli, [*command, "--dry-run", "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["plan"]["align"] == "learned"
    assert not (tmp_path / "out").exists()
    command[-1] = "512"
    more = ["--then-finetune", "1024", "--learning-rate", "1e-3", "--no-forecast", "--json"]
    made = CliRunner().invoke(cli, [*command, *more])
    assert made.exit_code == 0, made.output
    tuned = json.loads(made.stdout)["finetuned"]
    assert tuned["share_of_tokens"] == 1_024 / 1_536
    bits = tuned["bits_per_byte"]["eng_Latn"]
    assert bits["after"] < bits["before"]
    copy, share = tmp_path / "out-finetuned", "67 % of all tokens that maps and weights"
    assert all(share in (out / "README.md").read_text() for out in (tmp_path / "out", copy))
    (copy / "repsim_provenance.json").unlink()  # as if it had been stopped at its end
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    recipe = tmp_path / "out" / "repsim_recipe.yaml"
    repsim.merge(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="exists"):
        repsim.merge(recipe, tmp_path / "out")
    with pytest.raises(UsageError, match="needs a merge that can train"):
        repsim.merging.merge(recipe, tmp_path / "other")
    for odd in (["--then-finetune", "9"], ["--align", "orthogonal", "--learning-rate", "1"]):
        refused = CliRunner().invoke(cli, [*command[:3], str(tmp_path / "x"), *odd])
        assert isinstance(refused.exception, UsageError)
    lone = CliRunner().invoke(cli, ["merge", "zoo:eng-1", "zoo:eng-2", "x", "--tokens", "3"])
    assert isinstance(lone.exception, UsageError)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learn": None}, "go together"),
        ({"align": "orthogonal"}, "go together"),
        ({"align": "none", "learn": None, "then_finetune": {"tokens": 5}}, "names no text"),
        ({"then_finetune": {"token": 5}}, "did you mean 'then_finetune.tokens'"),
        ({"learn": {"corpus": "bible", "tokens": 0}}, "learn.tokens' is 0"),
        ({"learn": {"corpus": "bible", "token": 5}}, "did you mean 'learn.tokens'"),
    ],
)
def test_recipes_that_cannot_be_learned_are_refused(changed: dict[str, object], words: str) -> None:
    recipe = {"method": "linear", "models": ["a", "b"], "align": "learned",
              "learn": {"corpus": "bible"}}  # fmt: skip
    with pytest.raises(UsageError, match=words):
        read_recipe(recipe | changed)
