"""From the parts of a study to its atlas."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.atlas import (
    Atlas,
    CostTable,
    FeatureTable,
    MergeTable,
    ModelTable,
    PathTable,
    join_parents,
)
from repsim.core.provenance import environment, shown_path
from repsim.pretraining.parent import open_parent
from repsim.studies.groups import BASE
from repsim.studies.units.scoring import unpacked

if TYPE_CHECKING:
    from repsim.evaluation import BitsPerByte
    from repsim.studies.plan import StudyPlan


def collect(
    plan: StudyPlan,
    results: Mapping[str, Any],
    seconds: Mapping[str, Mapping[str, float]] | None = None,
) -> Atlas:
    """Put what units found into tables; units that are not done are counted, not waited for."""
    merges: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    paths: list[dict[str, Any]] = []
    notes: dict[str, list[str]] = {}
    for unit in plan.units:
        found = results.get(unit.name)
        if found is None:
            continue
        took = dict((seconds or {}).get(unit.name, {}))
        if unit.kind == "merge":
            base = _base_scores(unit.spec, results)
            merges += [
                {"seconds": took.get(row["merge"]), **row, **_gain(row, base)}
                for row in found["rows"]
            ]
        elif unit.kind == "path":
            parents = join_parents(found["parents"])
            paths += [{"parents": parents, **row} for row in found["rows"]]
        elif unit.kind == "features":
            parents = join_parents(found["parents"])
            features += [{"parents": parents, **row} for row in found["rows"]]
            took = {**found.get("seconds", {}), **took}  # parts of version 0.1 hold their own
            costs += [
                {"parents": parents, "tier": tier, "seconds": took.get(tier)}
                for tier in found.get("tiers", took)
            ]
            for note in found["notes"]:
                notes.setdefault(note, []).append(parents)
    models = list(_model_rows(plan, results))
    corpus = shown_path(plan.config.corpus)
    info = {
        "study": json.loads(json.dumps(plan.config.to_dict() | {"corpus": corpus})),
        "study_hash": plan.config.hash,
        "family": _family(plan),
        "units": len(plan.units),
        "units_done": sum(unit.name in results for unit in plan.units),
        "models": len({row["model"] for row in models}),
        "merges": len({row["merge"] for row in merges}),
        "notes": {note: len(where) for note, where in notes.items()},
        "environment": environment(),
    }
    return Atlas(
        ModelTable(models, {"study": plan.config.name}),
        MergeTable(merges, {"study": plan.config.name}),
        FeatureTable(features, {"study": plan.config.name}),
        CostTable(costs, {"study": plan.config.name}),
        info,
        PathTable(paths, {"study": plan.config.name}),
    )


def _family(plan: StudyPlan) -> str:
    """Architecture of the models, by the name that their config.json has for it."""
    if plan.config.init_from:
        return str(open_parent(plan.config.init_from).config.model_type)
    return next(iter(plan.models.values())).family.architecture.family


def _base_scores(spec: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, float]:
    """Bits per byte of the whole model that all parents of a merge were trained from, if any."""
    ancestor = spec["ancestor"]
    if ancestor is None or (
        ancestor["run"] != BASE and ancestor["step"] != spec["ancestor_last_step"]
    ):
        return {}
    found = results.get(f"score {ancestor['run']}", {}).get("scores", {})
    return {language: float(unpacked(packed)) for language, packed in found.items()}


def _gain(row: Mapping[str, Any], base: Mapping[str, float]) -> dict[str, float | None]:
    """What the merge kept of that which its best parent gained over the base."""
    start = base.get(row["language"])
    if start is None or row["parent_bits"] is None or row["bits_per_byte"] is None:
        return {}
    gained = start - row["parent_bits"]
    kept = (start - row["bits_per_byte"]) / gained if gained > 0 else None
    return {"base_bits": start, "gain_kept": kept}


def _model_rows(plan: StudyPlan, results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for unit in plan.units:
        if unit.kind not in ("pretrain", "control") or unit.name not in results:
            continue
        made = results[unit.name]
        score = results.get(f"score {made['model']}")
        about = _about(made, plan)
        if score is None:
            yield about
            continue
        for language, packed in score["scores"].items():
            floor = unpacked(score["floors"][language])
            ids = score["documents"][language]
            yield {**about, "language": language, **_scored(unpacked(packed), ids),
                   "unigram_floor": float(floor)}  # fmt: skip


def _about(made: Mapping[str, Any], plan: StudyPlan) -> dict[str, Any]:
    """What provenance says of a model."""
    known = made["provenance"]
    source = made["model"] if made["model"] in plan.models else known["made_from"]
    model = plan.models[source]
    phases = known["history"]
    spoken = dict.fromkeys(language for phase in phases for language in phase["mix"])
    step = known["step"]
    fork = known.get("fork_step") or 0
    share: float | None = fork / step if step else 0.0
    if model.family.init_from:  # what the base has read may not be known
        share = 1 - known["own_tokens"] / known["tokens"] if known.get("tokens") else None
    return {
        "model": made["model"],
        "arm": made["arm"],
        "role": "control" if "control" in known else known["role"],
        "trained_on": "+".join(known["languages"]) if step else "",
        "history": "+".join(spoken),
        "tokenizer": model.family.tokenizer.kind,
        "content": model.family.corpus.content,
        "init_seed": known["init_seed"],
        "data_seed": known["data_seed"],
        "forked_from": known["forked_from"] or "",
        "fork_fraction": share,
        "tokens": known["tokens"],
        "own_tokens": known["own_tokens"],
        "learning_rate": known["training"]["learning_rate"],
        "parameters": known["parameters"],
        "tokenizer_hash": known["tokenizer_hash"],
        "weights_hash": known["weights_hash"],
    }


def _scored(score: BitsPerByte, documents: list[str]) -> dict[str, Any]:
    """Bits per byte with an interval over documents."""
    from repsim.evaluation.bits_per_byte import leave_one_out
    from repsim.stats.intervals import jackknife

    found = jackknife(leave_one_out(score, documents, documents), 0.95)
    ends = {"ci_low": found.low, "ci_high": found.high}
    return {"bits_per_byte": found.value} | {
        key: None if math.isnan(value) else value for key, value in ends.items()
    }
