"""The trial of `repsim predict`: the merge that is asked about, made, scored and removed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from repsim.cli.options import parameter
from repsim.cli.output import print_table, say

if TYPE_CHECKING:
    from repsim.evaluation.table import EvaluationTable
    from repsim.mergeability.trial import TrialPlan

_METRICS = {"retention": "retention", "gain_kept": "gain kept", "worst_retention": "retention",
            "advantage": "advantage over one parent"}  # fmt: skip
_HEADS = {"language": "language", "outcome": "outcome", "value": "measured",
          "interval": "95 % interval", "reference": "against"}  # fmt: skip


def as_recipe(sources: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The merge of models and options, as a recipe states it."""
    from repsim.merging.methods import find_method

    method = find_method(options["method"] or "linear")
    base = options["base"] if method.needs_base or method.takes_base else None
    stated = {
        "base_model": base, "align": options["align"],
        "parameters": dict(parameter(text) for text in options["values"]),
    }  # fmt: skip
    given = {key: value for key, value in stated.items() if value}
    return {"method": method.name, "models": list(sources), **given}


def planned_trial(sources: Sequence[str], options: Mapping[str, Any]) -> TrialPlan:
    """The plan of a trial, said before anything is done."""
    from repsim.mergeability.trial import TEXT_BYTES, plan_trial
    from repsim.merging.reading import read_recipe

    recipe = read_recipe(sources[0] if len(sources) == 1 else as_recipe(sources, options))
    how = {name: options[name] for name in ("languages", "seed", "device", "device_map", "dtype")}
    plan = plan_trial(
        recipe, base=options["base"], corpus=options["text"],
        max_bytes=options["trial_bytes"] or TEXT_BYTES, **how,
    )  # fmt: skip
    say("trial", plan.sentence)
    if plan.refusal:
        say("trial", f"would be refused: {plan.refusal}")
    return plan


def print_trial(plan: TrialPlan, table: EvaluationTable) -> None:
    """What the trial measured, on stdout; what its numbers mean, on stderr."""
    from repsim.core.formatting import number
    from repsim.mergeability.trial import NAME

    rows = []
    for row in table.where(model=NAME, metric=list(_METRICS)).rows():
        ends = [row["ci_low"], row["ci_high"]]
        known = all(end is not None for end in ends)
        over = f" over {plan.base.name}" if row["metric"] == "gain_kept" and plan.base else ""
        rows.append({
            "language": "worst" if row["metric"] == "worst_retention" else row["language"],
            "outcome": _METRICS[row["metric"]] + over, "value": row["value"],
            "interval": " to ".join(map(number, ends)) if known else "–",
            "reference": row["reference"],
        })  # fmt: skip
        if not known and row["value"] is not None and row["metric"] in ("retention", "gain_kept"):
            few = f"{row['n_documents']} documents are too few; raise --trial-bytes"
            say("note", f"no interval of {row['language']}: {few}")
        if row["note"]:
            say("note", f"{_METRICS[row['metric']]} of {row['language']}: {row['note']}")
    click.echo()
    print_table(rows, _HEADS)
    say("trial", verdict(table))
    say("trial", "a measurement of this merge, no forecast; intervals over documents. Retention: "
        "1 = the parent that is best at the language, 0 = counting tokens")  # fmt: skip
    if plan.base:
        say("trial", f"gain kept: 1 = all that training gave that parent over {plan.base.name}, "
            "0 = no better than it, below 0 = harm")  # fmt: skip


def verdict(table: EvaluationTable) -> str:
    """Whether the merge survives, and whether it is useful."""
    from repsim.mergeability.trial import NAME

    return table.outcome(NAME).partition("\n")[0] or "Retention is not defined for any language."


def after_trial(
    sources: Sequence[str], options: Mapping[str, Any], table: EvaluationTable
) -> str:  # fmt: skip
    """What to type next: the merge itself if it survives, else a look at other ways."""
    from repsim.mergeability.trial import NAME

    named = " ".join(map(shlex.quote, sources))
    survives = table.value(NAME, "all", "collapse_0.5") == 0
    if len(sources) == 1:
        return f"repsim {'merge' if survives else 'check'} {named}{' OUT' if survives else ''}"
    if not survives:
        return f"repsim predict {named} --rank-methods"
    recipe = as_recipe(sources, options)
    parts = [f"repsim merge {named} OUT"]
    if recipe["method"] != "linear":
        parts.append(f"--method {recipe['method']}")
    parts += [f"--set {shlex.quote(text)}" for text in options["values"]]
    for option, key in (("--base", "base_model"), ("--align", "align")):
        if key in recipe:
            parts.append(f"{option} {shlex.quote(recipe[key])}")
    return " ".join(parts)
