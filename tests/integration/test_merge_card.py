"""The model card of a merge: its forecast, and what came of it."""

from pathlib import Path

import pytest

from tests.planted.commands import exit_code


def run(*arguments: str) -> None:
    assert exit_code(*arguments) == 0


def test_a_card_holds_forecast_and_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "merged"
    run("merge", "zoo:eng-fork", "zoo:deu-fork", str(out))
    card = (out / "README.md").read_text()
    assert "Made before the merge, from configs and weights alone." in card.split("## Forecast")[1]
    assert "repsim evaluate" in card.split("## Outcome")[1]

    text = ("-l", "eng_Latn", "-l", "deu_Latn", "--max-bytes", "5000")
    run("evaluate", str(out), *text, "--no-card")
    assert (out / "README.md").read_text() == card
    run("evaluate", str(out), *text)
    shown = capsys.readouterr()
    assert "outcome into" in shown.err
    *_, worst = (line.split() for line in shown.out.splitlines() if " worst " in line[:30])
    assert worst[0] == "merged"
    assert "no" in worst  # collapsed
    before, outcome = (out / "README.md").read_text().split("## Outcome")
    assert before == card.split("## Outcome")[0]
    assert "It survives: its worst language keeps 0." in outcome
    assert "deu-fork" in outcome
    assert "`bible`" in outcome
