"""Options of verbs that load models: revision, type and place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
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


def loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --revision, --dtype and --device-map to a verb."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
