"""Which models are merged with which: the groups of parents that the arms of a study ask for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from repsim.core.atlas import join_parents
from repsim.pretraining.parent import open_parent
from repsim.studies.arms import (
    FINISHED,
    MIXED,
    StudyModel,
    common_history,
    derived_family,
    derived_languages,
    dose_name,
    fork_name,
    seed_name,
    short,
    tokenizer_family,
    trunk_name,
)
from repsim.studies.study_file import ControlKind, StudyConfig

#: Folder of models that are made from others and not trained.
CONTROLS = "controls"
#: Kinds of control whose second model is made by changing the first.
TWINS = ("permuted", "rotated", "noise")


@dataclasses.dataclass(frozen=True)
class ControlModel:
    """A model made from a trained one."""

    name: str
    kind: ControlKind
    source: str
    distance_to: str = ""


#: The model that a study starts from, in the place of a run.
BASE = "base"


@dataclasses.dataclass(frozen=True)
class Ancestor:
    """The last point at which all parents were one model."""

    run: str
    step: int


@dataclasses.dataclass(frozen=True)
class ParentGroup:
    """Models to be merged."""

    arm: str
    parents: tuple[str, ...]
    languages: tuple[str, ...]
    ancestor: Ancestor | None
    shared_init: bool
    fork_fraction: float | None
    control: str = ""
    same_tokenizer: bool = True

    @property
    def name(self) -> str:
        """The parents, joined."""
        return join_parents(self.parents)


def control_models(config: StudyConfig) -> dict[str, ControlModel]:
    """Models that the control arm makes, by name."""
    made = {}
    for arm in config.arms.G:
        for number, language in enumerate(arm.languages):
            source = f"main/{fork_name(language, 0)}"
            other = arm.languages[(number + 1) % len(arm.languages)]
            for kind in arm.kinds:
                if kind in TWINS or kind == "untrained":
                    name = f"{CONTROLS}/{short(language)}-{kind}"
                    distance = f"main/{fork_name(other, 0)}" if kind == "noise" else ""
                    made[name] = ControlModel(name, kind, source, distance)
    return made


def parent_groups(config: StudyConfig, models: Mapping[str, StudyModel]) -> list[ParentGroup]:
    """Every group that the arms ask for, each once, in the order of the arms."""
    arms = {"A": _forks, "A2": _trunks, "B": _seeds, "C": _orders, "D": _tokenizers,
            "E": _doses, "F": _derived}  # fmt: skip
    found: dict[tuple[str, ...], ParentGroup] = {}
    for arm, groups_of in arms.items():
        for parents in groups_of(config):
            if parents not in found:
                found[parents] = _described(arm, parents, models)
    controls = [
        _control(config, kind, language, models)
        for arm in config.arms.G
        for kind in arm.kinds
        for language in arm.languages
    ]
    return [*found.values(), *controls]


def _described(arm: str, parents: tuple[str, ...], models: Mapping[str, StudyModel]) -> ParentGroup:
    members = [models[name] for name in parents]
    family = members[0].family
    if family.init_from:
        languages = dict.fromkeys(lang for member in members for lang in member.own_languages)
        shared = _fork_fraction(family.init_from, max(m.run.tokens for m in members))
        return ParentGroup(arm, parents, tuple(languages), Ancestor(BASE, 0), True, shared)
    common = common_history([member.run for member in members])
    ancestor = None if common is None else Ancestor(f"{family.name}/{common[0]}", common[1])
    shares = [(common[1] if common else 0) / member.run.last_step for member in members]
    alone = [m for m in members if m.run.name not in (MIXED, FINISHED)] or members
    return ParentGroup(
        arm=arm,
        parents=parents,
        languages=tuple(dict.fromkeys(lang for m in alone for lang in m.own_languages)),
        ancestor=ancestor,
        shared_init=common is not None,
        fork_fraction=min(shares),
        same_tokenizer=family.tokenizer.kind != "per-language",
    )


def _fork_fraction(init_from: str, own_tokens: int) -> float | None:
    """Share of the training that was the base's; None if that does not state what it has read."""
    known = open_parent(init_from).tokens
    return known / (known + own_tokens) if known else None


def _combinations(names: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    for size in sizes:
        yield from itertools.combinations(names, size)


def _forks(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.A:
        for fraction in arm.fractions:
            names = [
                f"main/{fork_name(lang, fraction)}" for lang in arm.languages or config.languages
            ]
            yield from _combinations(names, arm.k)
            if arm.with_trunk:
                yield from ((name, f"main/{MIXED}") for name in names)


def _trunks(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.A2:
        for fraction in arm.fractions:
            forks = [f"main/{trunk_name(lang, arm.trunk, fraction)}" for lang in arm.languages]
            yield from _combinations([f"main/{fork_name(arm.trunk, 0)}", *forks], (2,))


def _seeds(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    """Pairs of any two seeds, the shared one among them; larger groups differ in both."""
    if not config.arms.B:
        return
    languages = tuple(dict.fromkeys(lang for arm in config.arms.B for lang in arm.languages))
    known = [(lang, config.seed, f"main/{fork_name(lang, 0)}") for lang in languages
             if any(0 in arm.fractions for arm in config.arms.A)]  # fmt: skip
    known += [(lang, arm.seed, f"main/{seed_name(lang, arm.seed)}")
              for arm in config.arms.B for lang in arm.languages]  # fmt: skip
    for size in sorted({size for arm in config.arms.B for size in arm.k}):
        for chosen in itertools.combinations(known, size):
            different = len({seed for _, seed, _ in chosen}) == min(
                size, len({s for _, s, _ in known})
            )
            spread = size == 2 or len({lang for lang, _, _ in chosen}) == size
            if different and spread and len({seed for _, seed, _ in chosen}) > 1:
                yield tuple(name for _, _, name in chosen)


def _orders(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.C:
        if arm.content == "disjoint":
            yield from _combinations([f"disjoint/{fork_name(x, 0)}" for x in arm.languages], (2,))
            continue
        others = [f"main/{short(lang)}-order{arm.data_seed}" for lang in arm.languages]
        for lang, other in zip(arm.languages, others, strict=True):
            yield (f"main/{fork_name(lang, 0)}", other)
        yield from _combinations(others, (2,))


def _tokenizers(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.D:
        names = [f"{tokenizer_family(arm)}/{seed_name(lang, seed)}"
                 for seed in arm.seeds for lang in arm.languages]  # fmt: skip
        yield from _combinations(names, (2,))


def _doses(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.E:
        for rate, dose, kind in itertools.product(arm.rates, arm.doses, arm.kinds):
            names = [f"main/{dose_name(lang, dose, rate, kind)}"
                     for lang in arm.languages or config.languages]  # fmt: skip
            yield from _combinations(names, arm.k)


def _derived(config: StudyConfig) -> Iterator[tuple[str, ...]]:
    for arm in config.arms.F:
        for fraction in arm.fractions:
            names = [
                f"{derived_family(arm)}/{fork_name(x, fraction)}" for x in derived_languages(arm)
            ]
            yield from _combinations(names, (2,))


def _control(
    config: StudyConfig, kind: ControlKind, language: str, models: Mapping[str, StudyModel]
) -> ParentGroup:
    """A model and what was made of it, or two draws of initial weights."""
    source = f"main/{fork_name(language, 0)}"
    at_end = Ancestor(source, models[source].run.last_step)
    if kind == "self":
        return ParentGroup("G", (source, source), (language,), at_end, True, 1.0, kind)
    if kind == "adjacent":
        # The parent is its own ancestor there; both are scored on the one language.
        pair = (source, f"main/{short(language)}-next")
        return ParentGroup("G", pair, (language,), at_end, True, 1.0, kind)
    made = f"{CONTROLS}/{short(language)}-{kind}"
    if kind == "untrained":
        return ParentGroup("G", (made, made), (language,), None, True, 0.0, kind)
    shared = kind == "noise"
    return ParentGroup(
        "G", (source, made), (language,), at_end if shared else None, shared, float(shared), kind
    )
