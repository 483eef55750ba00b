"""`repsim compare`: from model names to tables, figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, print_table, say, size
from repsim.core.errors import UsageError
from repsim.core.progress import duration

#: Options that also count for activations that are there already (`--arrays`).
FOR_ARRAYS = ("measures", "permutations", "seed", "device", "layers", "memory")
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
  repsim compare --arrays a=dump.npz b=dump.safetensors -o out/dumps
  repsim compare runs/en runs/de --dry-run
"""
)
@click.argument("models", nargs=-1, required=True)
@opt.flag("--arrays", "MODELS are dumps of activations: NAME=FILE, or a folder of files.")
@click.option("--memory", type=click.FloatRange(min=0.01),
              help="With --arrays: GB of layers that are held; beyond, they are read again "
              "whenever they are needed.  [default: 0.27]")  # fmt: skip
@opt.out("Folder for tables and report.")
@opt.corpus("kolibri", "Built-in name or a path.")
@opt.languages("May be repeated; default: all.")
@click.option("-m", "--measure", "measures", multiple=True, help="May be repeated.")
@opt.count("--limit", "Use at most this many sentences.")
@opt.choices("--pairing", "pairings", ["same text", "parallel text", "parallel text across models"],
             "What is compared; default: same text and parallel text.")  # fmt: skip
@opt.choice("--layers", ["auto", "all"], "auto: all layer pairs on the same text, equal layers on "
            "parallel text.", "auto")  # fmt: skip
@click.option("--point", default="resid", show_default=True,
              help="Hook point: embed, resid, attn, mlp, heads, mlp_hidden.")  # fmt: skip
@opt.choice("--pooling", ["mean", "last", "position-weighted"],
            "How the tokens of a sentence become one vector.", "mean")  # fmt: skip
@opt.count("--permutations", "Shuffles of the null; 0: values only.", 100, least=0)
@opt.choice("--unit", ["document", "sentence"], "What nulls shuffle and intervals leave out: "
            "documents where the corpus has them.", "document")  # fmt: skip
@opt.seed("Of shuffles and samples.")
@opt.device
@opt.loading_options
@opt.count("--batch-size", "Default: chosen automatically.")
@opt.flag("--thorough", "All measures on parallel text too (slow).")
@opt.flag("--generic", "Allow models without a spec: hook their block list.")
@opt.network
@opt.flag("--force", "Replace another comparison in the folder.")
@opt.planned
def compare(
    models: tuple[str, ...], arrays: bool, memory: float | None, out: Path | None, dry_run: bool,
    as_json: bool, force: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure how alike MODELS represent the same and translated sentences, layer by layer.

    A model is a Hugging Face folder, a GGUF file, BASE+ADAPTER, a hub id (ORG/NAME or
    ORG/NAME@REVISION; with --allow-network) or the name of a packaged model (see: repsim models).
    NAME=MODEL calls it NAME. One model on one language is compared with itself, layer by layer.

    With --arrays each is a dump of activations: .npy, .npz, .pt (tensors only), .safetensors, HDF5,
    netCDF or zarr, of TransformerLens, nnsight, vLLM or your own; what it does not say of itself
    stands in a manifest beside it (dump.npz.yaml: axes, language, documents, lengths, ...).
    """
    if arrays:
        _refuse_for_arrays()
        options["memory"] = memory and int(1e9 * memory)
        table = _compare_dumps(models, out, force=force, options=_arguments(options))
        _report(table, out, as_json, {})
        return
    if memory:
        raise UsageError("--memory counts for dumps only", hint="add --arrays, or leave it out")
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
    _report(table, out, as_json, {"first_token": table.info["first_token"], "plan": plan})


def _refuse_for_arrays() -> None:
    """Options that speak of reading models do nothing to activations that are there."""
    context = click.get_current_context()
    others = {"models", "arrays", "out", "force", "as_json", *FOR_ARRAYS}
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in others:
            raise UsageError(
                f"{option.opts[-1]} has no meaning with --arrays",
                hint="what a dump does not say of itself stands in a manifest beside it",
            )


def _compare_dumps(
    models: tuple[str, ...], out: Path | None, *, force: bool, options: dict[str, Any]
) -> Any:
    """Compare dumps, and write table and report into a folder."""
    from repsim.studies.compare_dumps import run_comparison_of_dumps

    dumps: dict[str, Path] = {}
    for model in models:
        name, found, path = model.partition("=")
        name, path = (name, path) if found else (Path(model).name.split(".")[0], model)
        if name in dumps:
            raise UsageError(f"two dumps are called '{name}'", hint="name them: NAME=FILE")
        dumps[name] = Path(path)
    chosen = {name: options[name] for name in FOR_ARRAYS if name in options}
    return run_comparison_of_dumps(dumps, out, force=force, say=say, **chosen)


def _report(table: Any, out: Path | None, as_json: bool, facts: dict[str, Any]) -> None:
    """What a comparison found, and where it lies."""
    rows = [_summary_row(row) for row in table.summary()]
    if as_json:
        print_json({"summary": table.summary(), **facts, "out": str(out) if out else None})
    else:
        print_table(rows, SUMMARY_COLUMNS)
        for reason in table.not_computed():
            say("note", reason)
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
        f"{plan['models']} models x {plan['languages']} languages · {plan['sentences']:,} "
        f"sentences of '{plan['corpus']}' · {plan['activations']} activations "
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
        "pair": f"{pair} · {text}" if text else pair,
        "interval": f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else "–",
        "best_layers": f"{row['best_layer_a']}, {row['best_layer_b']}",
    }
