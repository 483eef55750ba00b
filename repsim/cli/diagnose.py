"""`repsim diagnose`: what a merge lost, where, why, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from repsim.cli import options as opt
from repsim.cli.output import print_evaluation_plan, print_json, print_table, say

if TYPE_CHECKING:
    from repsim.mergeability.diagnosis import Diagnosis


@click.command(
    epilog="""\b
Examples:
  repsim diagnose out/merged runs/en runs/de
  repsim diagnose out/merged runs/en runs/de --base runs/trunk -l eng_Latn -l deu_Latn
"""
)
@click.argument("merge")
@click.argument("parents", nargs=-1, required=True)
@click.option("--base", help="Base that the merge was made with.")
@click.option("--text", "corpus", default="bible", show_default=True,
              help="Training corpus whose held-out part is read: a name or a folder.")  # fmt: skip
@opt.languages("Language; repeatable; default: those that the parents state.")
@opt.count("--max-bytes", "Most text per language.", 12_000)
@opt.memory_options
@opt.flag("--no-forecast", "Do not forecast other ways to merge.")
@opt.out("Folder for the tables.")
@opt.planned
def diagnose(
    merge: str, parents: tuple[str, ...], base: str | None, corpus: str,
    languages: tuple[str, ...], max_bytes: int, no_forecast: bool, out: Path | None,
    dry_run: bool, as_json: bool, **loading: str | None,
) -> None:  # fmt: skip
    """Tell what MERGE lost of its PARENTS, where, why, and what mends it.

    Files and weights are looked through for known causes. In languages that keep less than 0.9 of
    their best parent, activations are read block by block, and each part of the merge is replaced
    by the parent's to see what comes back.
    """
    from repsim.evaluation.plan import plan_evaluation
    from repsim.mergeability.diagnosis import diagnose as run

    say("plan", f"files and weights of {len(parents) + 1} models; losses on at most {max_bytes} "
        "bytes per language; of lost ones activations, and each part put back")  # fmt: skip
    if dry_run:
        plan = plan_evaluation(
            (merge,), corpus, languages, parents=parents, max_bytes=max_bytes, readings=20
        )
        print_evaluation_plan(plan, as_json=as_json)
        return
    found = run(merge, parents, base=base, corpus=corpus, languages=languages or None,
                max_bytes=max_bytes, forecast=not no_forecast, loading=loading,
                say=say)  # fmt: skip
    if as_json:
        print_json(found.to_dict())
    else:
        for line in found.summary():
            click.echo(line)
        for note in found.notes:
            say("note", note)
        _print_readings(found)
    if out:
        tables = [found.readings, found.case.parts, found.case.lineage]
        paths = [path for table in tables if table is not None for path in table.export(out)]
        if found.readings.blocks(found.worst):
            from repsim.plots import FIGURES, save_figure

            paths += save_figure(FIGURES["diagnosis"](found.readings), out / "diagnosis")
        say("wrote", ", ".join(map(str, paths)))
    if found.broken:
        say("next", f"repsim predict {' '.join(parents)} --rank-methods")


def _print_readings(found: Diagnosis) -> None:
    """Parts that restore most, and the language that lost most block by block."""
    rows = sorted(found.readings.where(reading="restored").rows(), key=lambda row: -row["value"])
    if rows:
        click.echo()
        print_table(
            rows[:8],
            {"language": "language", "part": "part taken from", "parent": "the parent",
             "value": "share of the loss that comes back"},
        )  # fmt: skip
    if blocks := found.readings.blocks(found.worst):
        click.echo()
        heads = {"part": f"{found.worst}, after", "norm": "norm, times parents'",
                 "variance": "variance, times parents'"}  # fmt: skip
        names = [name for name in blocks[0] if name.startswith("similarity ")]
        heads |= {name: name.replace("similarity", "CKA with") for name in names}
        print_table(blocks, heads | {"restored": "restored"})
