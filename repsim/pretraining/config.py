"""What to train: one model or a family of models, as a YAML file describes it.

A family shares corpus, tokenizer and architecture; its runs differ in languages, seeds, history
and, where they say so, in training settings. `examples/two_languages.yaml` is annotated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from repsim.core.config import Config, Number, Whole, find_file, join, load, parse
from repsim.core.errors import UsageError, unknown_name
from repsim.core.files import hash_json
from repsim.pretraining.architecture import ArchitectureConfig
from repsim.pretraining.config_corpus import CorpusConfig, TokenizerConfig
from repsim.pretraining.config_training import (
    CONTEXT,
    GENTLE,
    SavingConfig,
    TrainingConfig,
    gentle_rate,
    usual_rate,
)
from repsim.pretraining.stable import StableConfig

EXAMPLES = Path(__file__).parent / "examples"
#: Names that a run may not have: folders that the runs of a family share.
RESERVED = ("tokenizers", "shards")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ForkConfig(Config):
    """Where a run starts, if not from scratch: at a share or a step of another run."""

    run: str = Field(alias="from")
    at: Number | None = Field(default=None, ge=0, le=1)
    step: Whole | None = Field(default=None, ge=0)
    state: Literal["weights", "weights+optimizer"] = "weights+optimizer"
    schedule: Literal["continue", "restart"] | None = None


class StageConfig(Config):
    """A stretch of a run with a mixture of its own, up to a share of the run's own steps."""

    until: Number = Field(default=1.0, gt=0, le=1)
    mix: dict[str, Number] = Field(min_length=1)


class RunConfig(StableConfig):
    """One model of a family, named as its folder; `training` differs from the family's."""

    name: str
    languages: tuple[str, ...] = ()
    mix: dict[str, Number] = Field(default_factory=dict)
    stages: tuple[StageConfig, ...] = ()
    temperature: Number = Field(default=0.0, ge=0, le=1)
    init_seed: Whole | None = Field(default=None, ge=0)
    data_seed: Whole | None = Field(default=None, ge=0)
    tokens: Whole | None = Field(default=None, ge=1)
    steps: Whole | None = Field(default=None, ge=1)
    fork: ForkConfig | None = None
    role: Literal["monolingual", "mixed", "fine-tuned", "other"] | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    unsaid: ClassVar = {"stages": ()}

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Languages of this run's own training text."""
        staged = dict.fromkeys(language for stage in self.stages for language in stage.mix)
        return tuple(staged) or tuple(self.mix) or self.languages


class FamilyConfig(Config):
    """Models that share corpus, tokenizer and architecture.

    With `init_from` (a folder, "zoo:NAME" or a hub id, "@revision" behind it) every run that is no
    fork starts from that model, whose shape and tokenizer are those of the family; `architecture`
    then says no more than the `context`. `data_order` 2 mixes in exact shares, and a fork goes on
    in text that its history has not read; 1 is the order of version 0.1, in which every 256 samples
    hold the same counts and a fork reads what stands at its trunk's position, read before or not.

    Example:
        >>> config = from_mapping({
        ...     "name": "one", "corpus": {"source": "bible", "languages": ["eng_Latn"]},
        ...     "architecture": {"size": "1m"}, "training": {"tokens": 65536},
        ...     "runs": [{"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}]})
        >>> config.architecture.hidden, config.runs[0].name
        (128, 'eng')
    """

    name: str
    corpus: CorpusConfig
    init_from: str | None = None
    data_order: Literal[1, 2] = 2
    architecture: ArchitectureConfig = Field(default=None, validate_default=True)
    runs: tuple[RunConfig, ...]
    tokenizer: TokenizerConfig = TokenizerConfig()
    training: dict[str, Any] = Field(default_factory=dict)
    saving: SavingConfig = SavingConfig()

    def run(self, name: str) -> RunConfig:
        """The run of a name."""
        for run in self.runs:
            if run.name == name:
                return run
        raise unknown_name("run", name, [run.name for run in self.runs])

    def training_of(self, run: RunConfig) -> TrainingConfig:
        """The family's training settings with the run's own on top."""
        where = f"runs[{self.runs.index(run)}]"
        shared, own = dict(self.training), dict(run.training)
        own |= {k: v for k in ("tokens", "steps") if (v := getattr(run, k)) is not None}
        if own.keys() & {"tokens", "steps"} or run.fork:
            shared.pop("tokens", None)
            shared.pop("steps", None)
        parse(TrainingConfig, run.training, join(where, "training"))
        scratch = {"learning_rate": usual_rate(self.architecture.hidden)}
        defaults = scratch if self.init_from is None else GENTLE | gentle_rate(shared | own)
        return parse(TrainingConfig, defaults | shared | own, "training")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able document; what version 0.1 did not know only where it says something."""
        unsaid = {"init_from"} if self.init_from is None else set()
        unsaid |= {"data_order"} if self.data_order == 1 else set()
        return self.model_dump(exclude=unsaid)

    @property
    def hash(self) -> str:
        """SHA-256 of the whole configuration."""
        return hash_json(self.to_dict())

    @field_validator("architecture", mode="before")
    @classmethod
    def _resolved(cls, given: Any, info: ValidationInfo) -> Any:
        if info.data.get("init_from") is None:
            if given is None:
                raise PydanticKnownError("missing")
            return parse(ArchitectureConfig, given, "architecture").resolved()
        if more := sorted(set(given or {}) - {"context"}):
            raise UsageError(
                f"'architecture.{more[0]}' goes with models from scratch",
                hint="init_from gives the shape; only architecture.context can be chosen",
            )
        return ArchitectureConfig(**{"context": CONTEXT, **(given or {})})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.runs:
            raise UsageError("'runs' is empty")
        if self.data_order == 1 and not isinstance(self.corpus.source, str):
            raise UsageError("'data_order' 1 goes with one source", hint="leave it out")
        if self.init_from is not None and "tokenizer" in self.model_fields_set:
            raise UsageError("'tokenizer' cannot be chosen: it is that of init_from")
        for i, run in enumerate(self.runs):
            _check_run(self, run, f"runs[{i}]")
        return self


def load_config(path: str | Path) -> FamilyConfig:
    """Read a configuration from a YAML file, or one that ships with the package by its name.

    Example:
        >>> [run.name for run in load_config("two_languages").runs][:2]
        ['eng', 'deu']
    """
    return load(FamilyConfig, find_file(path, EXAMPLES, "configuration"), "configuration")


def from_mapping(document: Mapping[str, Any]) -> FamilyConfig:
    """Build and check a configuration."""
    return parse(FamilyConfig, document)


def _check_run(config: FamilyConfig, run: RunConfig, where: str) -> None:
    """What the types cannot say of one run."""
    if not _RUN_NAME.fullmatch(run.name) or run.name in RESERVED:
        raise UsageError(
            f"'{where}.name' is '{run.name}', which cannot be the name of a run's folder",
            hint="letters, digits, dots, dashes and underscores; not " + " or ".join(RESERVED),
        )
    if [other.name for other in config.runs].count(run.name) > 1:
        raise UsageError(f"two runs have the name '{run.name}'")
    if bool(run.mix) + bool(run.languages) + bool(run.stages) != 1:
        raise UsageError(f"'{where}' needs one of 'languages', 'mix' and 'stages'")
    for language in run.trained_on:
        if language not in config.corpus.languages:
            raise unknown_name(
                f"language in '{where}' (not in corpus.languages)",
                language,
                config.corpus.languages,
            )
    for mix in (run.mix, *(stage.mix for stage in run.stages)):
        if any(share <= 0 for share in mix.values()):
            raise UsageError(f"'{where}.mix' has a share that is not positive")
    ends = [stage.until for stage in run.stages]
    if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
        raise UsageError(
            f"'{where}.stages' end at {', '.join(f'{end:g}' for end in ends)}",
            hint="each 'until' is above the one before, and the last is 1 (or left out)",
        )
    if not run.languages and run.temperature:
        raise UsageError(f"'{where}.temperature' goes with 'languages', not with shares")
    if config.tokenizer.kind == "per-language" and len(run.trained_on) > 1:
        raise UsageError(
            f"'{where}' mixes languages, but each language has its own tokenizer",
            hint="set tokenizer.kind to joint or bytes",
        )
    training = config.training_of(run)
    if training.schedule == "wsd" and training.warmup + training.decay > 1 + 1e-9:
        raise UsageError(
            f"'{where}': training.warmup {training.warmup:g} and training.decay "
            f"{training.decay:g} are more than the whole run",
            hint="they are shares of its steps; their sum is at most 1",
        )
    if training.batch % training.accumulation:
        raise UsageError(
            f"'{where}': batch {training.batch} is not a multiple of accumulation "
            f"{training.accumulation}"
        )
    if run.fork is None:
        training.length(config.architecture.context, where)
    if run.fork is None and (run.init_seed is None) != bool(config.init_from):
        raise UsageError(
            f"'{where}.init_seed' has no meaning: its initial weights are those of init_from"
            if config.init_from
            else f"'{where}' needs an 'init_seed' (or a 'fork', or the family an 'init_from')"
        )
    if training.lora and not config.init_from:
        raise UsageError(f"'{where}' trains an adapter of nothing", hint="say init_from")
    if run.fork:
        _check_fork(config, run, where)


def _check_fork(config: FamilyConfig, run: RunConfig, where: str) -> None:
    """The history of a forked run: it exists, has no circle, and fits."""
    assert run.fork is not None
    if (run.fork.at is None) == (run.fork.step is None):
        raise UsageError(f"'{where}.fork' needs one of 'at' and 'step'")
    if run.init_seed is not None:
        raise UsageError(
            f"'{where}.init_seed' has no meaning in a fork",
            hint="its initial weights are its trunk's",
        )
    seen = [run.name]
    node: RunConfig | None = run
    while node is not None and node.fork is not None:
        if node.fork.run in seen:
            raise UsageError(
                f"'{where}.fork' goes in a circle: {' from '.join([*seen, node.fork.run])}"
            )
        seen.append(node.fork.run)
        node = config.run(node.fork.run)
    trunk = config.run(run.fork.run)
    if config.tokenizer.kind == "per-language" and trunk.trained_on != run.trained_on:
        raise UsageError(f"'{where}' and its trunk have different tokenizers")
    ours, theirs = config.training_of(run), config.training_of(trunk)
    if theirs.patience:
        raise UsageError(f"the trunk of '{where}' may stop early", hint="no 'patience' in a trunk")
    if ours.lora != theirs.lora:
        raise UsageError(f"'{where}' and its trunk train different adapters", hint="use one 'lora'")
    if run.fork.state == "weights+optimizer" and ours.optimizer != theirs.optimizer:
        raise UsageError(
            f"'{where}' takes over the state of {theirs.optimizer} but trains with "
            f"{ours.optimizer}",
            hint="fork.state: weights",
        )
