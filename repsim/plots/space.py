"""Models as points in a plane whose distances are those between their representations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_table import SimilarityTable
from repsim.plots.appearance import Size
from repsim.plots.names import listed, number, short_codes
from repsim.plots.selection import (
    At,
    MeasureFacts,
    Pair,
    Selection,
    depth_words,
    read_at,
    sample_size,
    select,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Node = tuple[str, str]
By = Literal["model", "model-language"]

#: Random starts of the scaling; the one of least stress is kept.
N_INIT = 8
MAX_PANELS = 12


@dataclasses.dataclass(frozen=True)
class SpacePanel:
    """One plane.

    Attributes:
        title: "" for a single plane.
        groups: `k` names that decide colour and marker (models).
        labels: `k` names written at the points: the model, or its language.
        roles: `k` roles.
        xy: `[k, 2]` positions, centred, first axis the longest.
        distances: `[k, k]` what was embedded.
        stress: Stress-1 of the embedding.
    """

    title: str
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    roles: tuple[str, ...]
    xy: np.ndarray
    distances: np.ndarray
    stress: float


@dataclasses.dataclass(frozen=True)
class SpaceData:
    """Everything that the figure shows.

    Attributes:
        panels: Planes; several if models can only be compared with themselves.
        facts: The measure.
        distance: The distance in words.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[SpacePanel, ...]
    facts: MeasureFacts
    distance: str
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, on how many sentences, how faithful it is and how to read it."""
        words = []
        for panel in self.panels:
            apart = panel.distances + np.where(np.eye(len(panel.xy), dtype=bool), np.inf, 0.0)
            i, j = np.unravel_index(int(apart.argmin()), apart.shape)
            names = [_full_name(panel, k) for k in (int(i), int(j))]
            words.append(f"Nearest: {listed(names)} ({number(float(apart[i, j]))})")
        return (
            f"Metric multidimensional scaling of {self.distance}: points that are near represent "
            f"the sentences alike. {'; '.join(self.note)}. {'. '.join(words)}. The axes have no "
            "meaning of their own; stress-1 is the relative error of the distances in the plane "
            "(under 0.1 they can be trusted, over 0.2 they mislead)."
        )


def _full_name(panel: SpacePanel, k: int) -> str:
    return " ".join(dict.fromkeys((panel.groups[k], panel.labels[k])))


def prepare_space(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    by: By | None = None,
    at: At = "middle",
    seed: int = 0,
    title: str | None = None,
) -> SpaceData:
    """Embed models, or models x languages, in a plane by metric multidimensional scaling.

    Args:
        table: The similarities.
        measure: Name of a measure; CKA, else the first, if left out.
        point: Hook point.
        models: Keep pairs of these models.
        languages: Keep these languages.
        by: "model" (same text; the mean over languages) or "model-language" (parallel text as
            well). By default models if there are at least three. Models that were not compared
            across languages get a plane each.
        at: "middle", "mean" or a layer, see `selection.read_at`.
        seed: Seed of the scaling's starts.
        title: Heading instead of the one that is made.

    Raises:
        UsageError: Fewer than three points, or distances that are not in the table.

    Example:
        >>> from repsim.testing.tables import synthetic_table
        >>> data = prepare_space(synthetic_table({"a": 2, "b": 2, "c": 2}, measures=("cka",)))
        >>> data.distance, data.panels[0].groups
        ('arccos of CKA (debiased)', ('a', 'b', 'c'))
    """
    if by not in (None, "model", "model-language"):
        raise unknown_name("kind of point", str(by), ("model", "model-language"))
    options: dict[str, Any] = {
        "measure": measure, "point": point, "models": models, "languages": languages,
    }  # fmt: skip
    chosen = by or _best_kind(table, options)
    if chosen == "model":
        selections = [select(table, **options, pairing="same text")]
    else:
        selections = [
            select(table, **options, pairing=pairing)
            for pairing in ("same text", "parallel text")
            if _has(table, options, pairing)
        ] or [select(table, **options)]
    facts = selections[0].facts
    known = _distances(selections, chosen, at)
    panels = tuple(
        _panel(selections[0], nodes, known, part, seed) for part, nodes in _planes(known).items()
    )
    size = sample_size(selections[-1])
    languages_seen = {language for found in selections for language in found.languages()}
    note = [size, depth_words(at)]
    if chosen == "model" and len(languages_seen) > 1:
        note.append(f"mean over {len(languages_seen)} languages")
    stresses = listed([number(panel.stress) for panel in panels])
    note.append(f"metric MDS, stress-1 = {stresses} (best of {N_INIT} starts, seed {seed})")
    what = "Models" if chosen == "model" else "Models and languages"
    return SpaceData(
        panels=panels,
        facts=facts,
        distance=_distance_words(facts),
        title=title if title is not None else f"{what} by {_distance_words(facts)}",
        note=tuple(note),
    )


def _has(table: SimilarityTable, options: Mapping[str, Any], pairing: str) -> bool:
    """Whether a selection of this pairing would hold anything."""
    try:
        select(table, **options, pairing=pairing)
    except UsageError:
        # A misspelt name fails for every pairing, and is reported by the one that is tried last.
        return False
    return True


def _best_kind(table: SimilarityTable, options: Mapping[str, Any]) -> By:
    if _has(table, options, "same text"):
        pairs = select(table, **options, pairing="same text").pairs
        if len({model for pair in pairs for model in pair.models}) >= 3:
            return "model"
    return "model-language"


def _distance_words(facts: MeasureFacts) -> str:
    if not facts.is_similarity:
        return facts.label
    if _is_cosine(facts):
        return f"arccos of {facts.label}"
    return f"{number(facts.identity, 0)} − {facts.label}"


def _is_cosine(facts: MeasureFacts) -> bool:
    """CKA is a cosine between centred Gram matrices: its angle is a metric."""
    return "cka" in facts.name.lower()


def as_distance(value: float, facts: MeasureFacts) -> float:
    """A value as a distance: angle of a CKA, one minus another similarity, a distance as it is.

    Example:
        >>> facts = MeasureFacts("cka", "CKA", "similarity", None, 1.0, 1.0, True, "L2")
        >>> as_distance(1.0, facts), round(as_distance(0.0, facts), 3)
        (0.0, 1.571)
    """
    if not facts.is_similarity:
        return max(value, 0.0)
    if _is_cosine(facts):
        return math.acos(min(max(value, -1.0), 1.0))
    return max(facts.identity - value, 0.0)


def _distances(selections: Sequence[Selection], by: By, at: At) -> dict[tuple[Node, Node], float]:
    """Distance of every two nodes that the table compares, averaged over languages and orders."""
    codes = short_codes([lang for selection in selections for lang in selection.languages()])
    found: dict[tuple[Node, Node], list[float]] = {}
    for selection in selections:
        for pair, rows in selection.pairs.items():
            first, second = _nodes(pair, by, codes)
            if first == second:
                continue
            value = as_distance(read_at(rows, at).value, selection.facts)
            key = (first, second) if (second, first) not in found else (second, first)
            found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _nodes(pair: Pair, by: By, codes: Mapping[str, str]) -> tuple[Node, Node]:
    if by == "model":
        return (pair.model_a, ""), (pair.model_b, "")
    return (pair.model_a, codes[pair.language_a]), (pair.model_b, codes[pair.language_b])


def _planes(known: Mapping[tuple[Node, Node], float]) -> dict[str, list[Node]]:
    """Title -> nodes that are all compared with each other: all of them, else those of each model.

    Raises:
        UsageError: Too few points, or too many planes, or distances missing within a model as well.
    """
    nodes = list(dict.fromkeys(node for key in known for node in key))
    models = list(dict.fromkeys(model for model, _ in nodes))
    nodes.sort(key=lambda node: models.index(node[0]))
    if len(nodes) < 3:
        raise UsageError(
            f"a plane needs at least three points, and the table compares {len(nodes)}",
            hint="compare more models, or several languages on parallel text",
        )
    if not _missing(nodes, known):
        return {"": nodes}
    planes = {model: [node for node in nodes if node[0] == model] for model in models}
    planes = {model: those for model, those in planes.items() if len(those) >= 3}
    gaps = _missing(nodes, known) if not planes else []
    gaps += [gap for those in planes.values() for gap in _missing(those, known)]
    if gaps:
        names = " and ".join(" ".join(part for part in node if part) for node in gaps[0])
        raise UsageError(
            f"{len(gaps)} of the distances between these points are not in the table, for example "
            f"{names}",
            hint="choose models or languages that were all compared with each other",
        )
    if len(planes) > MAX_PANELS:
        raise UsageError(
            f"this figure would have {len(planes)} panels, more than {MAX_PANELS}",
            hint="choose some with models=[...]",
        )
    return planes if len(planes) > 1 else {"": next(iter(planes.values()))}


def _missing(
    nodes: Sequence[Node], known: Mapping[tuple[Node, Node], float]
) -> list[tuple[Node, Node]]:
    return [
        (a, b)
        for i, a in enumerate(nodes)
        for b in nodes[:i]
        if (a, b) not in known and (b, a) not in known
    ]


def _panel(
    selection: Selection,
    nodes: Sequence[Node],
    known: Mapping[tuple[Node, Node], float],
    title: str,
    seed: int,
) -> SpacePanel:
    matrix = np.zeros((len(nodes), len(nodes)))
    for i, a in enumerate(nodes):
        for j, b in enumerate(nodes[:i]):
            matrix[i, j] = matrix[j, i] = known[a, b] if (a, b) in known else known[b, a]
    xy, stress = embed(matrix, seed)
    return SpacePanel(
        title=title,
        groups=tuple(model for model, _ in nodes),
        labels=tuple(language or model for model, language in nodes),
        roles=tuple(selection.role([model]) for model, _ in nodes),
        xy=xy,
        distances=matrix,
        stress=stress,
    )


def embed(distances: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """Metric multidimensional scaling into the plane, in a fixed orientation.

    Args:
        distances: `[k, k]` symmetric, zero diagonal.
        seed: Seed of the random starts.

    Returns:
        `[k, 2]` positions (centred, principal axes, first point on the positive side of both) and
        stress-1: `sqrt(sum (d - e)^2 / sum d^2)` over pairs, with e the distances in the plane.

    Example:
        >>> corners = np.array([[0, 3.0, 4], [3, 0, 5], [4, 5, 0]])
        >>> embed(corners)[1] < 1e-3
        True
    """
    from sklearn.manifold import smacof

    xy, _ = smacof(
        distances, metric=True, n_components=2, n_init=N_INIT, max_iter=1000, eps=1e-9,
        random_state=seed, normalized_stress=False,
    )  # fmt: skip
    xy = xy - xy.mean(axis=0)
    _, _, axes = np.linalg.svd(xy, full_matrices=False)
    xy = xy @ axes.T
    xy *= np.where(xy[0] < 0, -1.0, 1.0)
    upper = np.triu_indices(len(xy), 1)
    shown = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[upper]
    total = float((distances[upper] ** 2).sum())
    stress = math.sqrt(float(((distances[upper] - shown) ** 2).sum()) / total) if total else 0.0
    return xy, stress


def plot_space(
    table: SimilarityTable, *, ax: Axes | None = None, size: Size = "wide", **options: Any
) -> Figure:
    """Draw models, or models x languages, as points whose distances are those of a measure.

    Args:
        table: The similarities.
        ax: Axes to draw into; a figure of its own is made if left out. Takes one panel.
        size: "single" (3.4 in), "medium" (5 in) or "wide" (7 in).
        **options: See `prepare_space`.

    Returns:
        The figure (`ax.figure` if an axes was given).

    Raises:
        UsageError: Fewer than three points, or distances that are not in the table.
    """
    from repsim.plots.drawing.space import draw_space

    return draw_space(prepare_space(table, **options), ax=ax, size=size)
