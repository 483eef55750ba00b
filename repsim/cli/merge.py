"""`repsim merge`: from a recipe, or from model names, to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli.output import print_json, print_table, say, size
from repsim.core.errors import UsageError

if TYPE_CHECKING:
    from repsim.merging.prepare import Prepared
    from repsim.merging.recipe import Recipe


@click.command(
    epilog="""\b
Examples:
  repsim merge recipe.yml out/merged
  repsim merge runs/en runs/de out/merged --method slerp --set t=0.4
  repsim merge runs/en runs/de out/ties --method ties --base runs/mixed --set density=0.3
"""
)
@click.argument("sources", nargs=-1, required=True, metavar="(RECIPE | MODEL...) OUT")
@click.option("--method", help="Merge method for MODELS; default: linear. See: repsim methods")
@click.option("--base", help="Model that differences are taken to.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Parameter; repeatable.")
@click.option(
    "--align",
    type=click.Choice(["none", "permutation", "orthogonal"]),
    help="Bring all models into the coordinates of the first before merging.",
)
@click.option(
    "--out-dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "float64"]),
    help="Type of the merged weights; default: that of the first model.",
)
@click.option("--seed", type=int, help="Seed of methods that draw; default: 0.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--force", is_flag=True, help="Replace an earlier merge in OUT.")
@click.option("--dry-run", is_flag=True, help="Check recipe and models, print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def merge(
    sources: tuple[str, ...], device: str | None, force: bool, dry_run: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Merge models into the folder OUT, by a RECIPE file or with the options given here.

    Recipes of mergekit are read as they are. A merge that was interrupted goes on when the same
    command is run again.
    """
    from repsim.merging.prepare import prepare
    from repsim.merging.to_disk import merge as run

    if len(sources) < 2:
        raise UsageError("name a recipe or models, and then the folder of the result")
    recipe = _recipe(sources[:-1], options)
    out = Path(sources[-1])
    if dry_run:
        plan = _plan(prepare(recipe))
        if as_json:
            print_json({"plan": plan})
        else:
            print_table([{"what": key, "value": value} for key, value in plan.items()])
        return
    folder = run(recipe, out, device=device, force=force)
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if as_json:
        print_json({"out": str(folder), "method": recipe.method, "bytes": written})
    say("wrote", f"{folder} ({size(written)} by {recipe.method}), README.md, repsim_recipe.yaml")
    say("next", f"repsim evaluate {folder} {' '.join(recipe.models)}")


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Recipe:
    """A recipe from a file, or from models and options."""
    from repsim.merging.recipe import read_recipe

    given = {key: value for key, value in options.items() if value not in (None, ())}
    if len(sources) == 1 and not Path(sources[0]).is_dir():
        if given:
            option = "--" + next(iter(given)).replace("values", "set").replace("_", "-")
            raise UsageError(
                f"{option} does not go with a recipe file", hint="write it into the recipe"
            )
        return read_recipe(sources[0])
    document: dict[str, Any] = {"method": given.pop("method", "linear"), "models": list(sources)}
    if base := given.pop("base", None):
        document["base_model"] = base
    if values := given.pop("values", ()):
        document["parameters"] = dict(_parameter(text) for text in values)
    return read_recipe(document | given)


def _parameter(text: str) -> tuple[str, Any]:
    """`name=value`, the value as YAML reads it."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set needs NAME=VALUE, got '{text}'", hint="--set weight=0.5")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"the value of --set {text} cannot be read") from None


def _plan(prepared: Prepared) -> dict[str, Any]:
    """What a merge would do."""
    from repsim.merging.output import lay_out

    layout = lay_out({plan.name: plan.header for plan in prepared.plans})
    return {
        "method": prepared.method.name,
        "models": list(prepared.recipe.models),
        "base": prepared.recipe.base_model,
        "align": prepared.recipe.align,
        "tensors": len(prepared.plans),
        "bytes": layout.total,
        "files": len(layout.heads),
        "notes": list(prepared.notes),
    }
