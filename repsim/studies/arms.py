"""From the arms of a study to the model families that it trains."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from repsim.core.errors import UsageError
from repsim.pretraining.config import FamilyConfig, from_mapping
from repsim.pretraining.config_training import FULL_RATE, LORA_RATE
from repsim.pretraining.planning import Phase, RunPlan, plan
from repsim.studies.study_file import StudyConfig

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

    name: str
    languages: tuple[str, ...]
    kind: str = "joint"
    content: str = "same"
    runs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    arms: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, arm: str, name: str, **run: Any) -> str:
        """Add a run, once; its name among all models of the study."""
        if name in self.runs and self.runs[name] != run:
            raise UsageError(f"two arms make different runs called '{name}'")
        self.runs[name] = run
        self.arms.setdefault(name, arm)
        return f"{self.name}/{name}"


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


def families(config: StudyConfig) -> dict[str, FamilyConfig]:
    """Every family that the arms ask for."""
    return {name: _configured(config, made) for name, made in _made(config)[0].items()}


def study_models(config: StudyConfig) -> dict[str, StudyModel]:
    """Every trained model of a study, by name; trunks before their forks."""
    models = {}
    for name, made in _made(config)[0].items():
        family = _configured(config, made)
        for run in plan(family):
            model = StudyModel(f"{name}/{run.name}", made.arms[run.name], family, run)
            models[model.name] = model
    return models


def trained_groups(config: StudyConfig) -> dict[tuple[str, ...], str]:
    """Every group of trained models that the arms merge -> the first arm that asks for it."""
    found: dict[tuple[str, ...], str] = {}
    for arm, groups in sorted(_made(config)[1].items()):
        found |= {group: arm for group in groups if group not in found}
    return found


def _made(config: StudyConfig) -> tuple[dict[str, _Family], dict[str, list[tuple[str, ...]]]]:
    """Families with their runs, and by arm the groups of models that are merged."""
    made = {"main": _Family("main", config.languages)}
    work = {"A": _forks, "A2": _trunks, "E": _doses, "B": _seeds, "C": _orders, "D": _tokenizers,
            "F": _derived}  # fmt: skip
    groups = {arm: list(groups_of(config, made)) for arm, groups_of in work.items()}
    _controls(config, made["main"])
    return {name: family for name, family in made.items() if family.runs}, groups


def _combinations(names: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    for size in sizes:
        yield from itertools.combinations(names, size)


def _scratch(family: _Family, arm: str, name: str, language: str, seed: int, **more: Any) -> str:
    return family.add(arm, name, languages=[language], init_seed=seed, data_seed=seed, **more)


def _mixed(config: StudyConfig, family: _Family, arm: str) -> str:
    return family.add(
        arm, MIXED, languages=list(family.languages), init_seed=config.seed, data_seed=config.seed
    )


def _fork(config: StudyConfig, family: _Family, arm: str, language: str, fraction: float) -> str:
    """A fork at 0 is a model from scratch with the trunk's seeds, and waits for no trunk."""
    if fraction == 0:
        return _scratch(family, arm, fork_name(language, 0), language, config.seed)
    _mixed(config, family, arm)
    leave = {"from": MIXED, "at": fraction}
    return family.add(arm, fork_name(language, fraction), languages=[language], fork=leave)


def _forks(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    main = made["main"]
    for arm in config.arms.A:
        for fraction in arm.fractions:
            names = [_fork(config, main, "A", lang, fraction)
                     for lang in arm.languages or config.languages]  # fmt: skip
            yield from _combinations(names, arm.k)
            if arm.with_trunk:
                yield from ((name, f"main/{MIXED}") for name in names)
        if arm.with_trunk:
            _mixed(config, main, "A")


def _trunks(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    main = made["main"]
    for arm in config.arms.A2:
        trunk = _scratch(main, "A2", fork_name(arm.trunk, 0), arm.trunk, config.seed)
        for fraction in arm.fractions:
            leave = {"from": fork_name(arm.trunk, 0), "at": fraction}
            forks = [main.add("A2", f"{short(lang)}-of-{short(arm.trunk)}-f{fraction:g}",
                              languages=[lang], fork=leave)
                     for lang in arm.languages]  # fmt: skip
            yield from _combinations([trunk, *forks], (2,))


def _seeds(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    """Pairs of any two seeds, the shared one among them; larger groups differ in both."""
    if not config.arms.B:
        return
    languages = tuple(dict.fromkeys(lang for arm in config.arms.B for lang in arm.languages))
    known = [(lang, config.seed, f"main/{fork_name(lang, 0)}") for lang in languages
             if any(0 in arm.fractions for arm in config.arms.A)]  # fmt: skip
    for arm in config.arms.B:
        for lang in arm.languages:
            name = _scratch(made["main"], "B", seed_name(lang, arm.seed), lang, arm.seed)
            known.append((lang, arm.seed, name))
    seeds = len({seed for _, seed, _ in known})
    for size in sorted({size for arm in config.arms.B for size in arm.k}):
        for chosen in itertools.combinations(known, size):
            different = len({seed for _, seed, _ in chosen})
            spread = size == 2 or len({lang for lang, _, _ in chosen}) == size
            if 1 < different == min(size, seeds) and spread:
                yield tuple(name for _, _, name in chosen)


def _orders(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.C:
        if arm.content == "disjoint":
            apart = made.setdefault(
                "disjoint", _Family("disjoint", arm.languages, content="disjoint")
            )
            names = [_scratch(apart, "C", fork_name(lang, 0), lang, config.seed)
                     for lang in arm.languages]  # fmt: skip
            yield from _combinations(names, (2,))
            continue
        others = []
        for lang in arm.languages:
            seeds = {"init_seed": config.seed, "data_seed": arm.data_seed}
            name = f"{short(lang)}-order{arm.data_seed}"
            others.append(made["main"].add("C", name, languages=[lang], **seeds))
            first = _scratch(made["main"], "C", fork_name(lang, 0), lang, config.seed)
            yield (first, others[-1])
        yield from _combinations(others, (2,))


def _tokenizers(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.D:
        name = "bytes" if arm.kind == "bytes" else "tokenizers"
        family = made.setdefault(name, _Family(name, arm.languages, kind=arm.kind))
        more = {"tokens": arm.tokens} if arm.tokens else {}
        names = [_scratch(family, "D", seed_name(lang, seed), lang, seed, **more)
                 for seed in arm.seeds for lang in arm.languages]  # fmt: skip
        yield from _combinations(names, (2,))


def _doses(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    """Doses on the finished mixed model, or on `init_from`; adapters have a rate of their own."""
    main = made["main"]
    full = config.training.get("learning_rate", FULL_RATE if config.init_from else 3e-3)
    usual = {"full": full, "lora": LORA_RATE}
    for arm in config.arms.E:
        start: dict[str, Any] = {}
        if not config.init_from:
            main.add(
                "E", FINISHED, languages=list(config.languages), init_seed=config.seed,
                data_seed=config.seed, tokens=round(config.finished * config.tokens),
            )  # fmt: skip
            start = {"fork": {"from": FINISHED, "at": 1.0, "state": "weights"}}
        languages = arm.languages or config.languages
        made_of: dict[tuple[float, float, str], list[str]] = {}
        for lang, dose, rate, kind in itertools.product(languages, arm.doses, arm.rates, arm.kinds):
            lora: dict[str, Any] = {"lora": {}} if kind == "lora" else {}
            name = main.add(
                "E", dose_name(lang, dose, rate, kind), languages=[lang],
                tokens=round(dose * config.tokens),
                training={"learning_rate": usual[kind] * rate, **lora}, **start,
            )  # fmt: skip
            made_of.setdefault((rate, dose, kind), []).append(name)
        for key in itertools.product(arm.rates, arm.doses, arm.kinds):
            yield from _combinations(made_of[key], arm.k)


def _derived(config: StudyConfig, made: dict[str, _Family]) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.F:
        languages = (arm.language, *(f"{arm.language}~{rule}" for rule in arm.rules))
        name = f"derived-{short(arm.language)}"
        family = made.setdefault(name, _Family(name, languages))
        for fraction in arm.fractions:
            names = [_fork(config, family, "F", lang, fraction) for lang in languages]
            yield from _combinations(names, (2,))


def _controls(config: StudyConfig, main: _Family) -> None:
    """Controls are made from models at f = 0; `adjacent` needs a little more training."""
    for arm in config.arms.G:
        for language in arm.languages:
            _scratch(main, "G", fork_name(language, 0), language, config.seed)
            if "adjacent" in arm.kinds:
                main.add(
                    "G", f"{short(language)}-next", languages=[language],
                    tokens=round(0.02 * config.tokens),
                    training={"learning_rate": config.training.get("learning_rate", 3e-3) / 10},
                    fork={"from": fork_name(language, 0), "at": 1.0, "state": "weights"},
                )  # fmt: skip


def _configured(config: StudyConfig, made: _Family) -> FamilyConfig:
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
            "name": made.name,
            "corpus": {
                "source": config.corpus,
                "languages": list(made.languages),
                "content": made.content,
                **({} if config.max_bytes is None else {"max_bytes": config.max_bytes}),
            },
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
