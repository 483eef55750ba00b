"""Models as points in a plane whose distances are those between their representations."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.core.similarity_table import SimilarityTable
from repsim.plots import selection as sel
from repsim.plots.appearance import INK, Look, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.drawing.labels import place_beside
from repsim.plots.names import listed, number, short_codes, shortened
from repsim.plots.selection import At, MeasureFacts, Selection
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where

Node = tuple[str, str]
By = Literal["model", "model-language"]

#: Random starts of the scaling; the one of least stress is kept.
N_INIT = 8
MAX_PANELS = 12


def _caption(info: Numbers) -> str:
    words = []
    for panel in info.panels:
        apart = panel.distances + np.where(np.eye(len(panel.xy), dtype=bool), np.inf, 0.0)
        i, j = np.unravel_index(int(apart.argmin()), apart.shape)
        names = [_full_name(panel, k) for k in (int(i), int(j))]
        words.append(f"Nearest: {listed(names)} ({number(float(apart[i, j]))})")
    return (
        f"Metric multidimensional scaling of {info.distance}: points that are near represent "
        f"the sentences alike. {'; '.join(info.note)}. {'. '.join(words)}. The axes have no "
        "meaning of their own; stress-1 is the relative error of the distances in the plane "
        "(under 0.1 they can be trusted, over 0.2 they mislead)."
    )


def _full_name(panel: Numbers, k: int) -> str:
    return " ".join(dict.fromkeys((panel.groups[k], panel.labels[k])))


def space_info(
    table: SimilarityTable,
    *,
    measure: str | None = None,
    point: str = "resid",
    models: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    by: By | None = None,
    at: At = "middle",
    seed: int = 0,
) -> Numbers:
    """Embed models, or models x languages, in a plane by metric multidimensional scaling."""
    if by not in (None, "model", "model-language"):
        raise unknown_name("kind of point", str(by), ("model", "model-language"))
    by, selections = _selections(
        table, by, measure=measure, point=point, models=models, languages=languages
    )
    facts = selections[0].facts
    nodes, known = _distances(selections, by, at)
    panels = tuple(
        _panel(selections[0], members, known, part, seed)
        for part, members in _planes(nodes, known).items()
    )
    languages_seen = {language for one in selections for language in one.languages()}
    note = [sel.sample_size(selections[-1]), sel.depth_words(at)]
    if by == "model" and len(languages_seen) > 1:
        note.append(f"mean over {len(languages_seen)} languages")
    stresses = listed([number(panel.stress) for panel in panels])
    note.append(f"metric MDS, stress-1 = {stresses} (best of {N_INIT} starts, seed {seed})")
    what = "Models" if by == "model" else "Models and languages"
    return Numbers(
        _caption,
        panels=panels,
        facts=facts,
        distance=_distance_words(facts),
        title=f"{what} by {_distance_words(facts)}",
        note=tuple(note),
    )


def _selections(
    table: SimilarityTable, by: By | None, **options: Any
) -> tuple[By, list[Selection]]:
    """What points stand for, and the rows of same text and, for languages, of parallel text."""
    found = {}
    for pairing in sel.PAIRINGS:
        # A misspelt name fails for every pairing, and is reported below.
        with contextlib.suppress(UsageError):
            found[pairing] = sel.select(table, **options, pairing=pairing)
    same = found.get("same text")
    compared = {model for pair in (same.pairs if same else ()) for model in pair.models}
    by = by or ("model" if len(compared) >= 3 else "model-language")
    if by == "model":
        return by, [same or sel.select(table, **options, pairing="same text")]
    return by, list(found.values()) or [sel.select(table, **options)]


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
    """A value as a distance: angle of a CKA, one minus another similarity, a distance as it is."""
    if not facts.is_similarity:
        return max(value, 0.0)
    if _is_cosine(facts):
        return math.acos(min(max(value, -1.0), 1.0))
    return max(facts.identity - value, 0.0)


def _distances(
    selections: Sequence[Selection], by: By, at: At
) -> tuple[list[Node], dict[frozenset[Node], float]]:
    """Points by model, and each known distance, averaged over languages and orders."""
    codes = short_codes([lang for selection in selections for lang in selection.languages()])
    if by == "model":
        codes = dict.fromkeys(codes, "")
    found: dict[frozenset[Node], list[float]] = {}
    nodes: dict[Node, None] = {}
    for selection in selections:
        for pair, rows in selection.pairs.items():
            first = pair.model_a, codes[pair.language_a]
            second = pair.model_b, codes[pair.language_b]
            if first != second:
                nodes |= {first: None, second: None}
                value = as_distance(sel.read_at(rows, at).value, selection.facts)
                found.setdefault(frozenset((first, second)), []).append(value)
    models = list(dict.fromkeys(model for model, _ in nodes))
    known = {key: float(np.mean(values)) for key, values in found.items()}
    return sorted(nodes, key=lambda node: models.index(node[0])), known


def _planes(
    nodes: Sequence[Node], known: Mapping[frozenset[Node], float]
) -> dict[str, Sequence[Node]]:
    """Title -> nodes that are all compared with each other: all, else those of each model."""
    if len(nodes) < 3:
        raise UsageError(
            f"a plane needs at least three points, and the table compares {len(nodes)}",
            hint="compare more models, or several languages on parallel text",
        )
    if not _missing(nodes, known):
        return {"": nodes}
    grouped = itertools.groupby(nodes, key=lambda node: node[0])
    planes: dict[str, Sequence[Node]] = {
        model: those for model, members in grouped if len(those := list(members)) >= 3
    }
    gaps = _missing(nodes, known) if not planes else []
    gaps += [gap for those in planes.values() for gap in _missing(those, known)]
    if gaps:
        names = " and ".join(" ".join(part for part in node if part) for node in gaps[0])
        raise UsageError(
            f"{len(gaps)} of the distances between these points are not in the table, for example "
            f"{names}",
            hint="choose models or languages that were all compared with each other",
        )
    sel.limit_panels(len(planes), MAX_PANELS, "choose some with models=[...]")
    return planes if len(planes) > 1 else {"": next(iter(planes.values()))}


def _missing(
    nodes: Sequence[Node], known: Mapping[frozenset[Node], float]
) -> list[tuple[Node, Node]]:
    pairs = ((a, b) for i, a in enumerate(nodes) for b in nodes[:i])
    return [pair for pair in pairs if frozenset(pair) not in known]


def _panel(
    selection: Selection, nodes: Sequence[Node], known: Mapping[frozenset[Node], float],
    title: str, seed: int,
) -> Numbers:  # fmt: skip
    matrix = np.array([[0.0 if a == b else known[frozenset((a, b))] for b in nodes] for a in nodes])
    xy, stress = embed(matrix, seed)
    return Numbers(
        title=title,
        groups=tuple(model for model, _ in nodes),
        labels=tuple(language or model for model, language in nodes),
        roles=tuple(selection.role([model]) for model, _ in nodes),
        xy=xy,
        distances=matrix,
        stress=stress,
    )


def embed(distances: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """Metric MDS into the plane (principal axes, first point positive): `[k, 2]` and stress-1."""
    from scipy.spatial.distance import pdist, squareform
    from sklearn.manifold import smacof

    xy, _ = smacof(
        distances, metric=True, n_components=2, n_init=N_INIT, max_iter=1000, eps=1e-9,
        random_state=seed, normalized_stress=False,
    )  # fmt: skip
    xy = xy - xy.mean(axis=0)
    _, _, axes = np.linalg.svd(xy, full_matrices=False)
    xy = xy @ axes.T
    xy *= np.where(xy[0] < 0, -1.0, 1.0)
    wanted = squareform(distances, checks=False)
    total = float(np.linalg.norm(wanted))
    return xy, float(np.linalg.norm(wanted - pdist(xy))) / total if total else 0.0


def draw_space(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """Planes on one scale, each point beside its name where there is room."""
    count = len(info.panels)
    columns = fig.columns_of(count, size)
    spread = [np.ptp(panel.xy, axis=0) for panel in info.panels]
    shape = max(float(s[1] / max(s[0], 1e-9)) for s in spread)
    side = width_of(size) / columns
    height = -(-count // columns) * min(max(side * shape, 0.5 * side) + 0.5, side, 4.2)
    key = _key(info) if ax is None else ()
    axes = fig.frames(info, ax, count, columns, size, height, key=key)
    for frame, panel in zip(axes, info.panels, strict=True):
        _draw_panel(frame, info, panel)
        fig.title_panel(frame, panel.title, side - 0.2)
    fig.finish(axes)
    _scale_equally(axes, info.panels)
    for frame, panel in zip(axes, info.panels, strict=True):
        _name_points(frame, info, panel)
    return fig.figure_of(axes[0])


def _looks(info: Numbers) -> dict[str, Look]:
    """Model -> look. Names tell points apart, so that every model of a role looks the same."""
    roles = {
        group: role
        for panel in info.panels
        for group, role in zip(panel.groups, panel.roles, strict=True)
    }
    others = [group for group, role in roles.items() if role == "other"]
    found = dict(zip(others, looks(["other"] * len(others)), strict=True))
    if _by_language(info):
        return dict(zip(roles, looks(list(roles.values())), strict=True))
    return {group: found.get(group) or looks([role])[0] for group, role in roles.items()}


def _by_language(info: Numbers) -> bool:
    """Whether points are languages of a model rather than models."""
    return any(panel.labels != panel.groups for panel in info.panels)


def _key(info: Numbers) -> list[Any]:
    """What colours mean: models if points are languages, else the roles that are known."""
    found = _looks(info)
    if _by_language(info):
        if len(info.panels) > 1:
            return []
        named = {shortened(group, 32): look for group, look in found.items()}
    else:
        roles = dict(zip(info.panels[0].groups, info.panels[0].roles, strict=True))
        named = {role: found[group] for group, role in roles.items() if role != "other"}
    return fig.key_of({name: _marker(look) for name, look in named.items()})


def _marker(look: Look) -> dict[str, Any]:
    return line_marker(look, 6, markeredgewidth=1.0, linestyle="none")


def _draw_panel(ax: Axes, info: Numbers, panel: Numbers) -> None:
    found = _looks(info)
    for (x, y), group in zip(panel.xy.tolist(), panel.groups, strict=True):
        ax.plot(x, y, zorder=3, **_marker(found[group]))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#DDE1E6")


def _scale_equally(axes: Sequence[Axes], panels: Sequence[Numbers]) -> None:
    """One scale for both directions and all planes, with room at the edges for names."""
    room = []
    for ax in axes:
        inches = np.array(fig.inches_of(ax))
        room.append((inches, np.maximum(inches - (1.1, 0.5), 0.3 * inches)))
    scale = max(
        float((np.ptp(panel.xy, axis=0) / inner).max())
        for panel, (_, inner) in zip(panels, room, strict=True)
    )
    for ax, panel, (inches, _) in zip(axes, panels, room, strict=True):
        middle = (panel.xy.min(axis=0) + panel.xy.max(axis=0)) / 2
        half = inches * (scale or 1.0) / 2
        ax.set_xlim(middle[0] - half[0], middle[0] + half[0])
        ax.set_ylim(middle[1] - half[1], middle[1] + half[1])
        ax.set_aspect("equal")


def _name_points(ax: Axes, info: Numbers, panel: Numbers) -> None:
    """Write each point's name where there is room; a thin line leads to one that is far."""
    figure = fig.figure_of(ax)
    points = 72 / figure.dpi
    frame = ax.get_window_extent(fig.renderer_of(figure))
    at = ax.transData.transform(panel.xy) * points
    names = [shortened(label, 26) for label in panel.labels]
    fontsize = 8.0 if len(names) <= 30 else 6.5
    sizes = np.array([fig.text_size(figure, name, fontsize) for name in names]) * 72 + (3.0, 1.0)
    bounds = (frame.x0 * points, frame.y0 * points, frame.x1 * points, frame.y1 * points)
    centres = place_beside(at, sizes, bounds, clearance=6.0)
    found = _looks(info)
    for k, (name, centre) in enumerate(zip(names, centres, strict=True)):
        if np.isnan(centre[0]):
            continue
        gap = np.maximum(np.abs(centre - at[k]) - sizes[k] / 2, 0.0)
        line = {"arrowstyle": "-", "color": "#B3B9C2", "linewidth": 0.6, "shrinkB": 4}
        ax.annotate(
            name, xy=tuple(panel.xy[k].tolist()), xytext=tuple((centre - at[k]).tolist()),
            textcoords="offset points", ha="center", va="center", fontsize=fontsize,
            color=found[panel.groups[k]].text if panel.roles[k] != "other" else INK,
            arrowprops=line if float(np.hypot(*gap)) > 12.0 else None, annotation_clip=False,
        )  # fmt: skip


SPACE = Figure("space", "similarity", space_info, draw_space)
