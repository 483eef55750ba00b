"""Similarity of pairs whose merge lives and of pairs whose merge collapses, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import listed, number
from repsim.plots.study.features import LADDER, RUNGS, SECTIONS, Measured, measured_pairs
from repsim.plots.study.outcomes import SETTINGS, settings_of
from repsim.stats import auroc
from repsim.stats.bootstrap import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: One measure per rung, for the profile over rungs.
OF_RUNG = {
    "L0": "unit_correlation",
    "L1": "permutation",
    "L2": "cka",
    "L3": "svcca",
    "L4": "mutual_knn",
}


@dataclasses.dataclass(frozen=True)
class DepthCurve:
    """Pairs of one outcome under one measure.

    Attributes:
        lives: Whether their plain mean lives.
        lines: `[pairs, sections]`, one line per pair; NaN where it was not measured.
        middle: Median over pairs at each section, with its interval over models.
    """

    lives: bool
    lines: np.ndarray
    middle: tuple[Estimate, ...]


@dataclasses.dataclass(frozen=True)
class DepthPanel:
    """One measure: its rung and label, and its curves."""

    rung: str
    label: str
    curves: tuple[DepthCurve, ...]


@dataclasses.dataclass(frozen=True)
class DepthData:
    """Everything that the figure shows.

    Attributes:
        panels: One per measure, by rung.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[DepthPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and the medians in the middle blocks."""
        words = []
        for panel in self.panels:
            middle = [
                f"{'live' if curve.lives else 'collapse'} {number(curve.middle[2].value)}"
                for curve in panel.curves
            ]
            words.append(f"{panel.rung} {panel.label}: {', '.join(middle)}")
        return (
            "Calibrated similarity of two models that read the same text (0: 95 % quantile under "
            "shuffled sentences, 1: identical), by depth, for pairs whose plain mean lives or "
            "collapses. Thin: pairs; thick: median; band: 95 % interval over models. Medians in "
            "the middle blocks: " + "; ".join(words) + "."
        )


def prepare_depth(atlas: Atlas) -> DepthData:
    """Similarity by depth, of pairs that live and of pairs that collapse.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No pair has an outcome and similarities.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [panel.rung for panel in prepare_depth(planted_atlas()).panels]
        ['L0', 'L0', 'L1', 'L2', 'L2', 'L3', 'L4']
    """
    pairs = [
        pair
        for pair in measured_pairs(atlas)
        if any(f"{name}_middle" in pair.values for name in LADDER)
    ]
    panels = []
    for name, (rung, label) in LADDER.items():
        those = [pair for pair in pairs if f"{name}_middle" in pair.values]
        if those:
            curves = tuple(_curve(name, those, lives) for lives in (True, False)
                           if any(pair.outcome.collapsed != lives for pair in those))  # fmt: skip
            panels.append(DepthPanel(rung, label, curves))
    if not panels:
        raise UsageError("the atlas holds no similarity of activations of pairs of parents")
    living = sum(not pair.outcome.collapsed for pair in pairs)
    return DepthData(
        panels=tuple(panels),
        title="Similarity of pairs that live and of pairs that collapse",
        note=(f"{living} pairs live, {len(pairs) - living} collapse", "band: 95 % over models"),
    )


def _curve(name: str, pairs: Sequence[Measured], lives: bool) -> DepthCurve:
    those = [pair for pair in pairs if pair.outcome.collapsed != lives]
    lines = np.array(
        [[pair.values.get(f"{name}_{section}", np.nan) for section in SECTIONS] for pair in those]
    )
    parents = [pair.outcome.parents for pair in those]
    middle = []
    for column in lines.T:
        known = np.flatnonzero(np.isfinite(column))
        middle.append(
            estimate(column[known].tolist(), [parents[i] for i in known])
            if len(known)
            else Estimate(np.nan, np.nan, np.nan, 0, 0)
        )
    return DepthCurve(lives, lines, tuple(middle))


@dataclasses.dataclass(frozen=True)
class Profile:
    """A setting: its name, median similarity at each rung, and how many of its pairs live."""

    setting: str
    values: tuple[float, ...]
    lives: int
    pairs: int


@dataclasses.dataclass(frozen=True)
class PlanePoint:
    """A pair in the plane of L0 and L2: setting, both similarities, retention."""

    setting: str
    identity: float
    rotation: float
    retention: float


@dataclasses.dataclass(frozen=True)
class PlaneData:
    """The ladder by setting, and the plane of its rungs L0 and L2.

    Attributes:
        rungs: Rungs that were measured.
        profiles: One per setting.
        points: One per pair.
        title, note: Heading, and pieces of the grey line.
    """

    rungs: tuple[str, ...]
    profiles: tuple[Profile, ...]
    points: tuple[PlanePoint, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and how L0 and L2 tell pairs that live from pairs that collapse."""
        words = []
        for rung, name in (("L0", "identity"), ("L2", "rotation")):
            values = np.array([getattr(point, name) for point in self.points])
            lives = np.array([point.retention >= COLLAPSE for point in self.points])
            if lives.any() and not lives.all():
                words.append(f"{rung} {number(auroc(values, lives))}")
        told = f"Probability that a pair that lives is the more similar one: {listed(words)}. "
        return (
            "Left: calibrated similarity in the middle blocks on each rung of the ladder, median "
            "over the pairs of a setting, coloured by the share of pairs whose plain mean lives. "
            "Right: every pair by its similarity in the same coordinates (L0) and up to rotation "
            "(L2). " + (told if words else "") + "High L2 with low L0 is a mismatch of coordinates."
        )


def prepare_plane(atlas: Atlas) -> PlaneData:
    """The ladder by setting, and the plane of L0 and L2.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No pair has an outcome, L0 and L2.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> prepare_plane(planted_atlas()).rungs
        ('L0', 'L1', 'L2', 'L3', 'L4')
    """
    pairs = measured_pairs(atlas, "unit_correlation_middle", "cka_middle")
    rungs = [rung for rung, name in OF_RUNG.items()
             if all(f"{name}_middle" in pair.values for pair in pairs)]  # fmt: skip
    profiles = []
    for setting in settings_of([pair.outcome for pair in pairs]):
        those = [pair for pair in pairs if pair.outcome.setting == setting]
        medians = [float(np.median([p.values[f"{OF_RUNG[rung]}_middle"] for p in those]))
                   for rung in rungs]  # fmt: skip
        lives = sum(not pair.outcome.collapsed for pair in those)
        profiles.append(Profile(setting, tuple(medians), lives, len(those)))
    points = [
        PlanePoint(
            pair.outcome.setting,
            pair.values["unit_correlation_middle"],
            pair.values["cka_middle"],
            pair.outcome.worst,
        )
        for pair in pairs
    ]
    return PlaneData(
        rungs=tuple(rungs),
        profiles=tuple(profiles),
        points=tuple(points),
        title="The invariance ladder between parents, and what became of their mean",
        note=(f"{len(pairs)} pairs", "both models read the same text", "middle blocks"),
    )


def setting_words(profile: Profile) -> str:
    """A setting and how many of its pairs live.

    Example:
        >>> setting_words(Profile("doses", (), 3, 4))
        'doses on a finished mixed model (3 of 4 live)'
    """
    return f"{SETTINGS[profile.setting]} ({profile.lives} of {profile.pairs} live)"


def rung_words(rung: str) -> str:
    r"""A rung and what it is blind to.

    Example:
        >>> rung_words("L2")
        'L2\nrotation'
    """
    return f"{rung}\n{RUNGS[rung]}"


def plot_depth(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw similarity by depth and outcome; see `prepare_depth`."""
    from repsim.plots.drawing.study.similarity import draw_depth

    return draw_depth(prepare_depth(atlas), size=size)


def plot_plane(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw the ladder by setting, and the plane of L0 and L2; see `prepare_plane`."""
    from repsim.plots.drawing.study.similarity import draw_plane

    return draw_plane(prepare_plane(atlas), size=size)
