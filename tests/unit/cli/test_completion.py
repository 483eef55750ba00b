"""What a shell completes, what plans say, and what an interruption leaves."""

import json
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from repsim.cli.interruption import kept_since
from repsim.cli.main import cli
from tests.planted.commands import exit_code


def completed(words: list[str], begun: str) -> list[str]:
    complete = ShellComplete(cli, {}, "repsim", "_REPSIM_COMPLETE")
    return [item.value for item in complete.get_completions(words, begun)]


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        ([], "eval", {"evaluate"}),
        (["merge"], "zoo:eng-f", {"zoo:eng-fork"}),
        (["compare", "-m"], "cka", {"cka"}),
        (["compare", "--corpus"], "kol", {"kolibri"}),
        (["compare", "--corpus", "bible-heldout", "-l"], "de", {"deu_Latn"}),
        (["predict", "--method"], "tie", {"ties"}),
        (["predictor"], "val", {"validate"}),
        (["compare", "--pooling"], "me", {"mean"}),
        (["compare"], "en=zoo:eng-f", {"en=zoo:eng-fork"}),
        (["compare", "--point"], "mlp", {"mlp", "mlp_hidden"}),
        (["measures"], "cka", {"cka", "cka_rbf"}),
        (["methods"], "ti", {"ties"}),
        (["pretrain"], "two", {"two_languages"}),
        (["study", "run"], "ti", {"tiny"}),
        (["models", "--fetch"], "e5", {"e5-small"}),
        (["plot", "out", "--kind"], "l", {"ladder", "layers", "languages"}),
        (["predict", "--tier"], "T", {"T0", "T1", "T2", "T3"}),
    ],
)
def test_values_are_completed(words: list[str], begun: str, expected: set[str]) -> None:
    assert expected <= set(completed(words, begun))


def test_a_path_is_left_to_the_shell() -> None:
    complete = ShellComplete(cli, {}, "repsim", "_REPSIM_COMPLETE")
    (item,) = complete.get_completions(["merge"], "runs/e")
    assert (item.type, item.value) == ("file", "runs/e")


def test_the_help_says_how_completion_is_switched_on(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code("--help")
    assert "_REPSIM_COMPLETE=bash_source" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "zoo:eng-1", "-l", "eng_Latn", "--max-bytes", "20000"],
        ["barrier", "zoo:eng-1", "zoo:eng-2", "--max-bytes", "20000"],
        ["diagnose", "zoo:mixed", "zoo:eng-1", "zoo:deu-1"],
        ["predict", "zoo:eng-1", "zoo:deu-1"],
        ["extract-lora", "zoo:eng-fork", "out", "--base", "zoo:eng-1"],
        ["compare", "zoo:eng-1", "-l", "eng_Latn", "--corpus", "bible-heldout"],
    ],
)
def test_a_dry_run_looks_up_and_writes_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert exit_code(*words, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plan"]
    assert not list(tmp_path.iterdir())
    assert exit_code(words[0], "no/such/model", *words[1:], "--dry-run") in (2, 3)


def test_one_model_alone_is_told_what_to_add(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code("compare", "zoo:eng-1", "--corpus", "bible-heldout", "-l", "eng_Latn", "--dry-run")
    said = capsys.readouterr().err
    assert "add a second model" in said
    assert " 0 comparisons" not in said


def test_an_interruption_names_what_is_kept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("from before")
    verb = cli.get_command(click.Context(cli), "measures")
    assert verb is not None

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "callback", interrupted)
    assert exit_code("measures") == 130
    assert "kept" not in capsys.readouterr().err

    start = time.time()
    assert not kept_since(start + 5, ["compare", "a", "-o", str(out)])
    (out / ".half.tmp").write_text("in the making")
    (out / "part.json").write_text("done")
    assert kept_since(start - 5, ["compare", "a", "-o", str(out)]) == [out]
    aside = tmp_path / ".merged.merging"
    aside.mkdir()
    (aside / "tensors").write_text("done")
    assert kept_since(start - 5, ["merge", "a", "b", str(tmp_path / "merged")]) == [aside]
