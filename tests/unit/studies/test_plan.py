"""From arms to families, groups of parents and units of work."""

import dataclasses

import pytest
import yaml

from repsim.core.errors import UsageError
from repsim.studies.arms import common_history, families, study_models
from repsim.studies.engine.unit import Unit, unit_keys
from repsim.studies.groups import control_models, parent_groups
from repsim.studies.plan import plan_study
from repsim.studies.study_file import EXAMPLES, load_study, study_from_mapping
from repsim.studies.units.merging import trials


@pytest.fixture(scope="module")
def atlas():
    return plan_study("cpu_atlas")


def test_the_atlas_is_as_large_as_it_promises(atlas) -> None:
    assert len(atlas.models) >= 40
    assert atlas.merges >= 600
    assert {group.arm for group in atlas.groups} == {"A", "A2", "B", "C", "D", "E", "F", "G"}
    assert {len(group.parents) for group in atlas.groups} == {2, 3, 5}
    assert len(atlas.config.languages) >= 4


def test_every_parent_is_made_and_every_unit_stands_after_its_needs(atlas) -> None:
    made = {*atlas.models, *atlas.controls}
    assert {name for group in atlas.groups for name in group.parents} <= made
    unit_keys(atlas.units)  # refuses an order that does not work


def test_histories(atlas) -> None:
    groups = {group.name: group for group in atlas.groups}
    fork = groups["main/eng-f0.3 + main/deu-f0.3"]
    assert (fork.shared_init, round(fork.fork_fraction, 2)) == (True, 0.3)
    assert fork.ancestor.run == "main/mixed"
    apart = groups["main/eng-f0 + main/eng-s2"]
    assert (apart.shared_init, apart.ancestor, apart.languages) == (False, None, ("eng_Latn",))
    same_init = groups["main/eng-f0 + main/deu-f0"]
    assert (same_init.ancestor.step, same_init.fork_fraction) == (0, 0.0)
    with_trunk = groups["main/deu-f0.9 + main/mixed"]
    assert with_trunk.ancestor.step == atlas.models["main/deu-f0.9"].run.first_step
    assert with_trunk.languages == ("deu_Latn",)
    dose = groups["main/eng-dose0.2-lr1 + main/deu-dose0.2-lr1"]
    assert dose.ancestor.run == "main/mixed-long"
    assert dose.ancestor.step == atlas.models["main/mixed-long"].run.last_step
    own_trunk = groups["main/eng-f0 + main/deu-of-eng-f0.3"]
    assert own_trunk.ancestor.run == "main/eng-f0"
    assert round(own_trunk.fork_fraction, 2) == 0.3


def test_common_history_needs_one_initialisation(atlas) -> None:
    runs = {name: model.run for name, model in atlas.models.items()}
    assert common_history([runs["main/eng-s2"], runs["main/eng-s3"]]) is None
    assert common_history([runs["main/eng-f0"], runs["main/eng-order2"]])[1] == 0
    assert common_history([runs["main/eng-s2"], runs["main/deu-s2"]])[1] == 0


def test_a_fork_at_zero_starts_as_its_trunk_does(atlas) -> None:
    fork, trunk = atlas.models["main/eng-f0"].run, atlas.models["main/mixed"].run
    assert (fork.init_seed, fork.data_seed) == (trunk.init_seed, trunk.data_seed)
    assert fork.fork_from is None


def test_controls_have_no_hidden_training(atlas) -> None:
    controls = control_models(atlas.config)
    assert {control.kind for control in controls.values()} == {
        "permuted", "rotated", "noise", "untrained",
    }  # fmt: skip
    noise = controls["controls/eng-noise"]
    assert noise.distance_to == "main/deu-f0"


def test_methods_without_an_ancestor_take_zero_or_are_left_out(atlas) -> None:
    specs = {unit.name: unit.spec for unit in atlas.units if unit.kind == "merge"}
    apart = trials(specs["merge main/eng-f0 + main/eng-s2"])
    bases = {trial.method: trial.base for trial in apart if trial.alignment == "none"}
    assert bases["ties"] == "zero"
    assert bases["linear"] == ""
    assert "task_arithmetic" not in bases
    forks = trials(specs["merge main/eng-f0.3 + main/deu-f0.3"])
    bases = {trial.method: trial.base for trial in forks if trial.alignment == "none"}
    assert bases["task_arithmetic"].startswith("main/mixed@")
    name = "merge tokenizers/eng-s1 + tokenizers/deu-s1"
    assert {trial.alignment for trial in trials(specs[name])} == {"none"}
    document = atlas.config.to_dict()
    assert "token_weights" not in document["merging"]  # so that a study keeps its hash
    document["merging"]["token_weights"] = True
    counted = {u.name: u.spec for u in plan_study(study_from_mapping(document)).units}
    assert {trial.alignment for trial in trials(counted[name])} == {"none"}
    more = trials(counted["merge main/eng-f0.3 + main/deu-f0.3"])
    assert [t for t in more if "+" not in t.alignment] == forks
    assert {(t.alignment, t.method) for t in more} - {(t.alignment, t.method) for t in forks} == {
        (f"{t.alignment}+counts", t.method)
        for t in forks
        if t.method in atlas.config.merging.aligned_methods
    }


def test_disjoint_content_and_derived_languages_have_families_of_their_own() -> None:
    made = families(load_study("cpu_atlas"))
    assert made["disjoint"].corpus.content == "disjoint"
    assert made["derived-eng"].corpus.languages[1] == "eng_Latn~respelled"
    assert made["tokenizers"].tokenizer.kind == "per-language"
    assert made["bytes"].tokenizer.kind == "bytes"


def test_adding_an_arm_leaves_the_addresses_of_the_others(atlas) -> None:
    document = yaml.safe_load((EXAMPLES / "cpu_atlas.yaml").read_text())
    document["arms"]["A"].append({"fractions": [0.75], "languages": ["fra_Latn", "arb_Arab"]})
    larger = plan_study(study_from_mapping(document))
    before, after = unit_keys(atlas.units), unit_keys(larger.units)
    assert len(after) > len(before)
    assert all(after[name] == key for name, key in before.items())


def test_what_the_weights_depend_on_is_in_the_address(atlas) -> None:
    document = yaml.safe_load((EXAMPLES / "cpu_atlas.yaml").read_text())
    document["training"]["learning_rate"] = 1e-3
    other = unit_keys(plan_study(study_from_mapping(document)).units)
    before = unit_keys(atlas.units)
    changed = {name for name in before if before[name] != other.get(name)}
    assert changed == set(before)


def test_how_a_unit_works_is_not_in_its_address() -> None:
    unit = Unit("pretrain", "a", {"x": 1, "how": {"device": "cpu"}})
    elsewhere = dataclasses.replace(unit, spec={"x": 1, "how": {"device": "cuda"}})
    assert unit_keys([unit]) == unit_keys([elsewhere])


def test_units_that_do_not_work_out() -> None:
    with pytest.raises(UsageError, match="two units of work are called 'a'"):
        unit_keys([Unit("x", "a", {}), Unit("x", "a", {})])
    with pytest.raises(UsageError, match="needs 'b', which does not stand before it"):
        unit_keys([Unit("x", "a", {}, needs=("b",)), Unit("x", "b", {})])


def test_a_study_that_merges_nothing_is_refused() -> None:
    document = yaml.safe_load((EXAMPLES / "tiny.yaml").read_text()) | {"arms": {}}
    with pytest.raises(UsageError):
        plan_study(study_from_mapping(document))


def test_groups_are_asked_for_once() -> None:
    config = load_study("cpu_atlas")
    names = [group.name for group in parent_groups(config, study_models(config))]
    assert len(set(names)) == len(names)


def test_paths_are_followed_between_pairs_of_one_vocabulary(atlas) -> None:
    paths = [unit for unit in atlas.units if unit.kind == "path"]
    spoken = {language for unit in paths for language in unit.spec["languages"]}
    assert spoken == set(atlas.config.paths.languages)
    assert all(len(set(unit.spec["parents"])) == 2 for unit in paths)
    arms = {group.name: group.arm for group in atlas.groups}
    assert {arms[unit.name.removeprefix("path ")] for unit in paths} == {"A", "B", "E", "G"}
    none = atlas.config.model_copy(update={"paths": None})
    kept = [unit for unit in atlas.units if unit.kind != "path"]
    assert unit_keys(plan_study(none).units) == unit_keys(kept)


def test_accelerators_are_asked_for_where_they_are_used(atlas) -> None:
    assert {unit.gpus for unit in atlas.units} == {0.0}
    four = plan_study(atlas.config, device="cuda", processes=4)
    assert {unit.gpus for unit in four.units if unit.kind == "pretrain"} == {4.0}
    assert {unit.gpus for unit in four.units if unit.kind == "merge"} == {1.0}
    shared = plan_study(atlas.config, device="cuda", gpus=0.25)
    assert {unit.gpus for unit in shared.units} == {0.25}
    assert unit_keys(shared.units) == unit_keys(atlas.units)
