"""`repsim measures`: what can be measured, and what each measure declares."""

from __future__ import annotations

import click

from repsim.cli.output import print_json, print_table


@click.command(
    epilog="""\b
Examples:
  repsim measures
  repsim measures cka
"""
)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the declarations as JSON.")
def measures(name: str | None, as_json: bool) -> None:
    """List the similarity measures, or tell all about the one called NAME."""
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
