"""What alignment before merging rescues, and what it does not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.study.outcomes import (
    ALIGNMENTS,
    COLLAPSE,
    SETTINGS,
    Outcome,
    outcomes_of,
    settings_of,
)
from repsim.stats.bootstrap import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Rescue:
    """One group of parents, merged as they are and aligned.

    Attributes:
        parents: Names.
        setting: How they came about.
        naive: Retention of the worst language as they are.
        aligned: After alignment.
    """

    parents: tuple[str, ...]
    setting: str
    naive: float
    aligned: float

    @property
    def rescued(self) -> bool:
        """Whether only the aligned merge lives."""
        return self.naive < COLLAPSE <= self.aligned


@dataclasses.dataclass(frozen=True)
class SettingRescue:
    """One setting: median gain over groups, and how many of those that collapse are rescued."""

    setting: str
    gain: Estimate
    collapsed: int
    rescued: int
    lost: int


@dataclasses.dataclass(frozen=True)
class AlignmentPanel:
    """One alignment: its name, groups of parents, and what it gains by setting."""

    alignment: str
    groups: tuple[Rescue, ...]
    settings: tuple[SettingRescue, ...]


@dataclasses.dataclass(frozen=True)
class AlignmentData:
    """Everything that the figure shows.

    Attributes:
        panels: One per alignment.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[AlignmentPanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and what each alignment rescues."""
        words = []
        for panel in self.panels:
            rescued = sum(s.rescued for s in panel.settings)
            collapsed = sum(s.collapsed for s in panel.settings)
            told = "; ".join(
                f"{SETTINGS[s.setting]} {s.rescued} of {s.collapsed}"
                for s in panel.settings
                if s.rescued
            )
            where = f" ({told})" if told else ""
            words.append(f"{ALIGNMENTS[panel.alignment]} {rescued} of {collapsed}{where}")
        return (
            "Retention of the worst language of the mean of the same parents as they are (across) "
            "and after one was brought into the coordinates of the other (upwards). Above the "
            "diagonal alignment helps; top left it rescues. Rescued of those that collapse as they "
            "are: " + "; ".join(words) + "."
        )


def prepare_alignment(atlas: Atlas) -> AlignmentData:
    """What alignment changes, group by group.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: No group was merged both ways.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [panel.alignment for panel in prepare_alignment(planted_atlas()).panels]
        ['permutation', 'orthogonal']
    """
    means = [o for o in outcomes_of(atlas) if o.method == "linear"]
    naive = {(o.parents, o.control): o for o in means if o.alignment == "none"}
    panels = []
    for alignment in ALIGNMENTS:
        those = [o for o in means if o.alignment == alignment != "none"]
        groups = tuple(_paired(naive, o) for o in those if (o.parents, o.control) in naive)
        if groups:
            known = settings_of(those)
            found = tuple(_by_setting(setting, groups) for setting in known)
            panels.append(AlignmentPanel(alignment, groups, found))
    if not panels:
        raise UsageError("the atlas holds no group of parents merged both as they are and aligned")
    count = len({group.parents for panel in panels for group in panel.groups})
    return AlignmentData(
        panels=tuple(panels),
        title="What alignment rescues",
        note=(f"plain mean of {count} groups of parents", "stars: twins of one model"),
    )


def _paired(naive: dict[tuple[tuple[str, ...], str], Outcome], aligned: Outcome) -> Rescue:
    plain = naive[aligned.parents, aligned.control]
    return Rescue(aligned.parents, aligned.setting, plain.worst, aligned.worst)


def _by_setting(setting: str, groups: tuple[Rescue, ...]) -> SettingRescue:
    those = [group for group in groups if group.setting == setting]
    gains = np.array([group.aligned - group.naive for group in those])
    return SettingRescue(
        setting,
        estimate(gains.tolist(), [group.parents for group in those]),
        collapsed=sum(group.naive < COLLAPSE for group in those),
        rescued=sum(group.rescued for group in those),
        lost=sum(group.aligned < COLLAPSE <= group.naive for group in those),
    )


def plot_alignment(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw what alignment rescues; see `prepare_alignment`."""
    from repsim.plots.drawing.study.alignment import draw_alignment

    return draw_alignment(prepare_alignment(atlas), size=size)
