"""Unit `merge`: one group of parents merged by every method, naive and aligned, and scored."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.studies.units.coordinates import in_coordinates
from repsim.studies.units.scoring import prepared, selected, unpacked

if TYPE_CHECKING:
    import torch

    from repsim.evaluation import MergeOutcome, PreparedText
    from repsim.models.causal import CausalModel
    from repsim.studies.engine.workspace import Workspace

    State = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One merge to be made."""

    method: str
    alignment: str
    base: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    one_of_many: bool = False

    @property
    def title(self) -> str:
        """The method, with its parameters where the study has several of them."""
        own = " ".join(f"{key}={value:g}" for key, value in self.parameters.items())
        return f"{self.method} {own}" if self.one_of_many else self.method


def trials(spec: Mapping[str, Any]) -> list[Trial]:
    """Every merge of a group."""
    from repsim.merging import METHODS, list_methods

    list_methods()  # registers them
    found = []
    alignments = ["none", *spec["alignments"]]
    if spec.get("token_weights"):
        alignments += [f"{alignment}+counts" for alignment in alignments]
    for alignment in alignments:
        # Of a base no coordinates but those are known.
        comparable = alignment.partition("+")[0] in ("none", "permutation")
        names = spec["methods"] if alignment == "none" else spec["aligned_methods"]
        for name in names:
            method = METHODS[name]
            base = ""
            if method.needs_base:
                known = spec["ancestor"] is not None and comparable
                if not known and name not in spec["from_zero"]:
                    continue
                base = "{run}@{step}".format(**spec["ancestor"]) if known else "zero"
            given = spec["parameters"].get(name, {})
            several = not isinstance(given, Mapping)
            found += [
                Trial(name, alignment, base, parameters, several)
                for parameters in (given if several else [given])
            ]
    return found


def merge_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Merge and score."""
    from repsim.evaluation.held_out import best_device
    from repsim.models.causal import load_causal_lm

    device = best_device()
    folders = [workspace.fetch(f"models/{name}") for name in spec["parents"]]
    models = [load_causal_lm(folder) for folder in folders]
    everything = prepared({**spec, "languages": spec["family_languages"]}, models[0])
    ready = selected(everything, spec["languages"])
    parents = _parent_scores(spec, needs)
    rows: list[dict[str, Any]] = []
    for trial, states, config in _aligned(spec, models):
        started = time.process_time()
        outcome, own = _outcome(trial, states, config, spec, workspace, ready, parents, device)
        found = _rows(spec, trial, outcome, own, ready, parents)
        rows += found
        workspace.took(found[0]["merge"], time.process_time() - started)
        workspace.log(f"{trial.title} {trial.alignment}: worst {outcome.worst.value:.2f}")
    return {"rows": rows}


def _parent_scores(spec: Mapping[str, Any], needs: Mapping[str, Any]) -> dict[str, Any]:
    """Parent -> language -> bits per byte, from their own units."""
    known = {result["model"]: result["scores"] for result in needs.values() if "scores" in result}
    return {
        name: {lang: unpacked(known[name][lang]) for lang in spec["languages"]}
        for name in spec["parents"]
    }


def _learning(spec: Mapping[str, Any], model: CausalModel) -> dict[str, Any]:
    """Text and settings of learned alignment, if there is to be any."""
    from repsim.merging.recipe import LearnSettings
    from repsim.merging.windows import learning_on

    if "learn" not in spec:
        return {}
    how, languages = LearnSettings(**spec["learn"]), spec["languages"]
    windows, settings = learning_on(
        spec["corpus"], languages, how, model.tokenizer, model.model.config, spec["seed"]
    )
    return {"windows": windows, "learning": settings}


def _shares(spec: Mapping[str, Any], models: Sequence[CausalModel]) -> torch.Tensor | None:
    """Share of each parent in each row of tokens, by counts in its text, if there are to be any."""
    from repsim.merging.recipe import TokenWeights
    from repsim.merging.token_weights import shares_by

    if not spec.get("token_weights"):
        return None
    stated = {name: model.ref.languages
              for name, model in zip(spec["parents"], models, strict=True)}  # fmt: skip
    like: Any = models[0].model
    rows = len(like.get_input_embeddings().weight)
    how = TokenWeights(corpus=spec["corpus"])
    return shares_by(how, stated, models[0].tokenizer, rows, spec["seed"])


def _aligned(
    spec: Mapping[str, Any], models: Sequence[CausalModel]
) -> Iterator[tuple[Trial, list[State], Any]]:
    """Every trial with the parents in its coordinates; each alignment is made once."""
    everything = trials(spec)
    wanted = dict.fromkeys(trial.alignment for trial in everything)
    more = _learning(spec, models[0]), _shares(spec, models)
    for alignment, states, config in in_coordinates(models, wanted, *more):
        for trial in everything:
            if trial.alignment == alignment:
                yield trial, states, config


def _outcome(
    trial: Trial, states: Sequence[State], config: Any, spec: Mapping[str, Any],
    workspace: Workspace, ready: PreparedText, parents: Mapping[str, Any], device: str,
) -> tuple[MergeOutcome, dict[str, Any]]:  # fmt: skip
    from repsim.evaluation import judge
    from repsim.merging import merge_state_dicts
    from repsim.merging.align import build_model

    base = _base(trial, states[0], config, spec, workspace)
    merged = merge_state_dicts(
        states, trial.method, base=base, parameters=trial.parameters,
        config=config, seed=spec["seed"], device=device,
    )  # fmt: skip
    own = ready.score(build_model(config, merged).to(device))
    distinct = {name: parents[name] for name in dict.fromkeys(spec["parents"])}
    return judge(own, distinct, ready.floors, ready.text.documents), own


def _base(
    trial: Trial, like: State, config: Any, spec: Mapping[str, Any], workspace: Workspace
) -> State | None:
    """State dict that differences are taken to."""
    import torch

    if not trial.base:
        return None
    if trial.base == "zero":
        return {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    return ancestor_state(spec["ancestor"], spec, config, workspace)


def ancestor_state(
    ancestor: Mapping[str, Any], spec: Mapping[str, Any], config: Any, workspace: Workspace
) -> State:
    """Weights of a run of the study at one of its steps, or of the model that it starts from."""
    from repsim.merging.align import build_model
    from repsim.models.causal import load_causal_lm
    from repsim.pretraining.build import build_model as from_seed
    from repsim.pretraining.loop import fork_state

    if start := spec.get("how", {}).get("init_from"):
        return dict(load_causal_lm(start).model.state_dict())
    if ancestor["step"] == 0:
        return dict(from_seed(config, spec["init_seed"]).state_dict())
    folder = workspace.fetch(f"models/{ancestor['run']}")
    if ancestor["step"] == spec["ancestor_last_step"]:
        return dict(load_causal_lm(folder).model.state_dict())
    state = fork_state(folder, ancestor["step"], with_optimizer=False)
    return dict(build_model(config, state.weights).state_dict())


def _rows(
    spec: Mapping[str, Any], trial: Trial, outcome: MergeOutcome, own: Mapping[str, Any],
    ready: PreparedText, parents: Mapping[str, Any],
) -> list[dict[str, Any]]:  # fmt: skip
    joined = " + ".join(spec["parents"])
    whole = {
        "merge": f"{joined} | {trial.title} | {trial.alignment}",
        "parents": joined,
        "k": len(spec["parents"]),
        "arm": spec["arm"],
        "control": spec["control"],
        "shared_init": int(spec["shared_init"]),
        "fork_fraction": spec["fork_fraction"],
        "method": trial.method,
        "alignment": trial.alignment,
        "base": trial.base,
        "parameters": json.dumps(dict(trial.parameters), sort_keys=True),
        "worst_retention": outcome.worst.value,
        "kept": outcome.kept.value,
        "advantage": outcome.advantage.value,
        "collapsed": _flag(outcome.collapsed()),
        "useful": _flag(outcome.useful),
    }
    rows = []
    for language, kept in outcome.retention.items():
        estimate = kept.estimate
        row = {
            **whole,
            "language": language,
            "bits_per_byte": float(own[language]),
            "parent": kept.parent,
            "parent_bits": float(parents[kept.parent][language]),
            "unigram_floor": float(ready.floors[language]),
            "retention": estimate.value,
            "ci_low": estimate.low,
            "ci_high": estimate.high,
        }
        rows.append({k: None if isinstance(v, float) and v != v else v for k, v in row.items()})
    return rows


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)
