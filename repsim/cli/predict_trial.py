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
    click.echo()
    print_table(_rows(plan, table), _HEADS)
    for note in _notes(table):
        say("note", note)
    for line in _meaning(plan, table):
        say("trial", line)


def trial_page(plan: TrialPlan, table: EvaluationTable) -> str:
    """The same in Markdown, to stand below the page of a forecast."""
    from repsim.core.formatting import markdown_lines, markdown_text, number

    cells = [
        [number(cell, 3) if isinstance(cell, float) else str(cell or "–")
         for cell in (row[head] for head in _HEADS)]
        for row in _rows(plan, table)
    ]  # fmt: skip
    lines = ["", "## Trial", "", *markdown_lines(list(_HEADS.values()), cells), ""]
    lines += [f"- {markdown_text(text)}" for text in (*_meaning(plan, table), *_notes(table))]
    return "\n".join(lines) + "\n"


def _rows(plan: TrialPlan, table: EvaluationTable) -> list[dict[str, Any]]:
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
            "interval": " to ".join(number(end, 3) for end in ends) if known else "–",
            "reference": row["reference"],
        })  # fmt: skip
    return rows


def _notes(table: EvaluationTable) -> list[str]:
    from repsim.mergeability.trial import NAME

    notes = []
    for row in table.where(model=NAME, metric=["retention", "gain_kept"]).rows():
        if row["value"] is not None and row["ci_low"] is None:
            few = f"{row['n_documents']} documents are too few; raise --trial-bytes"
            notes.append(f"no interval of {row['language']}: {few}")
        if row["note"]:
            notes.append(f"{_METRICS[row['metric']]} of {row['language']}: {row['note']}")
    return list(dict.fromkeys(notes))


def _meaning(plan: TrialPlan, table: EvaluationTable) -> list[str]:
    lines = [
        verdict(table),
        "a measurement of this merge, no forecast; intervals over documents. Retention: 1 = the "
        "parent that is best at the language, 0 = counting tokens",
    ]
    if plan.base:
        lines.append(
            f"gain kept: 1 = all that training gave that parent over {plan.base.name}, 0 = no "
            "better than it, below 0 = harm"
        )
    return lines


def verdict(table: EvaluationTable) -> str:
    """Whether the merge survives, and whether it is useful."""
    from repsim.mergeability.trial import NAME

    return table.outcome(NAME).partition("\n")[0] or "Retention is not defined for any language."


def after_trial(
    sources: Sequence[str], options: Mapping[str, Any], table: EvaluationTable
) -> str:  # fmt: skip
    """What to type next: the merge itself if it survives, else a look at other ways."""
    from repsim.mergeability.trial import NAME

    if table.value(NAME, "all", "collapse_0.5") == 0:
        return _command("merge", [*sources, "OUT"], options)
    named = " ".join(map(shlex.quote, sources))
    return f"repsim {'check' if len(sources) == 1 else 'predict'} {named}" + (
        " --rank-methods" if len(sources) > 1 else ""
    )


def after_refusal(
    sources: Sequence[str], models: Sequence[str], options: Mapping[str, Any]
) -> str:  # fmt: skip
    """What to type where nothing can be forecast: a trial, if the models can be merged at all."""
    from repsim.merging.check import check_models
    from repsim.models.inspect import locate, read_config

    folders = [locate(model).folder for model in models]
    decoders = all(read_config(folder, generic=True)[1].decoder for folder in folders)
    if not decoders or any(found.level == "error" for found in check_models(folders)):
        return f"repsim check {' '.join(map(shlex.quote, models))}"
    languages = "".join(f" -l {code}" for code in options["languages"])
    return f"{_command('predict', sources, options)}{languages} --trial"


def _command(verb: str, sources: Sequence[str], options: Mapping[str, Any]) -> str:
    """A verb with what states the merge."""
    parts = [f"repsim {verb} {' '.join(map(shlex.quote, sources))}"]
    values = [("--method", options["method"]), *(("--set", text) for text in options["values"]),
              ("--align", options["align"])]  # fmt: skip
    if verb == "predict" or "base_model" in as_recipe((), options):
        values.append(("--base", options["base"]))
    parts += [f"{option} {shlex.quote(value)}" for option, value in values if value]
    return " ".join(parts)
