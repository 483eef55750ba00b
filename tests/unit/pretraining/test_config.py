"""Configurations are checked strictly, and messages name the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.pretraining.architecture import SIZES, ArchitectureConfig
from repsim.pretraining.config import FamilyConfig, from_mapping, load_config

EXAMPLES = Path(__file__).parents[3] / "repsim" / "pretraining" / "examples"
ENG: dict[str, Any] = {"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}


def fork(**keys: Any) -> dict[str, Any]:
    return {"name": "fork", "languages": ["eng_Latn"], "fork": {"from": "eng", **keys}}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_valid_and_planned(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from repsim.pretraining.__main__ import main

    assert main([str(path), "-o", "nowhere", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("tokens") == len(load_config(path).runs)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainig": {}}, r"unknown key 'trainig' \(hint: did you mean 'training'\?\)"),
        ({"name": 3}, "'name' is 3, must be text"),
        ({"training": {"stpes": 3}}, r"unknown key 'training.stpes' .*'training.steps'"),
        ({"training": {"steps": "many"}}, "'training.steps' is 'many', must be a whole number"),
        ({"training": {"steps": True}}, "'training.steps' is True, must be a whole number"),
        ({"training": {"steps": 0}}, "'training.steps' is 0, must be at least 1"),
        ({"training": {"steps": 5, "decay": 1.5}}, "'training.decay' is 1.5, must be at most 1"),
        ({"training": {"steps": 5, "learning_rate": "fast"}}, "learning_rate' is 'fast'.*a number"),
        ({"training": {"steps": 5, "learning_rate": "nan"}}, "nan, not a finite number"),
        ({"training": {"steps": 5, "schedule": "cosin"}}, "'cosin', must be one of: wsd, cosine"),
        ({"training": {"steps": 5, "compile": "maybe"}}, "'training.compile' is 'maybe'"),
        ({"training": {}}, "needs one of 'tokens' and 'steps'"),
        ({"training": {"steps": 1, "tokens": 1}}, "needs one of 'tokens' and 'steps'"),
        ({"training": {"steps": 1, "batch": 6, "accumulation": 4}}, "batch 6 is not a multiple"),
        ({"training": {"steps": 5, "warmup": 0.5, "decay": 0.6}}, "more than the whole run"),
        ({"architecture": {"size": "1m", "family": "gpt2", "init": "depth-scaled"}}, "llama"),
        ({"architecture": {"size": "1mm"}}, "unknown architecture.size '1mm'"),
        ({"architecture": {"hidden": 64}}, "'architecture.layers' is missing"),
        ({"architecture": {"size": "1m", "heads": 3}}, "must be an even whole number"),
        ({"architecture": {"size": "1m", "kv_heads": 3}}, r"kv_heads' \(3\) must divide"),
        ({"architecture": {"size": "1m", "family": "gpt2", "kv_heads": 2}}, "llama family"),
        ({"corpus": {"source": "x", "languages": "eng_Latn"}}, "languages' is 'eng_Latn'.*a list"),
        ({"corpus": {"languages": ["eng_Latn"]}}, "'corpus.source' is missing"),
        ({"runs": []}, "'runs' is empty"),
        ({"runs": [ENG, ENG]}, "two runs have the name 'eng'"),
        ({"runs": [ENG | {"name": "shards"}]}, "'shards', which cannot be the name"),
        ({"runs": [ENG | {"name": "../up"}]}, "cannot be the name of a run's folder"),
        ({"runs": [ENG | {"languages": ["fra_Latn"]}]}, "unknown language in 'runs\\[0\\]'"),
        ({"runs": [ENG | {"mix": {"eng_Latn": 1.0}}]}, "one of 'languages', 'mix' and 'stages'"),
        ({"runs": [{"name": "a", "mix": {"eng_Latn": -1}, "init_seed": 1}]}, "not positive"),
        (
            {"runs": [{"name": "a", "mix": {"eng_Latn": 1}, "temperature": 0.5, "init_seed": 1}]},
            "temperature' goes with 'languages'",
        ),
        ({"runs": [{"name": "a", "languages": ["eng_Latn"]}]}, "needs an 'init_seed'"),
        ({"runs": [ENG | {"training": {"betch": 2}}]}, r"runs\[0\]\.training\.betch"),
        ({"runs": [ENG, fork(at=0.5, step=3)]}, "needs one of 'at' and 'step'"),
        ({"runs": [ENG, fork(at=1.5)]}, r"'runs\[1\]\.fork\.at' is 1.5, must be at most 1"),
        ({"runs": [ENG, fork(at=0.5) | {"init_seed": 2}]}, "no meaning in a fork"),
        ({"runs": [ENG, fork(at=0.5) | {"fork": {"from": "egn", "at": 0}}]}, "unknown run 'egn'"),
        (
            {"runs": [{**fork(at=0.5), "fork": {"from": "fork", "at": 0.5}}]},
            "goes in a circle: fork from fork",
        ),
        (
            {"runs": [ENG, fork(at=0.5) | {"training": {"optimizer": "muon"}}]},
            "takes over the state of adamw but trains with muon",
        ),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused_by_name(
    document: Callable[..., dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        from_mapping(document(**changes))


def test_per_language_tokenizers_cannot_be_mixed(document: Callable[..., dict[str, Any]]) -> None:
    both = {"name": "both", "languages": ["eng_Latn", "deu_Latn"], "init_seed": 1}
    with pytest.raises(UsageError, match="mixes languages, but each language has its own"):
        from_mapping(document(tokenizer={"kind": "per-language"}, runs=[both]))
    crossing = {**fork(at=0.5), "languages": ["deu_Latn"]}
    with pytest.raises(UsageError, match="its trunk have different tokenizers"):
        from_mapping(document(tokenizer={"kind": "per-language"}, runs=[ENG, crossing]))


def test_yaml_problems_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml' does not exist .*two_languages"):
        load_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [", encoding="utf-8")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_config(bad)
    bad.write_text("name: a\nname: b\n", encoding="utf-8")
    with pytest.raises(InputError, match="key 'name' is repeated"):
        load_config(bad)
    bad.write_text("- a\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad.yaml': the document is \['a'\], must be a mapping"):
        load_config(bad)


def test_numbers_that_yaml_reads_as_text_are_numbers(family: Callable[..., FamilyConfig]) -> None:
    config = family(training={"steps": 3, "learning_rate": "3e-3"})
    assert config.training_of(config.runs[0]).learning_rate == 0.003


def test_own_settings_of_a_run_come_before_the_familys(family: Callable[..., FamilyConfig]) -> None:
    config = family(runs=[ENG | {"tokens": 640, "training": {"learning_rate": 1.0}}])
    training = config.training_of(config.runs[0])
    assert (training.steps, training.tokens) == (None, 640)
    assert (training.learning_rate, training.batch) == (1.0, 4)


def test_sizes_have_about_the_parameters_of_their_names() -> None:
    from repsim.pretraining.build import shape_from_scratch

    vocabularies = {"1m": 4096, "5m": 8192, "350m": 32768}
    for name in SIZES:
        shape = ArchitectureConfig(size=name).resolved()
        count = shape_from_scratch(shape, vocabularies.get(name, 16384)).parameters
        assert count / 1e6 == pytest.approx(float(name.removesuffix("m")), rel=0.27)


@pytest.mark.parametrize(("size", "rate"), [("1m", 3e-3), ("10m", 3e-3), ("30m", 1.5e-3),
                                            ("125m", 1e-3), ("350m", 7.5e-4)])  # fmt: skip
def test_the_default_learning_rate_falls_with_the_width(
    family: Callable[..., FamilyConfig], size: str, rate: float
) -> None:
    config = family(architecture={"size": size}, training={"steps": 3})
    assert config.training_of(config.runs[0]).learning_rate == pytest.approx(rate)
