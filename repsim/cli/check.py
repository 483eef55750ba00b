"""`repsim check`: whether models fit each other, from their files alone."""

from __future__ import annotations

from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, print_table, say

COLUMNS = {"level": "level", "check": "check", "where": "where", "what": "found"}


@click.command(
    epilog="""\b
Examples:
  repsim check runs/en runs/de
  repsim check runs/en runs/de --base runs/trunk
  repsim check runs/en runs/de runs/fr --deep
"""
)
@click.argument("models", nargs=-1, required=True)
@click.option("--base", help="Model that is said to be their common ancestor.")
@opt.flag("--deep", "Read all weights in search of NaN and infinity.")
@opt.choice("--tokenizer", ["same", "map", "union"],
            "Whether tokens may have other ids; see tokenizer in a recipe.", "same")  # fmt: skip
@opt.as_json
def check(
    models: tuple[str, ...], base: str | None, deep: bool, tokenizer: Any, as_json: bool
) -> None:
    """Tell from configs, headers, tokenizer files and lineage whether MODELS can be merged.

    All are compared with the first. No model is loaded; of the weights a sample is read (40 MB of a
    pair) that tells what the models share. The exit code is 4 if there is an error.
    """
    from repsim.merging.ancestry import check_lineage
    from repsim.merging.check import check_models

    everything = [*models, *([base] if base else [])]
    findings = check_models(everything, deep=deep, tokenizer=tokenizer)
    if tokenizer == "same":
        findings += check_lineage(models, base)
    errors = [finding for finding in findings if finding.level == "error"]
    if as_json:
        print_json({"ok": not errors, "findings": [f.to_dict() for f in findings]})
    else:
        print_table([finding.to_dict() for finding in findings], COLUMNS)
        told = [finding for finding in findings if finding.level != "ok"]
        for hint in dict.fromkeys(f.hint for f in errors or told if f.hint):
            say("hint", hint)
        if not errors:
            ties = f" --method ties --base {base}" if base else ""
            say("next", f"repsim merge {' '.join(models)} OUT{ties}")
    if errors:
        raise click.exceptions.Exit(4)
