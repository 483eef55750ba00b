"""A study whose doses are trained from a model that exists: gains over it, and merges by each
setting of a method."""

from pathlib import Path

import pytest
import yaml

from repsim.core.atlas import Atlas
from tests.unit.studies.conftest import run

STUDY = {
    "name": "doses", "corpus": "bible", "init_from": "zoo:eng-1",
    "languages": ["deu_Latn", "fra_Latn"], "architecture": {"context": 64},
    "training": {"tokens": 8_000, "learning_rate": 1e-3},
    "arms": {"E": [{"doses": [1.0]}]},
    "merging": {
        "methods": ["linear", "task_arithmetic"], "aligned_methods": [], "alignments": [],
        "parameters": {"task_arithmetic": [{"weight": 0.5}, {"weight": 1.0}]},
    },
    "evaluation": {"max_bytes": 4000}, "max_bytes": 300_000,
    "features": {"tiers": ["T0"]},
}  # fmt: skip


def test_doses_of_a_model_are_merged_and_held_against_it(tmp_path: Path) -> None:
    file = tmp_path / "doses.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    assert run("run", str(file), "-o", str(tmp_path / "out")) == 0
    atlas = Atlas.load(tmp_path / "out" / "atlas")
    rows = list(atlas.merges.rows())
    assert len({row["merge"] for row in rows}) == 3  # task arithmetic twice
    half, whole, mean = (
        {row["language"]: row for row in rows if f"| {title} |" in row["merge"]}
        for title in ("task_arithmetic weight=0.5", "task_arithmetic weight=1", "linear")
    )
    for language in ("deu_Latn", "fra_Latn"):
        gain = mean[language]["base_bits"] - mean[language]["parent_bits"]
        assert gain > 0
        assert mean[language]["gain_kept"] == pytest.approx(
            (mean[language]["base_bits"] - mean[language]["bits_per_byte"]) / gain
        )
        # Half of each difference, added: the mean of the two models.
        assert half[language]["bits_per_byte"] == pytest.approx(mean[language]["bits_per_byte"])
        assert whole[language]["bits_per_byte"] != half[language]["bits_per_byte"]
    assert {row["shared_init"] for row in rows} == {1}
    # The base states its tokens, so the share in common is known.
    assert all(0.9 < row["fork_fraction"] < 1 for row in rows)
