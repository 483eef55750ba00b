"""The atlas that ships is the one that its study file makes, and the gallery renders it."""

import json
from pathlib import Path

import pytest

from repsim.core.atlas import Atlas
from repsim.studies.atlases import load_atlas
from repsim.studies.study_file import load_study

GALLERY = Path(__file__).parents[3] / "figures"


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return load_atlas("cpu_atlas")


def test_it_was_made_by_the_study_file_beside_it(atlas: Atlas) -> None:
    assert atlas.info["study_hash"] == load_study("cpu_atlas").hash
    assert atlas.info["units_done"] == atlas.info["units"]
    command = atlas.info["environment"]["command"]
    assert command.startswith("repsim study run cpu_atlas")
    assert not any(Path(word).is_absolute() for word in command.split())


def test_every_arm_took_part_in_enough_models_and_merges(atlas: Atlas) -> None:
    assert set(atlas.merges.unique("arm")) >= {"A", "A2", "B", "C", "D", "E", "F", "G"}
    assert len(atlas.models.unique("model")) >= 40
    assert len(atlas.merges.unique("merge")) >= 600
    languages = atlas.info["study"]["languages"]
    assert len(languages) >= 4
    assert len({language.partition("_")[2] for language in languages}) >= 2
    assert set(atlas.features.unique("parents")) == set(atlas.merges.unique("parents"))
    assert len(atlas.paths) > 0


def test_the_gallery_renders_it_with_a_study_file_that_makes_it_again(
    atlas: Atlas, tmp_path: Path
) -> None:
    text = (GALLERY / "cpu_atlas" / "report.json").read_text(encoding="utf-8")
    report = json.loads(text)["facts"]
    assert report["merges"] == len(atlas.merges.unique("merge"))
    assert report["environment"] == atlas.info["environment"]
    (tmp_path / "again.yaml").write_text(report["study"], encoding="utf-8")
    assert load_study(tmp_path / "again.yaml").hash == atlas.info["study_hash"]
