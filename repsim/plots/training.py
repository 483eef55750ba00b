"""Training curves: bits per byte on held-out text by language, and the training loss."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.plots.appearance import Size
from repsim.plots.names import listed, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Points that a loss curve keeps: each is the mean over its stretch of steps.
LOSS_POINTS = 120


@dataclasses.dataclass(frozen=True)
class TrainingCurve:
    """One run.

    Attributes:
        label: Name of the run.
        role: Role that decides its colour.
        tokens: `[k]` millions of tokens seen, those of its trunk included.
        value: `[k]` bits per byte, or loss in nats per token.
    """

    label: str
    role: str
    tokens: np.ndarray
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainingPanel:
    """Curves of one language (or of the training loss), and that language's unigram floor."""

    title: str
    curves: tuple[TrainingCurve, ...]
    floor: float | None


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Everything that the figure shows.

    Attributes:
        panels: One per language, then the training loss.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[TrainingPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown and where each language ended."""
        ends = []
        for panel in self.panels[:-1]:
            best = min(panel.curves, key=lambda curve: float(curve.value[-1]))
            floor = f", unigram floor {number(panel.floor)}" if panel.floor is not None else ""
            ends.append(f"{panel.title}: {best.label} {number(float(best.value[-1]))}{floor}")
        names = listed([curve.label for curve in self.panels[-1].curves])
        return (
            f"Training of {names}: bits per byte on held-out text over tokens seen, and the "
            f"training loss. Lowest at the end: {'; '.join(ends)}. Lower is better; a model above "
            "the dashed floor is worse at the language than counting its tokens."
        )


def prepare_training(folders: Sequence[str | Path]) -> TrainingData:
    r"""Read the curves of some runs.

    Args:
        folders: Folders of runs, each with a `metrics.jsonl`; or one folder of a family.

    Raises:
        InputError: A folder holds no metrics, or damaged ones.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "eng"
        >>> folder.mkdir()
        >>> rows = [{"kind": "validation", "step": 0, "eng_Latn": 4.0, "eng_Latn_hex": ""},
        ...         {"kind": "train", "step": 1, "loss": 5.0, "tokens": 1000}]
        >>> _ = (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        >>> [panel.title for panel in prepare_training([folder]).panels]
        ['eng_Latn', 'training loss (nats per token)']
    """
    paths = _runs([Path(folder) for folder in folders])
    runs = [_read(path) for path in paths]
    languages = list(dict.fromkeys(name for run in runs for name in run.scores))
    panels = []
    for language in languages:
        curves = [run.curve(*run.scores[language]) for run in runs if language in run.scores]
        floors = {run.floors[language] for run in runs if language in run.floors}
        panels.append(
            TrainingPanel(language, tuple(curves), floors.pop() if len(floors) == 1 else None)
        )
    losses = tuple(run.curve(*_thinned(*run.losses)) for run in runs if len(run.losses[0]))
    panels.append(TrainingPanel("training loss (nats per token)", losses, None))
    note = (f"{len(runs)} runs", "held-out documents, BOS first, windows without overlap")
    return TrainingData(tuple(panels), "Training curves", note)


def plot_training(folders: Sequence[str | Path], *, size: Size = "wide") -> Figure:
    """Training curves as a figure; arguments as for `prepare_training`."""
    from repsim.plots.drawing.training import draw_training

    return draw_training(prepare_training(folders), size=size)


@dataclasses.dataclass(frozen=True)
class _Run:
    name: str
    role: str
    floors: dict[str, float]
    scores: dict[str, tuple[np.ndarray, np.ndarray]]
    losses: tuple[np.ndarray, np.ndarray]

    def curve(self, tokens: np.ndarray, value: np.ndarray) -> TrainingCurve:
        return TrainingCurve(self.name, self.role, tokens / 1e6, value)


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


def _read(folder: Path) -> _Run:
    rows = _rows(folder / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    tokens_at = _tokens_by_step(train)
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row["kind"] == "validation":
            for name in (key for key in row if f"{key}_hex" in row):
                xs, ys = scores.setdefault(name, ([], []))
                xs.append(tokens_at(row["step"]))
                ys.append(row[name])
    about = folder / "repsim_provenance.json"
    known: dict[str, Any] = read_json(about) if about.exists() else {}
    return _Run(
        name=folder.name,
        role=known.get("role", "other"),
        floors=known.get("unigram_floor", {}),
        scores={name: (np.array(x), np.array(y)) for name, (x, y) in scores.items()},
        losses=(
            np.array([row["tokens"] for row in train], dtype=float),
            np.array([row["loss"] for row in train], dtype=float),
        ),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"line {line_number} of '{path}' is damaged: {error}") from None
    return rows


def _tokens_by_step(train: list[dict[str, Any]]) -> Any:
    """Step -> tokens seen, also for the step before the first that is known."""
    if not train:
        return float
    steps = np.array([row["step"] for row in train], dtype=float)
    tokens = np.array([row["tokens"] for row in train], dtype=float)
    each = (tokens[-1] - tokens[0]) / (steps[-1] - steps[0]) if len(steps) > 1 else tokens[0]
    return lambda step: float(tokens[0] + (step - steps[0]) * each)


def _thinned(tokens: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over at most `LOSS_POINTS` stretches of equal length."""
    parts = min(LOSS_POINTS, len(tokens))
    return (
        np.array([part.mean() for part in np.array_split(tokens, parts)]),
        np.array([part.mean() for part in np.array_split(losses, parts)]),
    )
