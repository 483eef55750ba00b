"""The study file: what a controlled study trains, merges, measures and evaluates.

YAML, read strictly into frozen dataclasses. `studies/examples/cpu_atlas.yaml` is annotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from repsim.core.config import Config, Number, Switch, Whole, find_file, load, parse
from repsim.core.errors import UsageError, unknown_name
from repsim.core.files import hash_json
from repsim.merging.recipe import LearnSettings
from repsim.pretraining.stable import StableConfig

EXAMPLES = Path(__file__).parent / "examples"
ControlKind = Literal["self", "permuted", "rotated", "noise", "adjacent", "untrained"]
Arm = Literal["A", "A2", "B", "C", "D", "E", "F", "G"]


class ForkArm(Config):
    """Arm A: forks of one mixed trunk, each then trained on one language for the rest."""

    fractions: tuple[Number, ...]
    languages: tuple[str, ...] = ()
    k: tuple[Whole, ...] = (2,)
    with_trunk: Switch = False


class TrunkArm(Config):
    """Arm A2: the trunk has read one language; forks go to others. They merge with it too."""

    trunk: str
    fractions: tuple[Number, ...]
    languages: tuple[str, ...]


class SeedArm(Config):
    """Arm B: independent initialisations; `seed` is of initial weights and data order."""

    seed: Whole
    languages: tuple[str, ...]
    k: tuple[Whole, ...] = (2,)


class OrderArm(Config):
    """Arm C: the same initial weights and language, another data order or other documents."""

    languages: tuple[str, ...]
    data_seed: Whole | None = None
    content: Literal["same", "disjoint"] = "same"


class TokenizerArm(Config):
    """Arm D: one tokenizer per language, its body from the same or another seed, or bytes."""

    kind: Literal["per-language", "bytes"]
    languages: tuple[str, ...]
    seeds: tuple[Whole, ...] = (1,)
    tokens: Whole | None = Field(default=None, ge=1)


class DoseArm(StableConfig):
    """Arm E: fine-tuning of the finished mixed model, or of `init_from`, on one language."""

    doses: tuple[Number, ...]
    rates: tuple[Number, ...] = (1.0,)
    kinds: tuple[Literal["full", "lora"], ...] = ("full",)
    languages: tuple[str, ...] = ()
    k: tuple[Whole, ...] = (2,)
    unsaid: ClassVar = {"kinds": ("full",)}


class DerivedArm(Config):
    """Arm F: a language and its derived forms (`respelled~reversed`), from one initialisation."""

    language: str
    rules: tuple[str, ...]
    fractions: tuple[Number, ...] = (0.0,)


class ControlArm(Config):
    """Arm G: pairs whose outcome is known beforehand."""

    kinds: tuple[ControlKind, ...]
    languages: tuple[str, ...]


class ArmsConfig(Config):
    """The arms of a study; each may be empty. Letters as in the literature on fork fractions."""

    A: tuple[ForkArm, ...] = ()
    A2: tuple[TrunkArm, ...] = ()
    B: tuple[SeedArm, ...] = ()
    C: tuple[OrderArm, ...] = ()
    D: tuple[TokenizerArm, ...] = ()
    E: tuple[DoseArm, ...] = ()
    F: tuple[DerivedArm, ...] = ()
    G: tuple[ControlArm, ...] = ()


class MergingConfig(StableConfig):
    """How groups of parents are merged."""

    methods: tuple[str, ...] = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties")
    aligned_methods: tuple[str, ...] = ("linear",)
    alignments: tuple[Literal["permutation", "orthogonal", "learned"], ...] = (
        "permutation", "orthogonal",
    )  # fmt: skip
    learn: LearnSettings = LearnSettings()
    token_weights: bool = False
    larger_groups: tuple[str, ...] = ("linear", "ties", "dare_ties")
    from_zero: tuple[str, ...] = ("ties", "dare_ties")
    parameters: dict[str, dict[str, Any] | tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    unsaid: ClassVar = {"token_weights": False}


class EvaluationConfig(Config):
    """What merges and parents are scored on: held-out text of the study's corpus."""

    max_bytes: Whole = Field(default=30_000, ge=1000)


class PathsConfig(Config):
    """Pairs of parents whose straight path of loss is followed, before and after aligning."""

    points: Whole = Field(default=11, ge=3)
    alignments: tuple[Literal["permutation", "orthogonal"], ...] = ("permutation", "orthogonal")
    arms: tuple[Arm, ...] = ("A", "B", "E", "G")
    languages: tuple[str, ...] = ()


class FeaturesConfig(Config):
    """What is measured of each group of parents before it is merged."""

    tiers: tuple[Literal["T0", "T1", "T2", "T3", "oracle"], ...] = (
        "T0", "T1", "T2", "T3", "oracle",
    )  # fmt: skip
    corpus: str = "bible-heldout"
    sentences: Whole = Field(default=200, ge=30)


class StudyConfig(StableConfig):
    """A whole study; `architecture` and `training` as in a pretraining configuration."""

    name: str
    corpus: str
    languages: tuple[str, ...]
    training: dict[str, Any]
    arms: ArmsConfig
    init_from: str | None = None
    architecture: dict[str, Any] = Field(default_factory=dict)
    vocabulary: Whole = Field(default=4096, ge=384)
    seed: Whole = Field(default=1, ge=0)
    finished: Number = Field(default=2.0, ge=0.1)
    max_bytes: Whole | None = Field(default=None, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    data_order: Literal[1, 2] = 1
    merging: MergingConfig = MergingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    features: FeaturesConfig = FeaturesConfig()
    paths: PathsConfig | None = None
    unsaid: ClassVar = {"init_from": None, "data_order": 1}

    @property
    def tokens(self) -> int:
        """Length T of a run."""
        return int(self.training["tokens"])

    @property
    def hash(self) -> str:
        """SHA-256 of the whole configuration."""
        return hash_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able document that `study_from_mapping` reads back."""
        document = self.model_dump()
        if "learned" not in self.merging.alignments:
            del document["merging"]["learn"]
        return document

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not isinstance(self.training.get("tokens"), int):
            raise UsageError("'training.tokens' is missing", hint="the length of a run, in tokens")
        _check_start(self)
        for arm in ArmsConfig.model_fields:
            for number, entry in enumerate(getattr(self.arms, arm)):
                _check_languages(self, entry, f"arms.{arm}[{number}]")
                _check_fractions(entry, f"arms.{arm}[{number}]")
        if self.paths:
            _check_languages(self, self.paths, "paths")
        for order in self.arms.C:
            if (order.data_seed is None) == (order.content == "same"):
                raise UsageError(
                    "each entry of 'arms.C' needs one of 'data_seed', 'content: disjoint'"
                )
        return self


def load_study(path: str | Path) -> StudyConfig:
    """Read a study file."""
    return load(StudyConfig, find_file(path, EXAMPLES, "study file"), "study file")


def study_from_mapping(document: Mapping[str, Any]) -> StudyConfig:
    """Build and check a study."""
    return parse(StudyConfig, document)


def _check_start(config: StudyConfig) -> None:
    """From scratch a study states a shape; from a model it has doses and nothing else."""
    if config.init_from is None:
        if not config.architecture:
            raise UsageError(
                "'architecture' is missing", hint="or init_from: a model to start from"
            )
        if any("lora" in arm.kinds for arm in config.arms.E):
            raise UsageError("'arms.E' trains adapters, which needs 'init_from'")
        return
    others = [arm for arm in ArmsConfig.model_fields if arm != "E" and getattr(config.arms, arm)]
    if others:
        raise UsageError(
            f"'arms.{others[0]}' goes with models from scratch", hint="init_from goes with arms.E"
        )


def _check_languages(config: StudyConfig, entry: Any, where: str) -> None:
    named = [getattr(entry, key) for key in ("trunk", "language") if hasattr(entry, key)]
    for language in (*getattr(entry, "languages", ()), *named):
        if language not in config.languages:
            raise unknown_name(f"language in '{where}'", language, config.languages)


def _check_fractions(entry: Any, where: str) -> None:
    for fraction in getattr(entry, "fractions", ()):
        if not 0 <= fraction < 1:
            raise UsageError(f"'{where}.fractions' has {fraction}", hint="from 0 to less than 1")
    for size in getattr(entry, "k", ()):
        if size < 2:
            raise UsageError(f"'{where}.k' has {size}", hint="two or more parents")
