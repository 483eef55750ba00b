"""`repsim measures`: what can be measured, what each measure declares, and which to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli.output import print_json, print_table, say
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
@click.option("--recommend", is_flag=True, help="Say which measure to trust, and for what.")
@click.option(
    "--for",
    "question",
    default=None,
    help="overall, depth, damage, content, history or merging; default: overall.",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Folder of a benchmark to answer from, instead of the one that ships.",
)
@click.option(
    "--figure", type=click.Path(path_type=Path), help="Draw the ranking (png, svg or pdf)."
)
@click.option(
    "--benchmark", type=click.Path(path_type=Path), help="Judge the measures; folder for the table."
)
@click.option("--model", "models", multiple=True, help="Of the benchmark; default: the zoo.")
@click.option("-m", "--measure", "chosen", multiple=True, help="Only these; may be repeated.")
@click.option("--corpus", default="bible-heldout", show_default=True, help="Of the benchmark.")
@click.option("--limit", type=click.IntRange(min=40), default=300, show_default=True,
              help="Sentences of the benchmark.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace another benchmark in the folder.")
@click.option("--dry-run", is_flag=True, help="Print the plan of the benchmark and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
    if as_json:
        print_json(documents[0] if name else documents)
    elif name:
        for key, value in documents[0].items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            click.echo(f"{key:<16} {'–' if value is None else shown}")
    else:
        print_table(
            [
                {
                    "name": d["name"],
                    "rung": f"{d['rung']} {d['blind_to']}" if d["rung"] else None,
                    "direction": m.arrow + " " + m.direction,
                    "least n": d["min_samples"],
                    "definition": d["definition"],
                }
                for m, d in zip(chosen, documents, strict=True)
            ]
        )
        say("next", "repsim measures --recommend")


def _recommend(
    question: str,
    folder: Path | None,
    chosen: tuple[str, ...],
    figure: Path | None,
    as_json: bool,
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
        print_table(
            [
                {
                    "measure": one.name,
                    "right": one.score,
                    "95 % interval": _interval(one.low, one.high),
                    "ties with the best": one.tied,
                    "cost": answer.cost[one.name],
                }
                for one in ranked[:SHOWN]
            ]
        )
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
    say(
        "plan",
        f"{plan['models']} models · {plan['measures']} measures · {plan['sentences']} sentences of "
        f"'{plan['corpus']}' · {plan['readings']} readings · {plan['values']:,} values · "
        f"≈ {duration(plan['seconds'])}",
    )
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
