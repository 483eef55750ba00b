"""Options that several verbs share: how models are loaded, and what they are scored on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]

_LOADING = (
    click.option("--revision", help="Revision of hub ids; of one alone: ORG/NAME@REVISION."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16", "float64"]),
        help="Type of the weights in memory; default: float32 on a CPU, as stored elsewhere.",
    ),
    click.option(
        "--device-map",
        type=click.Choice(["auto", "balanced", "balanced_low_0", "sequential"]),
        help="Spread large models over devices (accelerate); --device is then for measures alone.",
    ),
)
_SCORING = (
    click.option("--corpus", default="bible", show_default=True, help="Training corpus, by name."),
    click.option("-l", "--language", "languages", multiple=True, help="Default: of the models."),
    click.option("--context", type=click.IntRange(1), help="Tokens per window; default: the most."),
    click.option("--max-bytes", type=click.IntRange(1), help="At most so much of each language."),
    click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one."),
    click.option("--allow-network", is_flag=True, help="Fetch models or text that are not here."),
    click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
    click.option("--json", "as_json", is_flag=True, help="Print the table as one JSON document."),
)


def loading_options(command: Command) -> Command:
    """Add --revision, --dtype and --device-map to a verb."""
    return _with(_LOADING, command)


def memory_options(command: Command) -> Command:
    """Add --dtype and --device-map to a verb that names models at several revisions."""
    return _with(_LOADING[1:], command)


def scoring_options(command: Command) -> Command:
    """Add what says on which held-out text models are scored, where, and --dry-run and --json."""
    return _with(_SCORING, command)


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
