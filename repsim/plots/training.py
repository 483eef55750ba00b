"""Training curves: bits per byte on held-out text by language, and the training loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.plots.appearance import GREY, Look, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import EndLabel, spread_end_labels, write_end_labels
from repsim.plots.names import listed, number
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

#: Points that a loss curve keeps: each is the mean over its stretch of steps.
LOSS_POINTS = 120
_LOSS = "training loss (nats per token)"


def _caption(info: Numbers) -> str:
    ends = []
    for panel in info.panels[:-1]:
        best = min(panel.curves, key=lambda curve: float(curve.value[-1]))
        floor = f", unigram floor {number(panel.floor)}" if panel.floor is not None else ""
        ends.append(f"{panel.title}: {best.label} {number(float(best.value[-1]))}{floor}")
    names = listed([curve.label for curve in info.panels[-1].curves])
    return (
        f"Training of {names}: bits per byte on held-out text over tokens seen, and the "
        f"training loss. Lowest at the end: {'; '.join(ends)}. Lower is better; a model above "
        "the dashed floor is worse at the language than counting its tokens."
    )


def training_info(folders: Sequence[str | Path]) -> Numbers:
    r"""Training curves of some runs, a panel per language and one for the training loss."""
    paths = _runs([Path(folder) for folder in folders])
    panels: dict[str, Numbers] = {}
    losses = Numbers(title=_LOSS, curves=[], floor=None)
    for path in paths:
        _add_run(path, panels, losses)
    for panel in panels.values():  # a floor is drawn that all runs share
        panel.floor = next(iter(panel.floors)) if len(panel.floors) == 1 else None
    note = (f"{len(paths)} runs", "held-out documents, BOS first, windows without overlap")
    made = "Training curves"
    return Numbers(_caption, panels=(*panels.values(), losses), title=made, note=note)


def _runs(folders: list[Path]) -> list[Path]:
    """Run folders among, or directly below, the given ones."""
    found: list[Path] = []
    for folder in folders:
        here = [folder] if (folder / "metrics.jsonl").is_file() else []
        below = sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
        if not (here or below):
            raise InputError(
                f"'{folder}' holds no training metrics",
                hint="it should hold a metrics.jsonl, or folders that do",
            )
        found += here or below
    return found


def _add_run(folder: Path, panels: dict[str, Numbers], losses: Numbers) -> None:
    """Put the curves of one run into the panels of its languages and of the loss."""
    rows = _rows(folder / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    steps, tokens, loss = (
        np.array([row[name] for row in train], dtype=float) for name in ("step", "tokens", "loss")
    )
    tokens_at = _tokens_by_step(steps, tokens)
    about = folder / "repsim_provenance.json"
    known: dict[str, Any] = read_json(about) if about.exists() else {}
    label, role = folder.name, known.get("role", "other")
    checks = [row for row in rows if row["kind"] == "validation"]
    for name in dict.fromkeys(key for row in checks for key in row if f"{key}_hex" in row):
        mine = [row for row in checks if f"{name}_hex" in row]
        seen = np.array([tokens_at(row["step"]) for row in mine])
        panel = panels.setdefault(name, Numbers(title=name, curves=[], floors=set()))
        score = np.array([row[name] for row in mine])
        panel.curves.append(Numbers(label=label, role=role, tokens=seen / 1e6, value=score))
        floors = known.get("unigram_floor", {})
        panel.floors.update([floors[name]] if name in floors else [])
    if train:
        parts = min(LOSS_POINTS, len(train))
        thin = [
            np.array([part.mean() for part in np.array_split(values, parts)])
            for values in (tokens, loss)
        ]
        losses.curves.append(Numbers(label=label, role=role, tokens=thin[0] / 1e6, value=thin[1]))


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line_number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"line {line_number} of '{path}' is damaged: {error}",
                hint="train the run again: --fresh",
            ) from None
    return rows


def _tokens_by_step(steps: np.ndarray, tokens: np.ndarray) -> Callable[[float], float]:
    """Step -> tokens seen, also for the step before the first that is known."""
    if not len(steps):
        return float
    each = (tokens[-1] - tokens[0]) / (steps[-1] - steps[0]) if len(steps) > 1 else tokens[0]
    return lambda step: float(tokens[0] + (step - steps[0]) * each)


def draw_training(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """One frame per language and one for the training loss."""
    count = len(info.panels)
    columns = min(count, 1 if size == "single" else 3)
    runs = {curve.label: curve.role for panel in info.panels for curve in panel.curves}
    roles = list(runs.values())
    if len(set(roles)) < len(roles):  # a role's one colour would be that of two curves
        roles = ["run"] * len(runs)
    found = dict(zip(runs, looks(roles), strict=True))
    key = fig.key_of({label: _line(look) for label, look in found.items()})
    height = -(-count // columns) * (width_of(size) / columns) * 0.78 + 0.3
    axes = fig.frames(info, ax, count, columns, size, height, key=key)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, panel, found)
    figure = fig.finish(axes)
    for frame in axes:
        spread_end_labels(frame)
    return figure


def _line(look: Look) -> dict[str, Any]:
    return line_marker(look, 2.6, linewidth=1.2)


def _draw_panel(ax: Axes, panel: Numbers, found: dict[str, Look]) -> None:
    ax.grid(visible=True, axis="y")
    for curve in panel.curves:
        options = _line(found[curve.label])
        if len(curve.value) > 30:
            options |= {"marker": ""}
        ax.plot(curve.tokens, curve.value, label=curve.label, **options)
    if panel.floor is not None:
        ax.axhline(panel.floor, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)))
        write_end_labels(ax, [EndLabel(panel.floor, "unigrams", GREY, bold=False)], size=7.0)
    is_loss = panel.title == _LOSS
    ax.set_title("training loss" if is_loss else panel.title, loc="left")
    ax.set_xlabel("million tokens")
    ax.set_ylabel("nats per token" if is_loss else "bits per byte")


TRAINING = Figure("training", "run folders", training_info, draw_training)
