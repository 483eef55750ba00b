"""`repsim methods`: how models can be merged, and what each method declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_declared

if TYPE_CHECKING:
    from repsim.merging.base import MergeMethod


@click.command(
    epilog="""\b
Examples:
  repsim methods
  repsim methods ties
"""
)
@click.argument("name", required=False)
@opt.as_json
def methods(name: str | None, as_json: bool) -> None:
    """List the merge methods, or tell all about the one called NAME."""
    from repsim.merging.methods import find_method, list_methods

    chosen = [find_method(name)] if name else list_methods()
    documents = [_describe(method) for method in chosen]
    rows = [
        {"name": d["name"], "models": d["models"], "base": d["base"],
         "parameters": [*d["per_model_parameters"], *d["parameters"]],
         "definition": d["definition"]}
        for d in documents
    ]  # fmt: skip
    print_declared(name, documents, rows, as_json=as_json)


def _describe(method: MergeMethod) -> dict[str, Any]:
    most = f" to {method.max_models}" if method.max_models else " or more"
    models = f"{method.min_models}{most}"
    if method.max_models == method.min_models:
        models = str(method.min_models)
    base = "needed" if method.needs_base else ("optional" if method.takes_base else None)
    return {
        "name": method.name,
        "label": method.label,
        "definition": method.definition,
        "reference": method.reference,
        "models": models,
        "base": base,
        "statistics": method.needs or None,
        "per_model_parameters": dict(method.model_defaults),
        "parameters": dict(method.defaults),
        "ranges": {
            name: own.range.partition(" ")[2] or f"one of {', '.join(own.choices)}"
            for name, own in method.parameters.items()
            if own.range or own.choices
        },
    }
