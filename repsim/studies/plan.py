"""From a study file to units of work: what is to be trained, scored, measured and merged."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import UsageError
from repsim.studies.arms import StudyModel, study_models
from repsim.studies.engine.unit import Unit
from repsim.studies.groups import ControlModel, ParentGroup, control_models, parent_groups
from repsim.studies.study_file import StudyConfig, load_study

#: Processor seconds per million parameters, as measured on one core at 1.3M parameters: scoring
#: 20 kB of one language, measuring one pair, one merge, one point of a path in one language.
SECONDS = {"score": 0.6, "features": 4.0, "merge": 0.5, "control": 1.0, "path": 0.3}


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A study, worked out."""

    config: StudyConfig
    models: Mapping[str, StudyModel]
    controls: Mapping[str, ControlModel]
    groups: tuple[ParentGroup, ...]
    units: tuple[Unit, ...]

    def describe(self) -> list[dict[str, Any]]:
        """One row per kind of unit: how many, and processor seconds."""
        count = Counter(unit.kind for unit in self.units)
        return [
            {
                "kind": kind,
                "units": number,
                "seconds": round(sum(u.seconds for u in self.units if u.kind == kind)),
            }
            for kind, number in count.items()
        ]

    @property
    def merges(self) -> int:
        """Merges that will be made."""
        from repsim.studies.units.merging import trials

        return sum(len(trials(unit.spec)) for unit in self.units if unit.kind == "merge")


def plan_study(
    study: StudyConfig | str | Path, *, device: str | None = None, processes: int = 1,
    gpus: float | None = None,
) -> StudyPlan:  # fmt: skip
    """Work out a study.

    Args:
        study: The study, or its file.
        device: Where models are trained; the accelerator if there is one.
        processes: Processes that train one model together.
        gpus: Accelerators that each unit asks of a cluster, and each of those processes; 1 if the
            device is CUDA, else none.

    Raises:
        UsageError: The study asks for something that is not possible.

    Example:
        >>> plan = plan_study("tiny")
        >>> sorted({unit.kind for unit in plan.units})
        ['control', 'features', 'merge', 'path', 'pretrain', 'score']
    """
    config = study if isinstance(study, StudyConfig) else load_study(study)
    models = study_models(config)
    controls = control_models(config)
    groups = parent_groups(config, models)
    if not groups:
        raise UsageError("the study merges nothing", hint="give at least one of its arms an entry")
    how = {"device": device, "processes": processes}
    units = [_pretrain(config, model, models, how) for model in models.values()]
    units += [_control(config, control) for control in controls.values()]
    wanted = dict.fromkeys([*models, *(name for group in groups for name in group.parents)])
    units += [_score(config, name, models, controls) for name in wanted]
    for group in groups:
        units.append(_features(config, group, models))
        units.append(_merge(config, group, models, controls))
        if _has_path(config, group):
            units.append(_path(config, group, models, controls))
    wanted_gpus = gpus if gpus is not None else float((device or "").startswith("cuda"))
    units = [dataclasses.replace(u, gpus=wanted_gpus * u.processes) for u in units]
    return StudyPlan(config, models, controls, tuple(groups), tuple(units))


def _made_by(name: str, models: Mapping[str, StudyModel]) -> str:
    """The unit that makes a model."""
    return f"pretrain {name}" if name in models else f"control {name}"


def _millions(config: StudyConfig, models: Mapping[str, StudyModel]) -> float:
    return max(model.run.parameters for model in models.values()) / 1.3e6


def _pretrain(
    config: StudyConfig, model: StudyModel, models: Mapping[str, StudyModel], how: Mapping[str, Any]
) -> Unit:
    """The specification holds what the weights depend on; `how` what they do not."""
    run = dataclasses.asdict(model.run) | {"training": model.run.training.model_dump()}
    neutral = ("fork_steps", "checkpoints", "flops", "parameters")
    trunk = f"{model.family.name}/{model.run.fork_from}" if model.run.fork_from else None
    family = model.family.to_dict()
    spec = {
        "model": model.name,
        "arm": model.arm,
        "run": {key: value for key, value in run.items() if key not in neutral},
        "data": {key: family[key] for key in ("corpus", "tokenizer", "architecture")},
        "dtype": config.dtype,
        "how": {**how, "family": _plain(family), "trunk": trunk},
    }
    return Unit(
        kind="pretrain",
        name=f"pretrain {model.name}",
        spec=spec,
        needs=(f"pretrain {trunk}",) if trunk else (),
        seconds=model.run.cpu_seconds,
        processes=int(how["processes"]),
    )


def _control(config: StudyConfig, control: ControlModel) -> Unit:
    needed = [control.source, *([control.distance_to] if control.distance_to else [])]
    return Unit(
        kind="control",
        name=f"control {control.name}",
        spec={
            "model": control.name,
            "kind": control.kind,
            "source": control.source,
            "distance_to": control.distance_to,
            "seed": config.seed,
        },
        needs=tuple(f"pretrain {name}" for name in needed),
        seconds=SECONDS["control"],
    )


def _text(config: StudyConfig, languages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "corpus": config.corpus,
        "languages": list(languages),
        "max_bytes": config.evaluation.max_bytes,
    }


def _family_languages(
    name: str, models: Mapping[str, StudyModel], controls: Mapping[str, ControlModel]
) -> tuple[str, ...]:
    source = controls[name].source if name in controls else name
    return models[source].family.corpus.languages


def _score(
    config: StudyConfig,
    name: str,
    models: Mapping[str, StudyModel],
    controls: Mapping[str, ControlModel],
) -> Unit:
    languages = _family_languages(name, models, controls)
    seconds = SECONDS["score"] * len(languages) * _millions(config, models)
    return Unit(
        kind="score",
        name=f"score {name}",
        spec={"model": name, **_text(config, languages)},
        needs=(_made_by(name, models),),
        seconds=seconds,
    )


def _features(config: StudyConfig, group: ParentGroup, models: Mapping[str, StudyModel]) -> Unit:
    pairs = len(group.parents) * (len(group.parents) - 1) / 2
    spec = {
        "parents": list(group.parents),
        "languages": list(group.languages),
        "tiers": list(config.features.tiers),
        "corpus": config.features.corpus,
        "sentences": config.features.sentences,
        "text": config.corpus,
    }
    needs = dict.fromkeys(_made_by(name, models) for name in group.parents)
    return Unit(
        kind="features",
        name=f"features {group.name}",
        spec=spec,
        needs=tuple(needs),
        seconds=SECONDS["features"] * (1 + pairs) * _millions(config, models),
    )


def _merge(
    config: StudyConfig,
    group: ParentGroup,
    models: Mapping[str, StudyModel],
    controls: Mapping[str, ControlModel],
) -> Unit:
    merging = config.merging
    larger = len(group.parents) > 2
    aligned = [m for m in merging.aligned_methods if not larger or m in merging.larger_groups]
    spec = {
        "arm": group.arm,
        "parents": list(group.parents),
        "control": group.control,
        "shared_init": group.shared_init,
        "fork_fraction": group.fork_fraction,
        **_text(config, group.languages),
        "family_languages": list(_family_languages(group.parents[0], models, controls)),
        "methods": list(merging.larger_groups if larger else merging.methods),
        "aligned_methods": aligned,
        "alignments": list(merging.alignments) if group.same_tokenizer else [],
        "from_zero": list(merging.from_zero),
        "parameters": merging.parameters,
        "seed": config.seed,
        **_ancestor(group, models),
    }
    needs = [f"score {name}" for name in dict.fromkeys(group.parents)]
    needs += [_made_by(name, models) for name in dict.fromkeys(group.parents)]
    if group.ancestor:
        needs.append(f"pretrain {group.ancestor.run}")
    unit = Unit(
        kind="merge", name=f"merge {group.name}", spec=spec, needs=tuple(dict.fromkeys(needs))
    )
    made = len(merging.methods) + 2 * len(aligned)
    cost = SECONDS["merge"] * made * len(group.languages) * _millions(config, models)
    return dataclasses.replace(unit, seconds=cost)


def _has_path(config: StudyConfig, group: ParentGroup) -> bool:
    """Whether the loss is followed between these parents: two models of one vocabulary."""
    paths = config.paths
    return (
        paths is not None
        and len(set(group.parents)) == 2
        and group.same_tokenizer
        and group.arm in paths.arms
        and set(group.languages) <= set(paths.languages or config.languages)
    )


def _path(
    config: StudyConfig,
    group: ParentGroup,
    models: Mapping[str, StudyModel],
    controls: Mapping[str, ControlModel],
) -> Unit:
    assert config.paths is not None
    spec = {
        "parents": list(group.parents),
        **_text(config, group.languages),
        "family_languages": list(_family_languages(group.parents[0], models, controls)),
        "points": config.paths.points,
        "alignments": list(config.paths.alignments),
    }
    points = config.paths.points * (1 + len(config.paths.alignments)) * len(group.languages)
    return Unit(
        kind="path",
        name=f"path {group.name}",
        spec=spec,
        needs=tuple(dict.fromkeys(_made_by(name, models) for name in group.parents)),
        seconds=SECONDS["path"] * points * _millions(config, models),
    )


def _ancestor(group: ParentGroup, models: Mapping[str, StudyModel]) -> dict[str, Any]:
    if group.ancestor is None:
        return {"ancestor": None}
    run = models[group.ancestor.run].run
    return {
        "ancestor": dataclasses.asdict(group.ancestor),
        "ancestor_last_step": run.last_step,
        "init_seed": run.init_seed,
    }


def _plain(family: dict[str, Any]) -> dict[str, Any]:
    """A family as a configuration reads it: what is not given is left out."""
    document = {key: value for key, value in family.items() if key != "runs"}
    document["runs"] = [_without_empty(run) for run in family["runs"]]
    document["corpus"] = _without_empty(family["corpus"])
    return document


def _without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in document.items() if value not in (None, (), [], {})}
    if isinstance(kept.get("fork"), Mapping):
        fork = _without_empty(kept["fork"])
        fork["from"] = fork.pop("run")
        kept["fork"] = fork
    return kept
