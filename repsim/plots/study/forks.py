"""Retention against the share of training in common: where merging begins to live."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.formatting import percent
from repsim.plots.appearance import Size
from repsim.plots.names import short_codes
from repsim.plots.study.outcomes import (
    COLLAPSE,
    PLAIN,
    Outcome,
    chosen,
    cluster,
    outcomes_of,
    pair_label,
    recipe_label,
)
from repsim.stats.bootstrap import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The methods of the source paper, as they are: always drawn and told.
HEADLINE = (PLAIN, ("ties", "none"), ("dare_ties", "none"))
#: At most this many recipes are drawn: those, and others that live from the least share on.
MAX_RECIPES = 6


#: Fractions at which fewer pairs than this were merged count as gaps of those pairs. Medians over
#: pairs leave out those too at which fewer than half of all were merged.
LEAST_PAIRS = 3
#: A crossing is interpolated between two fractions of at most this ratio; over wider gaps a
#: straight line would invent it.
WIDEST = 3.5


@dataclasses.dataclass(frozen=True)
class ForkSeries:
    """Retention at rising fractions.

    Attributes:
        label: Pair of languages, or recipe.
        fractions: Shares in common, rising; the first may be 0.
        values: Retention of the worst language; of a recipe, median over pairs.
        low, high: Least and most over pairs; NaN for a single pair.
    """

    label: str
    fractions: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a recipe begins to live.

    Attributes:
        recipe: Its name.
        at: Median over pairs of the fraction at which the worst language keeps half, with its
            interval over languages; infinite where pairs never do, NaN if no pair tells.
        least, most: Over the same pairs.
        pairs: How many pairs those are.
        bracket: Fractions between which the other pairs cross; they were merged at too few
            fractions in between. NaN if there are none.
        coarse: How many other pairs there are.
    """

    recipe: str
    at: Estimate
    least: float
    most: float
    pairs: int
    bracket: tuple[float, float]
    coarse: int

    def words(self) -> str:
        """In words.

        Example:
            >>> at = Estimate(0.25, math.nan, math.nan, 3, 3)
            >>> Crossing("mean", at, 0.1, math.inf, 3, (0.1, 0.9), 4).words()
            '25 % (3 pairs, 10 % to never; 4 others between 10 % and 90 %)'
        """
        words = []
        if self.pairs:
            interval = ""
            if not math.isnan(self.at.low):
                ends = f"{_share(self.at.low)} to {_share(self.at.high)}"
                interval = f", 95 % interval over languages {ends}"
            spread = f"{_share(self.least)} to {_share(self.most)}"
            words.append(f"{self.pairs} pairs, {spread}{interval}")
        if self.coarse:
            ends = f"{_share(self.bracket[0])} and {_share(self.bracket[1])}"
            words.append(f"{self.coarse} {'others' if self.pairs else 'pairs'} between {ends}")
        start = _share(self.at.value) if self.pairs else "not told"
        return f"{start} ({'; '.join(words)})"


def _share(fraction: float) -> str:
    return "never" if math.isinf(fraction) else percent(fraction)


@dataclasses.dataclass(frozen=True)
class ForksData:
    """Everything that the figure shows.

    Attributes:
        pairs: Plain mean, one series per pair of languages.
        mono: The same for forks of a monolingual trunk.
        recipes: One series per recipe, median over the pairs that were merged at all `core`.
        usual: Fractions at which at least three pairs were merged.
        core: Those of them at which at least half of the pairs were.
        crossings: Of the recipes.
        title, note: Heading, and pieces of the grey line.
    """

    pairs: tuple[ForkSeries, ...]
    mono: tuple[ForkSeries, ...]
    recipes: tuple[ForkSeries, ...]
    usual: np.ndarray
    core: np.ndarray
    crossings: tuple[Crossing, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and where recipes begin to live."""
        told = {recipe_label(*recipe) for recipe in HEADLINE}
        words = "; ".join(
            f"{crossing.recipe}: {crossing.words()}"
            for crossing in self.crossings
            if crossing.recipe in told
        )
        return (
            "Retention of the worst language of merges of two forks against the share of training "
            "that they had in common (0: the same initial weights and nothing more). Left: plain "
            "mean by pair of languages, dotted where others were merged in between; grey: forks "
            "of a monolingual trunk. Right: median by method over the pairs that were merged at "
            "every fraction shown, band: least to most of them. Share in common from which on the "
            f"worst language keeps {COLLAPSE:g}, interpolated, median over pairs: {words}."
        )


def prepare_forks(atlas: Atlas) -> ForksData:
    """Retention by share of training in common.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: It holds no forks at two fractions or more.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> data = prepare_forks(planted_atlas())
        >>> data.pairs[0].label, round(data.crossings[0].at.value, 3)
        ('eng–deu', 0.173)
    """
    forks = ("same-init", "early-forks", "late-forks")
    everything = outcomes_of(atlas)
    found = chosen(
        everything,
        lambda o: o.arm == "A" and o.setting in forks and o.k == 2,
        "pair of forks of a mixed trunk",
    )
    mono = [o for o in everything if o.setting == "mono-trunk" and o.k == 2 and o.recipe == PLAIN]
    codes = short_codes([language for o in [*found, *mono] for language in o.languages])
    near = cluster([outcome.fork_fraction for outcome in found])
    plain = _by_pair([o for o in found if o.recipe == PLAIN], codes, near)
    usual, core = _common(plain, LEAST_PAIRS), _common(plain, max(LEAST_PAIRS, len(plain) / 2))
    recipes, crossings = [], []
    for recipe in dict.fromkeys(o.recipe for o in found):
        series = _by_pair([o for o in found if o.recipe == recipe], codes, near)
        label = recipe_label(*recipe)
        complete = [one for one in series if set(core.tolist()) <= set(one.fractions.tolist())]
        if complete:
            recipes.append(_median_series(label, complete, core))
        crossings.append(_crossing(label, series))
    crossings.sort(key=lambda crossing: (math.isnan(crossing.at.value), crossing.at.value))
    first = [recipe_label(*recipe) for recipe in HEADLINE]
    order = [*first, *(crossing.recipe for crossing in crossings)]
    recipes.sort(key=lambda series: order.index(series.label))
    apart = _by_pair(mono, codes, cluster([o.fork_fraction for o in mono]))
    models = len({parent for o in found for parent in o.parents})
    return ForksData(
        pairs=tuple(series for series in plain if len(series.fractions) > 1),
        mono=tuple(series for series in apart if len(series.fractions) > 1),
        recipes=tuple(recipes[:MAX_RECIPES]),
        usual=usual,
        core=core,
        crossings=tuple(crossings),
        title="Where merging begins to live",
        note=(f"{models} forks", f"{len(found)} merges of two"),
    )


def _by_pair(
    found: Sequence[Outcome], codes: dict[str, str], near: dict[float, float]
) -> list[ForkSeries]:
    """A series per pair of languages; what differs at one fraction is averaged."""
    groups: dict[str, dict[float, list[float]]] = {}
    for outcome in found:
        series = groups.setdefault(pair_label(outcome.languages, codes), {})
        series.setdefault(near[outcome.fork_fraction], []).append(outcome.worst)
    made = []
    for label, series in groups.items():
        fractions = np.array(sorted(series))
        values = np.array([np.mean(series[fraction]) for fraction in fractions.tolist()])
        none = np.full(len(fractions), np.nan)
        made.append(ForkSeries(label, fractions, values, none, none))
    return made


def _common(series: Sequence[ForkSeries], least: float) -> np.ndarray:
    """Fractions at which that many pairs were merged; all of them if none has so many."""
    every = [fraction for one in series for fraction in one.fractions.tolist()]
    often = sorted({f for f in every if every.count(f) >= least})
    return np.array(often or sorted(set(every)))


def _median_series(label: str, series: Sequence[ForkSeries], core: np.ndarray) -> ForkSeries:
    values = np.array([one.values[np.isin(one.fractions, core)] for one in series])
    several = len(series) > 1
    none = np.full(len(core), np.nan)
    low, high = (values.min(axis=0), values.max(axis=0)) if several else (none, none)
    return ForkSeries(label, core, np.median(values, axis=0), low, high)


def _crossing(label: str, series: Sequence[ForkSeries]) -> Crossing:
    """Crossings of all pairs; languages are drawn, since a language's forks belong together."""
    fine, languages, coarse = [], [], []
    for one in series:
        if len(one.fractions) < 2:
            continue
        low, high = bracket_of(one.fractions, one.values)
        if low > 0 and not math.isinf(high) and high / low > WIDEST:
            coarse.append((low, high))
        else:
            fine.append(crossing_of(one.fractions, one.values))
            languages.append(tuple(one.label.split("–")))
    none = Estimate(math.nan, math.nan, math.nan, 0, 0)
    return Crossing(
        recipe=label,
        at=estimate(fine, languages) if fine else none,
        least=min(fine, default=math.nan),
        most=max(fine, default=math.nan),
        pairs=len(fine),
        bracket=(min((low for low, _ in coarse), default=math.nan),
                 max((high for _, high in coarse), default=math.nan)),
        coarse=len(coarse),
    )  # fmt: skip


def bracket_of(
    fractions: np.ndarray, values: np.ndarray, at: float = COLLAPSE
) -> tuple[float, float]:
    """Neighbouring fractions between which a series rises above a value, to stay there.

    Args:
        fractions: Rising.
        values: One per fraction.
        at: The value.

    Returns:
        Lower and upper fraction; twice the first if the series is never below, and infinity as the
        upper one if its end is below.

    Example:
        >>> bracket_of(np.array([0.0, 0.1, 0.9]), np.array([0.0, 0.4, 0.6]))
        (0.1, 0.9)
    """
    below = np.flatnonzero(values < at)
    if len(below) == 0:
        return float(fractions[0]), float(fractions[0])
    last = int(below[-1])
    upper = math.inf if last == len(values) - 1 else float(fractions[last + 1])
    return float(fractions[last]), upper


def crossing_of(fractions: np.ndarray, values: np.ndarray, at: float = COLLAPSE) -> float:
    """The fraction from which on a series stays above a value.

    Between two fractions the series is taken as straight in the logarithm of the fraction, and in
    the fraction itself where the lower one is 0.

    Args:
        fractions: Rising.
        values: One per fraction.
        at: The value.

    Returns:
        The fraction; the first one if the series is never below, infinity if its end is below.

    Example:
        >>> round(crossing_of(np.array([0.01, 0.1, 1.0]), np.array([0.0, 0.4, 0.6])), 3)
        0.316
        >>> crossing_of(np.array([0.0, 0.5]), np.array([0.1, 0.2]))
        inf
    """
    low, high = bracket_of(fractions, values, at)
    if low == high or math.isinf(high):
        return high
    start, end = values[fractions == low][0], values[fractions == high][0]
    share = float((at - start) / (end - start))
    if low <= 0:
        return low + share * (high - low)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def plot_forks(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw retention by share of training in common; see `prepare_forks`."""
    from repsim.plots.drawing.study.forks import draw_forks

    return draw_forks(prepare_forks(atlas), size=size)
