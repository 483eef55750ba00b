"""`repsim lineage`: what models share, whether a base fits, what a merge is made of."""

from __future__ import annotations

from pathlib import Path

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, print_table, say

_PAIRS = {
    "model_a": "model", "model_b": "and model", "relation": "relation", "cosine": "cosine",
    "distance": "distance", "deviations": "namesakes, sd", "gain_correlation": "gains, r",
    "megabytes": "MB read",
}  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  repsim lineage runs/a runs/b runs/c
  repsim lineage runs/a runs/b --base runs/trunk
  repsim lineage runs/a runs/b --base runs/trunk --merge runs/merged
"""
)
@click.argument("models", nargs=-1, required=True)
@click.option("--base", help="Model that is said to be their common ancestor.")
@click.option("--merge", help="Merge to take apart: the weight of each model, part by part.")
@click.option("--max-megabytes", type=click.FloatRange(1), default=300, show_default=True,
              help="Most that is read of a pair of models.")  # fmt: skip
@opt.out("Folder for the tables.")
@opt.as_json
def lineage(
    models: tuple[str, ...], base: str | None, merge: str | None, max_megabytes: float,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell from weights alone what MODELS share.

    Weights, a fine-tuning, training, initial weights, or nothing. MODELS are folders, files of
    safetensors, zoo:NAME or hub ids. The exit code is 4 if the base cannot be their nearest common
    ancestor.
    """
    from repsim.merging.ancestry import check_base
    from repsim.merging.lineage import lineage as of_models
    from repsim.merging.parts import take_apart

    everything = [*models, *([base] if base else [])]
    alone = merge is not None and len(everything) == 1
    pairs = None if alone else of_models(everything, max_megabytes=max_megabytes)
    finding = check_base(base, models, max_megabytes=max_megabytes) if base else None
    parts = take_apart(merge, everything, max_megabytes=max_megabytes) if merge else None
    tables = [table for table in (pairs, parts) if table is not None]
    if as_json:
        print_json({
            "pairs": list(pairs.rows()) if pairs else [],
            "base": finding.to_dict() if finding else None,
            "parts": list(parts.rows()) if parts else [],
        })  # fmt: skip
    else:
        if pairs:
            print_table(list(pairs.rows()), _PAIRS)
        if parts:
            click.echo()
            print_table(_by_part(list(parts.rows())))
            if "body" in parts.unique("part"):
                say("merge", parts.describe())
        if finding:
            say("base", f"{'plausible' if finding.plausible else 'NOT plausible'}: {finding.why}")
    if out:
        say("wrote", ", ".join(str(path) for table in tables for path in table.export(out)))
    if finding and not finding.plausible:
        raise click.exceptions.Exit(4)


def _by_part(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """One line per part: the weight of each parent, and what is left."""
    lines: dict[str, dict[str, object]] = {}
    for row in rows:
        line = lines.setdefault(str(row["part"]), {"part": row["part"]})
        line[str(row["parent"])] = row["weight"]
        line |= {"residual": row["residual"], "rounding": row["rounding"]}
    last = ("residual", "rounding")
    return [{**{k: v for k, v in x.items() if k not in last}, **{k: x[k] for k in last}}
            for x in lines.values()]  # fmt: skip
