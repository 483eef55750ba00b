"""The benchmark on three models of the zoo: stopped, gone on with, and equal to one go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repsim.core.files import read_json
from repsim.models import load_model
from repsim.studies.measure_benchmark import plan_benchmark, run_benchmark
from repsim.studies.measure_benchmark import run as module
from repsim.studies.measure_benchmark.trials import _noise

MODELS = ["zoo:eng-1", "zoo:eng-2", "zoo:deu-1"]


def test_a_benchmark_that_was_stopped_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_benchmark(MODELS, measures=["cka", "information_imbalance"], limit=60, atlases=[])
    made: list[str] = []
    rows = module._rows

    def until(stop: int) -> None:
        def stopping(benchmark: object, part: object, advance: object) -> object:
            if len(made) == stop:
                raise KeyboardInterrupt
            made.append(part.name)  # type: ignore[attr-defined]
            return rows(benchmark, part, advance)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "_rows", stopping)

    until(2)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, tmp_path / "a")
    assert read_json(tmp_path / "a" / "manifest.json")["status"] == "interrupted"
    until(99)
    table = run_benchmark(plan, tmp_path / "a")
    assert made == ["eng-1", "eng-2", "deu-1", "models", "models"], "nothing is done twice"

    assert set(table.unique("test")) == {"layers", "noise", "seeds", "forks"}
    cka = table.where(measure="cka")
    judged = {test: cka.where(test=test) for test in table.unique("test")}
    # Of 5 layers 10 triples with two comparisons each; 15 pairs of 6 strengths at each block.
    assert judged["layers"].where(unit="eng-1")["comparisons"].tolist() == [12, 6, 2]
    assert judged["noise"].where(unit="eng-1")["comparisons"].tolist() == [15] * 4
    assert judged["seeds"]["unit"].tolist() == ["eng-1"] * 4 + ["eng-2"] * 4
    assert judged["noise"]["correct"].mean() > 0.6, "noise is seen by CKA on models that learnt"


def test_noise_is_taken_off_again() -> None:
    loaded = load_model("zoo:eng-1")
    before = [p.clone() for p in loaded.model.parameters()]
    with _noise(loaded, 0.2, seed=1) as changed:
        assert changed.ref.weights_hash == ""
        ratio = [
            float((p - q).std() / q.std())
            for p, q in zip(changed.model.parameters(), before, strict=True)
            if q.numel() > 10_000
        ]
    assert all(abs(r - 0.2) < 0.01 for r in ratio), ratio
    assert all(map(torch.equal, loaded.model.parameters(), before))
