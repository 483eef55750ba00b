"""What the command line says: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from repsim.core.formatting import singular
from repsim.core.progress import duration


def print_error(what: str, hint: str | None, *, code: int, as_json: bool = False) -> None:
    """One error: to stderr for people, or as the one JSON document for programs."""
    if as_json:
        print_json({"error": {"message": what, "hint": hint, "exit_code": code}})
        return
    click.secho(f"error: {what}", fg="red", err=True)
    if hint:
        click.echo(f"hint:  {hint}", err=True)


def say(label: str, text: str) -> None:
    """One line of talk on stderr: `plan   3 models ...`."""
    click.echo(f"{label:<6} {singular(text)}", err=True)


def print_evaluation_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """What an evaluation would read and take, on stdout."""
    if as_json:
        print_json({"plan": dict(plan)})
        return
    models = zip(plan["models"], plan["parameters"], strict=True)
    print_table([{"model": name, "parameters": f"{count:,}"} for name, count in models])
    text = ", ".join(f"{code} {size(count)}" for code, count in plan["bytes"].items())
    say("plan", f"held-out text of '{plan['corpus']}': {text} · windows of {plan['context']} "
        f"tokens · ≈ {duration(plan['seconds'])} of one core")  # fmt: skip


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` command."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_either(
    as_json: bool,
    document: Any,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] | None = None,
) -> None:
    """The JSON document of a `--json` command, or the table for people."""
    print_json(document) if as_json else print_table(rows, columns)


def print_declared(
    name: str | None,
    documents: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
) -> None:
    """All of what is declared as one table; of one that was named, everything."""
    if as_json:
        print_json(documents[0] if name else documents)
    elif name:
        for key, value in documents[0].items():
            click.echo(f"{key:<20} {_told(value)}")
    else:
        print_table(rows)


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items()) or "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else _cell(value)


def write_found(table: Any, out: Path, figure: str = "") -> None:
    """Write a table, and the figure that is drawn of it, into a folder, and say so."""
    from repsim.plots import FIGURES, save_figure

    written = [*table.export(out)]
    if figure:
        written += save_figure(FIGURES[figure](table), out / figure)
    say("wrote", f"{out}: {', '.join(path.name for path in written)}")


def with_bits_per_byte(
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, float]],
    floor: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Rows of models with a column of each language that any was scored on, and the floor last."""
    languages = sorted({language for one in found for language in one})
    first, *others = rows[0]
    last = {first: "(unigram floor)", **dict.fromkeys(others)}
    return [
        {**row, **{f"bits/byte {code}": scores.get(code) for code in languages}}
        for row, scores in zip([*rows, last], [*found, floor], strict=True)
    ]


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None
) -> None:
    """A plain table on stdout, all columns or those with headings; terminals get it cut."""
    if not rows:
        return
    heads = dict(columns) if columns else {key: key for key in rows[0]}
    cells = [[_cell(row.get(key)) for key in heads] for row in rows]
    widths = [
        max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads.values())
    ]
    right = [all(_is_number(row.get(key)) for row in rows) for key in heads]
    # What goes into a file or another program is whole.
    limit = shutil.get_terminal_size((160, 24)).columns if sys.stdout.isatty() else math.inf
    for line in [list(heads.values()), *cells]:
        parts = [
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        ]
        text = "  ".join(parts).rstrip()
        click.echo(text if len(text) <= limit else text[: int(limit) - 1] + "…")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return str(value)


def size(n_bytes: float) -> str:
    """Bytes in words: 2.0 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= limit:
            return f"{n_bytes / limit:.1f} {unit}"
    return f"{n_bytes:.0f} B"
