"""Options that several verbs share, each said once, and short ways to state the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from repsim.core.errors import UsageError

Command = Callable[..., Any]
Option = Callable[[Command], Command]

PATH = click.Path(path_type=Path)


def flag(name: str, text: str) -> Option:
    """An option that is on or off."""
    return click.option(name, is_flag=True, help=text)


def choice(name: str, values: Sequence[str], text: str, default: str | None = None) -> Option:
    """An option with one of some values."""
    shown = default is not None
    kind = click.Choice(values)
    return click.option(name, type=kind, default=default, show_default=shown, help=text)


def choices(name: str, variable: str, values: Sequence[str], text: str) -> Option:
    """An option with some of some values, given again for each."""
    return click.option(name, variable, multiple=True, type=click.Choice(values), help=text)


def count(name: str, text: str, default: int | None = None, *, least: int = 1) -> Option:
    """An option with a whole number."""
    shown, kind = default is not None, click.IntRange(least)
    return click.option(name, type=kind, default=default, show_default=shown, help=text)


def many(name: str, variable: str, text: str) -> Option:
    """An option with a text, given again for each."""
    return click.option(name, variable, multiple=True, help=text)


def out(text: str, *, required: bool = False) -> Option:
    """Where results go."""
    return click.option("-o", "--out", type=PATH, required=required, help=text)


def languages(text: str) -> Option:
    """Languages by their codes."""
    return click.option("-l", "--language", "languages", multiple=True, help=text)


def corpus(default: str, text: str) -> Option:
    """A corpus by its name or path."""
    return click.option("--corpus", default=default, show_default=True, help=text)


def seed(text: str) -> Option:
    """Seed of what is drawn."""
    return click.option("--seed", type=int, default=0, show_default=True, help=text)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run = flag("--dry-run", "Look everything up, print the plan and stop.")
device = click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
network = flag("--allow-network", "Fetch models or text that are not here.")

_LOADING = (
    click.option("--revision", help="Revision of hub ids; of one alone: ORG/NAME@REVISION."),
    choice("--dtype", ["float32", "bfloat16", "float16", "float64"],
           "Type of the weights in memory; default: float32 on a CPU, as stored elsewhere."),
    choice("--device-map", ["auto", "balanced", "balanced_low_0", "sequential"],
           "Spread large models over devices (accelerate); --device is then for measures alone."),
)  # fmt: skip
_SCORING = (
    corpus("bible", "Training corpus, by name."),
    languages("Default: of the models."),
    count("--context", "Tokens per window; default: the most."),
    count("--max-bytes", "At most so much of each language."),
    device, network, dry_run, as_json,
)  # fmt: skip


def loading_options(command: Command) -> Command:
    """Add --revision, --dtype and --device-map to a verb."""
    return _with(_LOADING, command)


def memory_options(command: Command) -> Command:
    """Add --dtype and --device-map to a verb that names models at several revisions."""
    return _with(_LOADING[1:], command)


def scoring_options(command: Command) -> Command:
    """Add what says on which held-out text models are scored, where, and --dry-run and --json."""
    return _with(_SCORING, command)


def planned(command: Command) -> Command:
    """Add --dry-run and --json to a verb."""
    return _with((dry_run, as_json), command)


def _with(options: Sequence[Option], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def parameter(text: str) -> tuple[str, Any]:
    """`name=value`, the value as YAML reads it."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set needs NAME=VALUE, got '{text}'", hint="--set weight=0.5")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"the value of --set {text} cannot be read") from None
