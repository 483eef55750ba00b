"""Repair as a step of a merge: calibration text read beforehand, units rescaled before writing.

The merged model and its parents are run whole, in float32 on the CPU: a merge with repair is not
streamed, it needs memory for all of them at once.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.core.files import hash_json
from repsim.merging.arrays import is_finite
from repsim.merging.checkpoint import torch_type
from repsim.merging.execute import Job
from repsim.merging.plan import TensorPlan, out_of_range
from repsim.merging.recipe import Recipe, Repair
from repsim.merging.windows import read_windows, stated_languages
from repsim.models.inspect import read_config

if TYPE_CHECKING:
    import torch

    from repsim.merging.align import RepairReport

#: Tokens per window of calibration text, unless the model takes fewer.
WINDOW = 128


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a merge is repaired on."""

    windows: tuple[tuple[int, ...], ...]
    languages: Mapping[str, int]
    corpus: str
    shares: tuple[float, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What the result depends on, JSON-able."""
        return {
            "corpus": self.corpus,
            "languages": dict(self.languages),
            "windows_hash": hash_json([list(window) for window in self.windows]),
            "shares": list(self.shares),
        }

    def describe(self, names: Sequence[str]) -> str:
        """In words, for the model card."""
        parents = [f"'{n}' ({share:.0%})" for n, share in zip(names, self.shares, strict=True)]
        text = ", ".join(
            f"{count} windows of {len(self.windows[0])} tokens in {language}"
            for language, count in self.languages.items()
        )
        return (
            f"units repaired (REPAIR) to the deviations of {' and '.join(parents)} on "
            f"'{self.corpus}': {text}"
        )


def calibrate(
    recipe: Recipe, repair: Repair, folders: Mapping[str, Path], tokenizer: Callable[[], Any],
    plans: Sequence[TensorPlan],
) -> Calibration:  # fmt: skip
    """Refuse what cannot be repaired, and read the text for what can."""
    if recipe.stacked:
        raise UsageError(
            "a recipe that stacks layers cannot be repaired: its layers have no parents at the "
            "same depth",
            hint="leave out 'repair', or 'layers'",
        )
    config, spec = read_config(folders[recipe.donor])
    if reason := spec.why_unalignable(config):
        raise IncompatibleModelsError(
            f"models of architecture '{spec.name}' cannot be repaired: {reason}",
            hint="leave out 'repair'",
        )
    names = repair.languages or stated_languages(recipe, folders, "repair")
    length = min(WINDOW, int(getattr(config, "max_position_embeddings", WINDOW)))
    texts = read_windows(
        repair.corpus, names, repair.limit, tokenizer(), length, recipe.seed
    )  # fmt: skip
    return Calibration(
        tuple(window for windows in texts.values() for window in windows),
        {language: len(windows) for language, windows in texts.items()},
        repair.corpus,
        _shares(recipe, plans),
    )


def _shares(recipe: Recipe, plans: Sequence[TensorPlan]) -> tuple[float, ...]:
    """Share of each parent: by the method's weights (their mean), or by `t`; else alike."""
    values = [plan.parameters for plan in plans if not plan.copied]
    if all("weight" in each for each in values):
        rows = [each["weight"] for each in values]
        means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    elif all("t" in each for each in values) and len(recipe.models) == 2:
        t = statistics.fmean(each["t"] for each in values)
        means = [1 - t, t]
    else:
        means = [1.0] * len(recipe.models)
    if min(means) < 0 or sum(means) <= 0:
        raise UsageError(
            f"a merge with weights {', '.join(f'{mean:g}' for mean in means)} cannot be repaired: "
            "units are given a weighted mean of the deviations of their parents",
            hint="leave out 'repair', or weigh no model negatively",
        )
    return tuple(mean / sum(means) for mean in means)


@dataclasses.dataclass(frozen=True)
class Repaired:
    """One tensor of the repaired model."""

    plan: TensorPlan
    tensor: torch.Tensor
    notes: Sequence[str]
    values: Mapping[str, float]


def repaired_tensors(
    job: Job, plans: Sequence[TensorPlan], calibration: Calibration, config: Mapping[str, Any]
) -> Iterator[Repaired]:
    """Merge all tensors, repair them, and round them once."""
    import torch
    from transformers import AutoConfig

    from repsim.merging.align import repair_state_dict

    kind = "F64" if job.precision == "float64" else "F32"
    merged, facts = {}, {}
    for plan in plans:
        wide = plan if plan.copied else _stored_as(plan, kind)
        merged[plan.name], facts[plan.name] = job.whole(wide)
    parents = [
        {plan.name: _read(job, plan, place) for plan in plans}
        for place in range(len(plans[0].inputs))
    ]
    plain = {key: value for key, value in config.items() if key != "model_type"}
    result = repair_state_dict(
        merged, parents, AutoConfig.for_model(config["model_type"], **plain),
        torch.tensor(calibration.windows), weights=calibration.shares,
    )  # fmt: skip
    reports = {report.tensor: report for report in result.report}
    for plan in plans:
        stored = result.state[plan.name].to(torch_type(plan.header.dtype))
        if not plan.copied and not is_finite(stored):
            raise out_of_range(plan)
        context = facts[plan.name]
        notes, values = _facts_of(reports.get(plan.name))
        yield Repaired(plan, stored, [*context.notes, *notes], {**context.values, **values})


def _stored_as(plan: TensorPlan, kind: str) -> TensorPlan:
    """The plan with another type of the result: a tensor that is still worked on is not rounded."""
    return dataclasses.replace(plan, header=dataclasses.replace(plan.header, dtype=kind))


def _read(job: Job, plan: TensorPlan, place: int) -> torch.Tensor:
    found = job.sources[plan.inputs[place].source].read(plan.inputs[place].tensor)
    return found.float() if found.is_floating_point() else found


def _facts_of(report: RepairReport | None) -> tuple[list[str], dict[str, float]]:
    """What the card says of one place that was repaired."""
    if report is None:
        return [], {}
    values = {
        "repair: median deviation of units as merged, over what is wanted": report.std_ratio_before,
        "repair: largest relative error of a deviation afterwards": report.std_error_after,
    }
    if report.mean_error_after is not None:
        values["repair: largest error of a mean afterwards, in deviations"] = (
            report.mean_error_after
        )
    notes = ["repair left units alone that hardly vary"] if report.dead else []
    return notes, values
