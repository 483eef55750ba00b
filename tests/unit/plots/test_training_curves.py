"""Training curves are read as they were written, and drawn with their floor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from repsim.core.errors import InputError
from repsim.plots.training import LOSS_POINTS, TRAINING, training_info


def write_run(folder: Path, first: int, last: int, end: float) -> Path:
    """A run of 10 tokens a step that starts at some step of its history."""
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = [
        {"kind": "validation", "step": first, "eng_Latn": 4.0, "eng_Latn_hex": "x"}
    ]
    rows += [
        {"kind": "train", "step": step, "loss": 10.0 / step, "tokens": 10 * step}
        for step in range(first + 1, last + 1)
    ]
    rows.append({"kind": "validation", "step": last, "eng_Latn": end, "eng_Latn_hex": "x"})
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    about = {"role": "monolingual", "unigram_floor": {"eng_Latn": 2.5}}
    (folder / "repsim_provenance.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_a_familys_runs_are_found_with_floor_and_history(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, 400, 1.5)
    write_run(tmp_path / "b", 300, 400, 1.9)
    data = training_info([tmp_path])
    validation, loss = data.panels
    assert validation.title == "eng_Latn"
    assert validation.floor == 2.5
    a, b = validation.curves
    np.testing.assert_allclose(a.tokens * 1e6, [0, 4000])
    np.testing.assert_allclose(b.tokens * 1e6, [3000, 4000])
    assert (a.value[-1], b.value[-1]) == (1.5, 1.9)
    assert len(loss.curves[0].value) == LOSS_POINTS
    assert "eng_Latn: a 1.50, unigram floor 2.50" in data.caption()


def test_the_figure_shows_every_curve_and_the_floor(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, 60, 1.5)
    figure = TRAINING([tmp_path / "a"])
    validation, loss = figure.axes
    assert [line.get_label() for line in loss.lines] == ["a"]
    assert np.asarray(validation.lines[-1].get_ydata()).tolist() == [2.5, 2.5]
    assert any(text.get_text() == "unigrams" for text in validation.texts)


def test_runs_of_one_role_have_colours_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, 0, 60, 1.5)
    loss = TRAINING([tmp_path]).axes[1]
    assert len({line.get_color() for line in loss.lines}) == 2


def test_what_holds_no_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no training metrics"):
        training_info([tmp_path])
    run = write_run(tmp_path / "a", 0, 3, 1.0)
    (run / "metrics.jsonl").write_text('{"kind": "tr', encoding="utf-8")
    with pytest.raises(InputError, match="line 1 of '.*metrics.jsonl' is damaged"):
        training_info([run])
