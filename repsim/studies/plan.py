"""From a study file to units of work: what is to be trained, scored, measured and merged."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import UsageError
from repsim.pretraining.costs import validation_seconds
from repsim.pretraining.parent import open_parent
from repsim.studies.arms import StudyModel, study_models
from repsim.studies.engine.unit import HOW, Unit
from repsim.studies.groups import BASE, ControlModel, ParentGroup, control_models, parent_groups
from repsim.studies.study_file import StudyConfig, load_study

#: Processor seconds as measured on one core at 1.3M parameters: scoring 20 kB of one language,
#: measuring one pair on 200 sentences, one merge and one point of a path on 20 kB of one language.
SECONDS = {
    "score": 0.6, "features": 4.0, "merge": 0.5, "control": 1.0, "path": 0.3, "learn": 4e-4,
}  # fmt: skip
#: Processor seconds that a unit takes however small its models are: text, tokenizer, floors; as
#: measured on the example `tiny`.
START = {"pretrain": 1.6, "score": 1.0, "features": 0.4, "merge": 1.6, "control": 0.0, "path": 1.6}


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
    """Work out a study."""
    config = study if isinstance(study, StudyConfig) else load_study(study)
    make = _Maker(config, {"device": device, "processes": processes})
    if not make.groups:
        raise UsageError("the study merges nothing", hint="give at least one of its arms an entry")
    units = [make.pretrain(model) for model in make.models.values()]
    units += [make.control(control) for control in make.controls.values()]
    units += [make.score_base()] if config.init_from else []
    parents = (name for group in make.groups for name in group.parents)
    units += [make.score(name) for name in dict.fromkeys([*make.models, *parents])]
    for group in make.groups:
        units += [make.features(group), make.merge(group), *make.path(group)]
    wanted = gpus if gpus is not None else float((device or "").startswith("cuda"))
    units = [dataclasses.replace(u, gpus=wanted * u.processes) for u in units]
    return StudyPlan(config, make.models, make.controls, tuple(make.groups), tuple(units))


class _Maker:
    """Units of one study. Their specifications are their addresses."""

    def __init__(self, config: StudyConfig, how: Mapping[str, Any]) -> None:
        self.config, self.how = config, how
        self.models, self.controls = study_models(config), control_models(config)
        self.groups = parent_groups(config, self.models)
        largest = max((m.run.parameters for m in self.models.values()), default=0)
        self.start: dict[str, Any] = {}
        if config.init_from:
            start = open_parent(config.init_from)
            self.start = {"base": start.ref.weights_hash or start.origin}
            self.how = {**how, "init_from": config.init_from}
        text, sentences = config.evaluation.max_bytes / 20_000, config.features.sentences / 200
        share = {"features": sentences, "control": 1.0, "learn": 1.0}
        self._seconds = {k: s * largest / 1.3e6 * share.get(k, text) for k, s in SECONDS.items()}

    def pretrain(self, model: StudyModel) -> Unit:
        """The specification holds what the weights depend on; `how` what they do not."""
        run = dataclasses.asdict(model.run) | {"training": model.run.training.model_dump()}
        run["history"] = [phase.to_dict() for phase in model.run.history]
        neutral = {"fork_steps", "checkpoints", "flops", "parameters"}
        neutral |= {"data_order"} if model.run.data_order == 1 else set()
        trunk = f"{model.family.name}/{model.run.fork_from}" if model.run.fork_from else None
        family = model.family.to_dict()
        plain = model.family.model_dump(by_alias=True, exclude_defaults=True)
        spec = {
            "model": model.name,
            "arm": model.arm,
            "run": {key: value for key, value in run.items() if key not in neutral},
            "data": {key: family[key] for key in ("corpus", "tokenizer", "architecture")},
            **self.start,
            "dtype": self.config.dtype,
            HOW: {**self.how, "family": json.loads(json.dumps(plain)), "trunk": trunk},
        }
        needs = [f"pretrain {trunk}"] if trunk else []
        scoring = validation_seconds(model.family, [model.run])[model.run.name]
        seconds, processes = model.run.cpu_seconds + scoring, int(self.how["processes"])
        return _unit("pretrain", model.name, spec, needs, seconds, processes)

    def control(self, control: ControlModel) -> Unit:
        """A model made from a trained one."""
        spec = {
            "model": control.name,
            "kind": control.kind,
            "source": control.source,
            "distance_to": control.distance_to,
            "seed": self.config.seed,
        }
        needs = [f"pretrain {name}" for name in (control.source, control.distance_to) if name]
        return _unit("control", control.name, spec, needs, SECONDS["control"])

    def score_base(self) -> Unit:
        """The model that the study starts from, on all languages."""
        languages = self.config.languages
        spec = {"model": BASE, **self._text(languages), **self.start, HOW: self.how}
        return _unit("score", BASE, spec, [], self._seconds["score"] * len(languages))

    def score(self, name: str) -> Unit:
        """A model on all languages of its family."""
        languages = self._family_languages(name)
        spec = {"model": name, **self._text(languages)}
        seconds = self._seconds["score"] * len(languages)
        return _unit("score", name, spec, [self._made_by(name)], seconds)

    def features(self, group: ParentGroup) -> Unit:
        """What is measured before a merge."""
        spec = {
            "parents": list(group.parents),
            "languages": list(group.languages),
            "tiers": list(self.config.features.tiers),
            "corpus": self.config.features.corpus,
            "sentences": self.config.features.sentences,
            "text": self.config.corpus,
        }
        seconds = self._seconds["features"] * (1 + math.comb(len(group.parents), 2))
        return _unit("features", group.name, spec, map(self._made_by, group.parents), seconds)

    def merge(self, group: ParentGroup) -> Unit:
        """A group of parents by every method and alignment."""
        merging, larger = self.config.merging, len(group.parents) > 2
        aligned = [m for m in merging.aligned_methods if not larger or m in merging.larger_groups]
        alignments = list(merging.alignments) if group.same_tokenizer else []
        counted = merging.token_weights and group.same_tokenizer
        spec = {
            "arm": group.arm,
            "parents": list(group.parents),
            "control": group.control,
            "shared_init": group.shared_init,
            "fork_fraction": group.fork_fraction,
            **self._text(group.languages),
            "family_languages": list(self._family_languages(group.parents[0])),
            "methods": list(merging.larger_groups if larger else merging.methods),
            "aligned_methods": aligned,
            "alignments": alignments,
            "from_zero": list(merging.from_zero),
            "parameters": merging.parameters,
            "seed": self.config.seed,
            **({"learn": merging.learn.model_dump()} if "learned" in alignments else {}),
            **({"token_weights": True} if counted else {}),
            **self._ancestor(group),
            **({**self.start, HOW: self.how} if self.start else {}),
        }
        needs = [f"score {name}" for name in group.parents]
        needs += [self._made_by(name) for name in group.parents]
        needs += [f"pretrain {group.ancestor.run}"] if group.ancestor and not self.start else []
        made = len(merging.methods) + len(alignments) * len(aligned)
        made += (1 + len(alignments)) * len(aligned) * counted
        seconds = self._seconds["merge"] * made * len(group.languages)
        seconds += (
            self._seconds["learn"]
            * merging.learn.tokens
            * ("learned" in alignments)
            * (1 + counted)
        )
        return _unit("merge", group.name, spec, needs, seconds)

    def path(self, group: ParentGroup) -> list[Unit]:
        """The path between two models of one vocabulary, where it is to be followed."""
        paths = self.config.paths
        if (
            paths is None
            or len(set(group.parents)) != 2
            or not group.same_tokenizer
            or group.arm not in paths.arms
            or not set(group.languages) <= set(paths.languages or self.config.languages)
        ):
            return []
        spec = {
            "parents": list(group.parents),
            **self._text(group.languages),
            "family_languages": list(self._family_languages(group.parents[0])),
            "points": paths.points,
            "alignments": list(paths.alignments),
        }
        points = paths.points * (1 + len(paths.alignments)) * len(group.languages)
        needs = map(self._made_by, group.parents)
        return [_unit("path", group.name, spec, needs, self._seconds["path"] * points)]

    def _made_by(self, name: str) -> str:
        """The unit that makes a model."""
        return f"pretrain {name}" if name in self.models else f"control {name}"

    def _family_languages(self, name: str) -> tuple[str, ...]:
        source = self.controls[name].source if name in self.controls else name
        return self.models[source].family.corpus.languages

    def _text(self, languages: tuple[str, ...]) -> dict[str, Any]:
        limit = self.config.evaluation.max_bytes
        return {"corpus": self.config.corpus, "languages": list(languages), "max_bytes": limit}

    def _ancestor(self, group: ParentGroup) -> dict[str, Any]:
        if group.ancestor is None or group.ancestor.run == BASE:
            return {"ancestor": group.ancestor and dataclasses.asdict(group.ancestor)}
        run = self.models[group.ancestor.run].run
        return {
            "ancestor": dataclasses.asdict(group.ancestor),
            "ancestor_last_step": run.last_step,
            "init_seed": run.init_seed,
        }


def _unit(
    kind: str, name: str, spec: Mapping[str, Any], needs: Iterable[str], seconds: float,
    processes: int = 1,
) -> Unit:  # fmt: skip
    needed = tuple(dict.fromkeys(needs))
    seconds += START[kind]
    return Unit(kind, f"{kind} {name}", spec, needed, seconds, processes=processes)
