"""Which models are merged with which: the groups of parents that the arms of a study ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from repsim.core.atlas import join_parents
from repsim.pretraining.parent import open_parent
from repsim.studies.arms import (
    FINISHED,
    MIXED,
    StudyModel,
    common_history,
    fork_name,
    short,
    trained_groups,
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
    controls = [
        _control(config, kind, language, models)
        for arm in config.arms.G
        for kind in arm.kinds
        for language in arm.languages
    ]
    trained = trained_groups(config).items()
    return [*(_described(arm, parents, models) for parents, arm in trained), *controls]


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
