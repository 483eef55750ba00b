"""Verbs give for a GGUF file and an adapter what they give for the same weights, unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.formats import FAMILY, FORMATS, VERBS, difference, stage, unpacked

#: The whole table is made by `tests/benchmarks/formats.py`; these are the verbs that take seconds.
CASES = {
    "GGUF, Q4_1": ("check", "lineage", "merge, task vectors", "barrier", "predict", "finetune"),
    "base+adapter": ("models --check", "merge", "merge, task vectors", "predict", "finetune"),
    "FP8, blocks": ("check", "merge", "barrier"),
}


@pytest.mark.parametrize("name", CASES)
def test_verbs_agree_on_a_format_and_on_its_unpacked_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    places = stage(tmp_path, FAMILY.get(name, "llama"))
    (tmp_path / "in").mkdir()
    held = FORMATS[name](Path(places["BASE"]), tmp_path / "in" / "held")
    plain = str(unpacked(held, tmp_path / "plain" / "held"))
    found = {verb: difference(VERBS[verb], places | {"HELD": held}, plain) for verb in CASES[name]}
    # Weights of a merge and losses are equal to the bit; sums may be taken in another order.
    assert all(isinstance(value, float) and value < 1e-9 for value in found.values()), found
