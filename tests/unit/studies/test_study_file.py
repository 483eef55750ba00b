"""Study files: read strictly, and refused with the key that is wrong."""

import pytest
import yaml

from repsim.core.errors import InputError, UsageError
from repsim.studies.study_file import EXAMPLES, load_study, study_from_mapping


def tiny(**changes):
    document = yaml.safe_load((EXAMPLES / "tiny.yaml").read_text())
    return document | changes


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_possible_and_survives_a_round_trip(path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    again = study_from_mapping(study.to_dict())
    assert again == study
    assert again.hash == study.hash


def test_every_arm_is_in_the_atlas() -> None:
    arms = load_study("cpu_atlas").arms
    assert all(getattr(arms, arm) for arm in ("A", "A2", "B", "C", "D", "E", "F", "G"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"langauges": []}, "unknown key 'langauges'"),
        ({"arms": {"A": [{"fractions": [1.5]}]}}, r"'arms.A\[0\].fractions' has 1.5"),
        ({"arms": {"A": [{"fractions": [0], "languages": ["xyz_Latn"]}]}}, "xyz_Latn"),
        ({"arms": {"A2": [{"trunk": "fra_Latn", "fractions": [0], "languages": []}]}}, "fra_Latn"),
        ({"arms": {"E": [{"doses": [0.1], "k": [1]}]}}, r"'arms.E\[0\].k' has 1"),
        ({"arms": {"C": [{"languages": ["eng_Latn"]}]}}, "needs one of 'data_seed'"),
        ({"paths": {"points": 2}}, "'paths.points' is 2, must be at least 3"),
        ({"paths": {"languages": ["xyz_Latn"]}}, "xyz_Latn"),
        ({"training": {"steps": 3}}, "'training.tokens' is missing"),
        ({"arms": {"G": [{"kinds": ["twin"], "languages": []}]}}, "must be one of: self"),
    ],
)
def test_what_is_not_possible_is_refused_by_its_key(changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        study_from_mapping(tiny(**changes))


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(InputError, match=r"does not exist .*tiny"):
        load_study("nothing")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_study(broken)
    broken.write_text("name: a\nname: b\n")
    with pytest.raises(InputError, match="key 'name' is repeated"):
        load_study(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "zoo:mixed"}, "'arms.A' goes with models from scratch"),
        ({"arms": {"E": [{"doses": [1], "kinds": ["lora"]}]}}, "needs 'init_from'"),
        ({"architecture": {}}, "'architecture' is missing"),
    ],
)
def test_doses_go_with_a_model_to_start_from(changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        study_from_mapping(tiny(**changes))
