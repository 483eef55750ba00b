"""`repsim barrier`: loss along the straight path between two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_evaluation_plan, say, write_found


@click.command(
    epilog="""\b
Examples:
  repsim barrier zoo:eng-1 zoo:eng-2 -l eng_Latn -o out/barrier
  repsim barrier runs/en runs/de --align permutation --align orthogonal --max-bytes 50000
"""
)
@click.argument("a")
@click.argument("b")
@opt.out("Folder for tables and figure.")
@opt.choices("--align", "align", ["permutation", "orthogonal"],
             "Also the path after aligning B to A; may be repeated.")  # fmt: skip
@opt.count("--points", "Points on it.", 11, least=3)
@opt.scoring_options
def barrier(
    a: str, b: str, out: Path | None, languages: tuple[str, ...], dry_run: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Measure bits per byte along the straight path from model A to model B.

    The barrier of a language is the most that the path rises over the straight line between the
    losses of its ends; a linear merge with equal weights lies in the middle of the path.
    """
    from repsim.evaluation import barrier as run
    from repsim.evaluation.plan import plan_evaluation

    if dry_run:
        # One model reads at each point of each path, and the plan is of both.
        readings = options["points"] * (1 + len(options["align"])) / 2
        how = {name: options[name] for name in ("corpus", "context", "max_bytes", "allow_network")}
        plan = plan_evaluation((a, b), languages=languages, parents=(), readings=readings, **how)
        print_evaluation_plan(plan, as_json=as_json)
        return
    table = run(a, b, languages=languages or None, say=say, **options)
    lines = [_line(row) for row in table.where(metric="barrier").rows()]
    print_either(as_json, table.to_json(), lines)
    if out is None:
        say("next", "add -o DIR to keep table and figure")
        return
    write_found(table, out, "barrier")
    aligned = f" --align {options['align'][0]}" if options["align"] else ""
    say("next", f"repsim merge {a} {b} {out / 'merged'}{aligned}")


def _line(row: dict[str, Any]) -> dict[str, Any]:
    known = row["ci_low"] is not None
    interval = f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]" if known else "–"
    return {
        "alignment": row["alignment"],
        "language": row["language"],
        "barrier (bits/byte)": row["value"],
        "95 % interval": interval,
        "at t": row["t"],
        "documents": row["n_documents"],
    }
