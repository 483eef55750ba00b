"""`repsim evaluate`: bits per byte of models, and what merges kept of their parents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import (
    print_evaluation_plan,
    print_json,
    print_table,
    say,
    write_found,
)

if TYPE_CHECKING:
    from repsim.evaluation.table import EvaluationTable

_HEADS = {
    "model": "model", "role": "role", "worst_retention": "worst", "collapse_0.5": "collapse",
    "advantage": "advantage", "useful": "useful",
}  # fmt: skip
_BESIDE = {
    "merge": "merge", "language": "language", "predicted": "predicted", "interval": "90 % interval",
    "observed": "observed", "within": "inside", "p_collapse": "p(collapse)",
    "collapsed": "collapsed", "verdict": "verdict before merging",
}  # fmt: skip
_METRICS = {"bits_per_byte": "bits/byte", "gain_kept": "gain kept"}
_FLAGS = ("collapse_0.5", "useful")


@click.command(
    epilog="""\b
Examples:
  repsim evaluate zoo:eng-1 zoo:deu-1 zoo:mixed -l eng_Latn -l deu_Latn
  repsim evaluate out/merged --parents runs/en --parents runs/de -o out/evaluated
  repsim evaluate out/merged --base zoo:mixed -l deu_Latn
  repsim evaluate out/merged zoo:mixed --max-bytes 50000 --json
"""
)
@click.argument("models", nargs=-1, required=True)
@opt.out("Folder for tables and figure.")
@opt.many("--parents", "parents", "Parent of the merges; default: as their files say.")
@click.option("--base", help="What the parents were trained from; default: as the merge says.")
@opt.loading_options
@click.option("--card/--no-card", default=True, show_default=True,
              help="Enter outcomes into the model cards of merges that repsim wrote.")  # fmt: skip
@opt.scoring_options
def evaluate(
    models: tuple[str, ...], out: Path | None, languages: tuple[str, ...],
    parents: tuple[str, ...], card: bool, dry_run: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure MODELS on held-out text: bits per byte by language, and the unigram floor.

    Of a merge also retention (1: as good as the best parent, 0: as unigrams), whether it collapsed
    (worst language below 0.5), and whether it is useful (better than any one parent for all
    languages). Its parents are those that its provenance states, or --parents. Where a base is
    known also the gain kept (1: all that training gave the parents over it, 0: none). What was
    predicted of a merge before it was made stands beside what it turned out to keep.
    """
    from repsim.evaluation import evaluate as run
    from repsim.evaluation.plan import plan_evaluation
    from repsim.evaluation.predicted import predicted_and_observed

    if dry_run:
        named = ("corpus", "context", "max_bytes", "revision", "allow_network")
        how = {name: options[name] for name in named}
        plan = plan_evaluation(models, languages=languages, parents=parents or None, **how)
        print_evaluation_plan(plan, as_json=as_json)
        return
    table = run(models, languages=languages or None, parents=parents or None, say=say, **options)
    beside = predicted_and_observed(models, table)
    if as_json:
        print_json(table.to_json() | ({"predicted": beside} if beside else {}))
    else:
        lines = [_line(row) for row in table.summary()]
        print_table(lines, {key: _head(key) for key in lines[0]})
        floors = [row for row in table.rows() if row["metric"] == "unigram_floor"]
        for language in table.unique("language"):
            known = [row for row in floors if row["language"] == language]
            if known:
                values = " / ".join(sorted({f"{row['value']:.3f}" for row in known}))
                notes = " / ".join(sorted({row["note"] for row in known}))
                say("floor", f"{language} {values} bits per byte ({notes})")
        for row in table.where(metric=["retention", "gain_kept"]).rows():
            if row["note"]:
                what = row["metric"].replace("_", " ")
                say("note", f"{what} of {row['model']} in {row['language']}: {row['note']}")
    if card:
        _enter_outcomes(models, table)
    if not as_json and beside:
        click.echo()
        print_table(beside, _BESIDE)
    if out is None:
        say("next", "add -o DIR to keep the tables")
        return
    kept = any(r["metric"] == "retention" and r["value"] is not None for r in table.rows())
    write_found(table, out, "retention" if kept else "")
    names = " ".join(models[:2]) if len(models) > 1 else "A B"
    say("next", f"repsim barrier {names} -o {out}")


def _enter_outcomes(models: tuple[str, ...], table: EvaluationTable) -> None:
    """Complete the model cards of the merges among the models."""
    from repsim.merging.card import CARD_FILE, has_card, write_outcome
    from repsim.models.inspect import locate, split_label

    for named in models:
        model = split_label(named)[1]
        if not has_card(model):
            continue
        found = table.outcome(locate(named).name)
        if found:
            text = table.info["text"]
            write_outcome(model, f"{found}\n\nOn held-out text of `{text['corpus']}`.")
            say("wrote", f"outcome into {Path(model) / CARD_FILE}")


def _head(key: str) -> str:
    metric, _, language = key.partition(" ")
    if not language:
        return _HEADS.get(key, key)
    return f"{_METRICS.get(metric, metric)} {language}"


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """Flags as yes and no."""
    return {k: bool(v) if k in _FLAGS and v is not None else v for k, v in row.items()}
