"""`repsim compare`: from model names to tables, figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli.loading import loading_options
from repsim.cli.output import print_json, print_table, say, size
from repsim.core.progress import duration

#: Shown after a comparison; the rest is in the tables.
SUMMARY_COLUMNS = {
    "pair": "pair",
    "pairing": "pairing",
    "measure": "measure",
    "middle": "middle layer",
    "interval": "95 % interval",
    "middle_null_q95": "null 95 %",
    "middle_partial": "length removed",
    "best": "best",
    "best_layers": "at layers",
}


@click.command(
    epilog="""\b
Examples:
  repsim compare e5-small minilm --corpus kolibri -l eng_Latn -l deu_Latn -o out/first
  repsim compare runs/en runs/de --corpus my.tsv --measure cka --measure procrustes -o out/en-de
  repsim compare early=org/model@step1000 late=org/model@step143000 -l eng_Latn -o out/steps
  repsim compare runs/en runs/de --dry-run
"""
)
@click.argument("models", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for tables and report.")
@click.option("--corpus", default="kolibri", show_default=True, help="Built-in name or a path.")
@click.option("-l", "--language", "languages", multiple=True, help="May be repeated; default: all.")
@click.option("-m", "--measure", "measures", multiple=True, help="May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), help="Use at most this many sentences.")
@click.option(
    "--pairing",
    "pairings",
    multiple=True,
    type=click.Choice(["same text", "parallel text", "parallel text across models"]),
    help="What is compared; default: same text and parallel text.",
)
@click.option(
    "--layers",
    type=click.Choice(["auto", "all"]),
    default="auto",
    show_default=True,
    help="auto: all layer pairs on the same text, equal layers on parallel text.",
)
@click.option("--point", default="resid", show_default=True,
              help="Hook point: embed, resid, attn, mlp, heads, mlp_hidden.")  # fmt: skip
@click.option(
    "--pooling",
    type=click.Choice(["mean", "last", "position-weighted"]),
    default="mean",
    show_default=True,
    help="How the tokens of a sentence become one vector.",
)
@click.option(
    "--permutations",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Shuffles of the null; 0: values only.",
)
@click.option(
    "--unit",
    type=click.Choice(["document", "sentence"]),
    default="document",
    show_default=True,
    help="What nulls shuffle and intervals leave out: documents where the corpus has them.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of shuffles and samples.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@loading_options
@click.option("--batch-size", type=click.IntRange(min=1), help="Default: chosen automatically.")
@click.option("--thorough", is_flag=True, help="All measures on parallel text too (slow).")
@click.option("--generic", is_flag=True, help="Allow models without a spec: hook their block list.")
@click.option("--allow-network", is_flag=True, help="Fetch models or corpora that are not here.")
@click.option("--force", is_flag=True, help="Replace another comparison in the folder.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
def compare(
    models: tuple[str, ...], out: Path | None, dry_run: bool, as_json: bool, force: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Measure how alike MODELS represent the same and translated sentences, layer by layer.

    A model is a Hugging Face folder, a GGUF file, BASE+ADAPTER, a hub id (ORG/NAME or
    ORG/NAME@REVISION; with --allow-network) or the name of a packaged model (see: repsim models).
    NAME=MODEL calls it NAME. One model on one language is compared with itself, layer by layer.
    """
    from repsim.studies.compare import plan_comparison, run_comparison

    comparison = plan_comparison(models, **_arguments(options))
    plan = comparison.plan()
    say("plan", _plan_line(plan))
    if plan["models"] == 1:
        say("note", _alone(plan))
    for warning in plan["warnings"]:
        say("note", warning)
    if dry_run:
        if as_json:
            print_json({"plan": plan})
        return
    table = run_comparison(comparison, out, force=force, workers=0, say=say)
    rows = [_summary_row(row) for row in table.summary()]
    if as_json:
        print_json(
            {
                "summary": table.summary(),
                "first_token": table.info["first_token"],
                "plan": plan,
                "out": str(out) if out else None,
            }
        )
    else:
        print_table(rows, SUMMARY_COLUMNS)
    if out:
        report = out / "report.html"
        say(
            "wrote",
            f"{report} ({size(report.stat().st_size)}), similarity.parquet, tables, figures",
        )
        say("next", f"open {report}, or: repsim plot {out} --kind layers --kind heatmap")
    else:
        say("next", "add -o DIR to keep tables, figures and a report")


def _alone(plan: dict[str, Any]) -> str:
    """What one model is held against, and what more could be."""
    if plan["languages"] == 1:
        return (
            "one model, one language: its layers are compared with each other; add a second model, "
            "or a language with -l"
        )
    return "one model: its languages are compared; add a second model to compare two on each"


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Empty repeated options mean the default."""
    return {key: value for key, value in options.items() if value not in ((), None)}


def _plan_line(plan: dict[str, Any]) -> str:
    return (
        f"{plan['models']} models x {plan['languages']} languages · {plan['sentences']} sentences "
        f"of '{plan['corpus']}' · {plan['activations']} activations "
        f"({size(plan['activation_bytes'])}) · {plan['comparisons']:,} comparisons · "
        f"{size(plan['memory_bytes'])} of memory · {plan['device']} · ≈ {duration(plan['seconds'])}"
    )


def _summary_row(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the table on the screen."""
    first, second = row["model_a"], row["model_b"]
    spoken = [row["language_a"], row["language_b"]]
    pair = f"{first} ↔ {second}" if first != second else first
    text = spoken[0] if spoken[0] == spoken[1] else f"{spoken[0]} ↔ {spoken[1]}"
    low, high = row["middle_ci_low"], row["middle_ci_high"]
    return {
        **row,
        "pair": f"{pair} · {text}",
        "interval": f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else "–",
        "best_layers": f"{row['best_layer_a']}, {row['best_layer_b']}",
    }
