"""From the arms of a study to the model families that it trains."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Any

from repsim.core.errors import UsageError
from repsim.pretraining.config import FamilyConfig, from_mapping
from repsim.pretraining.config_training import FULL_RATE, LORA_RATE
from repsim.pretraining.planning import Phase, RunPlan, plan
from repsim.studies.study_file import DerivedArm, StudyConfig, TokenizerArm

MIXED, FINISHED = "mixed", "mixed-long"


@dataclasses.dataclass(frozen=True)
class StudyModel:
    """One trained model of a study."""

    name: str
    arm: str
    family: FamilyConfig
    run: RunPlan

    @property
    def own_languages(self) -> tuple[str, ...]:
        """Languages of its own last phase."""
        return self.run.languages


@dataclasses.dataclass
class _Family:
    """A family in the making: runs by name, each with the arm that asked for it first."""

    languages: tuple[str, ...]
    kind: str = "joint"
    content: str = "same"
    runs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    arms: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, arm: str, name: str, **run: Any) -> str:
        """Add a run, once."""
        if name in self.runs and self.runs[name] != run:
            raise UsageError(f"two arms make different runs called '{name}'")
        self.runs[name] = run
        self.arms.setdefault(name, arm)
        return name


def short(language: str) -> str:
    """A language in the name of a run."""
    base, *rules = language.split("~")
    return "-".join([base.split("_")[0], *rules])


def fork_name(language: str, fraction: float) -> str:
    """Name of a fork of the mixed trunk."""
    return f"{short(language)}-f{fraction:g}"


def seed_name(language: str, seed: int) -> str:
    """Name of a model that starts from initial weights of its own."""
    return f"{short(language)}-s{seed}"


def dose_name(language: str, dose: float, rate: float, kind: str = "full") -> str:
    """Name of a dose on the finished mixed model, or on the model that a study starts from."""
    return f"{short(language)}-dose{dose:g}-lr{rate:g}" + ("" if kind == "full" else f"-{kind}")


def trunk_name(language: str, trunk: str, fraction: float) -> str:
    """Name of a fork of a trunk in one language."""
    return f"{short(language)}-of-{short(trunk)}-f{fraction:g}"


def tokenizer_family(arm: TokenizerArm) -> str:
    """Name of the family of a tokenizer arm."""
    return "bytes" if arm.kind == "bytes" else "tokenizers"


def derived_family(arm: DerivedArm) -> str:
    """Name of the family of a language and its derived forms."""
    return f"derived-{short(arm.language)}"


def derived_languages(arm: DerivedArm) -> tuple[str, ...]:
    """The language and its derived forms."""
    return (arm.language, *(f"{arm.language}~{rule}" for rule in arm.rules))


def families(config: StudyConfig) -> dict[str, FamilyConfig]:
    """Every family that the arms ask for."""
    return {name: _configured(config, name, made) for name, made in _made(config).items()}


def study_models(config: StudyConfig) -> dict[str, StudyModel]:
    """Every trained model of a study, by name; trunks before their forks."""
    models = {}
    for name, made in _made(config).items():
        family = _configured(config, name, made)
        for run in plan(family):
            model = StudyModel(f"{name}/{run.name}", made.arms[run.name], family, run)
            models[model.name] = model
    return models


def _made(config: StudyConfig) -> dict[str, _Family]:
    made = {"main": _Family(config.languages)}
    main = made["main"]
    _forks(config, main)
    _trunks(config, main)
    _doses(config, main)
    for seed_arm in config.arms.B:
        for language in seed_arm.languages:
            _scratch(main, "B", seed_name(language, seed_arm.seed), language, seed_arm.seed)
    for order in config.arms.C:
        if order.content == "same":
            for language in order.languages:
                seeds = {"init_seed": config.seed, "data_seed": order.data_seed}
                name = f"{short(language)}-order{order.data_seed}"
                main.add("C", name, languages=[language], **seeds)
                _scratch(main, "C", fork_name(language, 0), language, config.seed)
        else:
            other = made.setdefault("disjoint", _Family(order.languages, content="disjoint"))
            for language in order.languages:
                _scratch(other, "C", fork_name(language, 0), language, config.seed)
    for tokenizer in config.arms.D:
        _tokenizers(made, tokenizer)
    for derived in config.arms.F:
        _derived(config, made, derived)
    _controls(config, main)
    return {name: family for name, family in made.items() if family.runs}


def _scratch(family: _Family, arm: str, name: str, language: str, seed: int, **more: Any) -> str:
    return family.add(
        arm, name, languages=[language], init_seed=seed, data_seed=seed, **more
    )  # fmt: skip


def _mixed(config: StudyConfig, family: _Family, arm: str) -> str:
    return family.add(
        arm, MIXED, languages=list(family.languages), init_seed=config.seed, data_seed=config.seed
    )


def _forks(config: StudyConfig, main: _Family) -> None:
    for arm in config.arms.A:
        for fraction in arm.fractions:
            for language in arm.languages or config.languages:
                _fork(config, main, "A", language, fraction)
        if arm.with_trunk:
            _mixed(config, main, "A")


def _fork(config: StudyConfig, family: _Family, arm: str, language: str, fraction: float) -> str:
    """A fork at 0 is a model from scratch with the trunk's seeds, and waits for no trunk."""
    if fraction == 0:
        return _scratch(family, arm, fork_name(language, 0), language, config.seed)
    trunk = _mixed(config, family, arm)
    leave = {"from": trunk, "at": fraction}
    return family.add(arm, fork_name(language, fraction), languages=[language], fork=leave)


def _trunks(config: StudyConfig, main: _Family) -> None:
    for arm in config.arms.A2:
        trunk = _scratch(main, "A2", fork_name(arm.trunk, 0), arm.trunk, config.seed)
        for fraction in arm.fractions:
            for language in arm.languages:
                leave = {"from": trunk, "at": fraction}
                name = trunk_name(language, arm.trunk, fraction)
                main.add("A2", name, languages=[language], fork=leave)


def _doses(config: StudyConfig, main: _Family) -> None:
    if config.init_from:
        _doses_of_a_model(config, main)
        return
    for arm in config.arms.E:
        finished = main.add(
            "E", FINISHED, languages=list(config.languages), init_seed=config.seed,
            data_seed=config.seed, tokens=round(config.finished * config.tokens),
        )  # fmt: skip
        for language in arm.languages or config.languages:
            for dose in arm.doses:
                for rate in arm.rates:
                    peak = config.training.get("learning_rate", 3e-3) * rate
                    main.add(
                        "E", dose_name(language, dose, rate), languages=[language],
                        tokens=round(dose * config.tokens), training={"learning_rate": peak},
                        fork={"from": finished, "at": 1.0, "state": "weights"},
                    )  # fmt: skip


def _doses_of_a_model(config: StudyConfig, main: _Family) -> None:
    """Every run starts from `init_from`; an adapter has a usual learning rate of its own."""
    usual = {"full": config.training.get("learning_rate", FULL_RATE), "lora": LORA_RATE}
    for arm in config.arms.E:
        for language, dose, rate, kind in itertools.product(
            arm.languages or config.languages, arm.doses, arm.rates, arm.kinds
        ):
            training: dict[str, Any] = {"learning_rate": usual[kind] * rate}
            if kind == "lora":
                training["lora"] = {}
            main.add(
                "E", dose_name(language, dose, rate, kind), languages=[language],
                tokens=round(dose * config.tokens), training=training,
            )  # fmt: skip


def _tokenizers(made: dict[str, _Family], arm: TokenizerArm) -> None:
    name = tokenizer_family(arm)
    family = made.setdefault(name, _Family(arm.languages, kind=arm.kind))
    more = {"tokens": arm.tokens} if arm.tokens else {}
    for seed in arm.seeds:
        for language in arm.languages:
            _scratch(family, "D", seed_name(language, seed), language, seed, **more)


def _derived(config: StudyConfig, made: dict[str, _Family], arm: DerivedArm) -> None:
    languages = derived_languages(arm)
    family = made.setdefault(derived_family(arm), _Family(languages))
    for fraction in arm.fractions:
        for language in languages:
            _fork(config, family, "F", language, fraction)


def _controls(config: StudyConfig, main: _Family) -> None:
    """Controls are made from models at f = 0; `adjacent` needs a little more training."""
    for arm in config.arms.G:
        for language in arm.languages:
            parent = _scratch(main, "G", fork_name(language, 0), language, config.seed)
            if "adjacent" in arm.kinds:
                main.add(
                    "G", f"{short(language)}-next", languages=[language],
                    tokens=round(0.02 * config.tokens),
                    training={"learning_rate": config.training.get("learning_rate", 3e-3) / 10},
                    fork={"from": parent, "at": 1.0, "state": "weights"},
                )  # fmt: skip


def _configured(config: StudyConfig, name: str, made: _Family) -> FamilyConfig:
    start: dict[str, Any] = {
        "tokenizer": {"kind": made.kind, "vocab_size": config.vocabulary},
        "architecture": config.architecture,
    }
    if config.init_from:
        start = {"init_from": config.init_from, "architecture": config.architecture}
    scoring = {"validation_bytes": 10_000}
    if config.init_from:  # a curve would cost more than the training; the study scores at the end
        scoring = {"validation_bytes": 1000, "final_bytes": 1000, "validate_every": 1_000_000}
    return from_mapping(
        {
            "name": name,
            "corpus": _without_none(
                source=config.corpus,
                languages=list(made.languages),
                content=made.content,
                max_bytes=config.max_bytes,
            ),
            **start,
            "training": config.training,
            "data_order": config.data_order,
            "saving": {
                "checkpoints": "none",
                "log_every": 50,
                "state_every": 200,
                "dtype": config.dtype,
                **scoring,
            },
            "runs": [{"name": run, **about} for run, about in made.runs.items()],
        }
    )


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def common_history(runs: Iterable[RunPlan]) -> tuple[str, int] | None:
    """Run and step up to which all of some models were one, None if they began apart."""
    chosen = list(runs)
    if len({run.init_seed for run in chosen}) > 1:
        return None
    return functools.reduce(
        lambda known, run: min(known, _shared(chosen[0], run), key=lambda at: at[1]),
        chosen[1:],
        (chosen[0].name, chosen[0].last_step),
    )


def _shared(a: RunPlan, b: RunPlan) -> tuple[str, int]:
    """Last common run and step of two histories from the same initial weights."""
    at = (a.history[0].run, 0)
    for one, two in zip(a.history, b.history, strict=False):
        if _identity(one) != _identity(two):
            break
        at = (one.run, min(one.last_step, two.last_step))
        if one.last_step != two.last_step:
            break
    return at


def _identity(phase: Phase) -> tuple[str, int, tuple[tuple[str, float], ...]]:
    return phase.run, phase.data_seed, tuple(sorted(phase.mix.items()))
