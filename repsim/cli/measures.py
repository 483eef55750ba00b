"""`repsim measures`: what can be measured, what each measure declares, and which to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_declared, print_json, print_table, say
from repsim.core.progress import duration

#: Measures that a recommendation prints.
SHOWN = 15


@click.command(
    epilog="""\b
Examples:
  repsim measures
  repsim measures cka
  repsim measures --recommend --for history
  repsim measures --benchmark out/benchmark
  repsim measures --recommend --scores out/benchmark --figure ranking.png
"""
)
@click.argument("name", required=False)
@opt.flag("--recommend", "Say which measure to trust, and for what.")
@click.option("--for", "question", help="overall, depth, damage, content, history or merging; "
              "default: overall.")  # fmt: skip
@click.option("--scores", type=opt.PATH, help="Folder of a benchmark to answer from, instead of "
              "the one that ships.")  # fmt: skip
@click.option("--figure", type=opt.PATH, help="Draw the ranking (png, svg or pdf).")
@click.option("--benchmark", type=opt.PATH, help="Judge the measures; folder for the table.")
@opt.many("--model", "models", "Of the benchmark; default: the zoo.")
@click.option("-m", "--measure", "chosen", multiple=True, help="Only these; may be repeated.")
@opt.corpus("bible-heldout", "Of the benchmark.")
@opt.count("--limit", "Sentences of the benchmark.", 300, least=40)
@opt.flag("--force", "Replace another benchmark in the folder.")
@opt.planned
def measures(
    name: str | None, recommend: bool, question: str | None, scores: Path | None,
    figure: Path | None, benchmark: Path | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """List the similarity measures, or tell all about the one called NAME.

    --recommend answers from a benchmark of tests whose answer is known: layers, noise, seeds and
    shared training of models whose history is known. --benchmark runs it.
    """
    if benchmark is not None:
        _judge(benchmark, as_json, **options)
    if recommend or question or scores or figure:
        folder = scores or benchmark
        _recommend(question or "overall", folder, options["chosen"], figure, as_json)
    elif benchmark is None:
        _list(name, as_json)


def _list(name: str | None, as_json: bool) -> None:
    from repsim.measures import get_measure, list_measures

    chosen = [get_measure(name)] if name else list_measures()
    documents = [measure.describe() for measure in chosen]
    rows = [
        {"name": d["name"], "rung": f"{d['rung']} {d['blind_to']}" if d["rung"] else None,
         "direction": f"{m.arrow} {m.direction}", "least n": d["min_samples"],
         "definition": d["definition"]}
        for m, d in zip(chosen, documents, strict=True)
    ]  # fmt: skip
    print_declared(name, documents, rows, as_json=as_json)
    if not (name or as_json):
        say("next", "repsim measures --recommend")


def _recommend(
    question: str, folder: Path | None, chosen: tuple[str, ...], figure: Path | None, as_json: bool
) -> None:
    from repsim.studies.measure_benchmark import QUESTIONS, load_scores, recommend

    table = load_scores(folder)
    answers = recommend(table, question, measures=chosen)
    if figure is not None:
        from repsim.plots import FIGURES, save_figure

        kind = figure.suffix.removeprefix(".") or "png"
        (path,) = save_figure(FIGURES["measure_ranking"](table), figure.with_suffix(""), (kind,))
        say("wrote", str(path))
    if as_json:
        print_json([answer.describe() for answer in answers])
        return
    say("for", f"{question}: {QUESTIONS[question].words}")
    for answer in answers:
        ranked = answer.ranking.ranked
        for test, words in answer.describe()["tests"].items():
            say("test", f"{test}: {words}")
        rows = [
            {"measure": one.name, "right": one.score,
             "95 % interval": _interval(one.low, one.high), "ties with the best": one.tied,
             "cost": answer.cost[one.name]}
            for one in ranked[:SHOWN]
        ]  # fmt: skip
        print_table(rows)
        if len(ranked) > SHOWN:
            say("more", f"{len(ranked) - SHOWN} measures lie below; all: --json")
        say("answer", f"{answer.sentence()} Chance is 0.5. {answer.uncertainty()}")
    say("other", "questions: " + ", ".join(f"--for {name}" for name in QUESTIONS))


def _interval(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]" if low == low else "–"


def _judge(out: Path, as_json: bool, *, models: Any, chosen: Any, **options: Any) -> None:
    from repsim.studies.measure_benchmark import plan_benchmark, run_benchmark

    benchmark = plan_benchmark(
        models or None, measures=chosen, corpus=options["corpus"], limit=options["limit"]
    )
    plan = benchmark.plan()
    say("plan", f"{plan['models']} models · {plan['measures']} measures · {plan['sentences']} "
        f"sentences of '{plan['corpus']}' · {plan['readings']} readings · {plan['values']:,} "
        f"values · ≈ {duration(plan['seconds'])}")  # fmt: skip
    if options["dry_run"]:
        if as_json:
            print_json({"plan": plan})
        raise click.exceptions.Exit(0)
    table = run_benchmark(benchmark, out, force=options["force"], say=say)
    say("wrote", f"{out / 'measure_scores.parquet'} ({len(table):,} rows)")
    if as_json:
        print_json({"plan": plan, "rows": len(table), "out": str(out)})
    else:
        say("next", f"repsim measures --recommend --scores {out}")
