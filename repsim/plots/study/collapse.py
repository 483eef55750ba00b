"""Where merges collapse: by method and number of parents, and by combination of languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.formatting import percent
from repsim.plots.names import listed, short_codes
from repsim.plots.study.outcomes import (
    COLLAPSE,
    PLAIN,
    SETTINGS,
    Outcome,
    chosen,
    cluster,
    outcomes_of,
    recipe_label,
    settings_of,
    usual_rate,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Settings that have merges of several sizes and by all methods.
LARGE = ("independent", "same-init", "early-forks", "late-forks", "doses")


@dataclasses.dataclass(frozen=True)
class MethodsData:
    """Recipes by settings and numbers of parents.

    Attributes:
        recipes: Names of rows.
        columns: Setting and number of parents of each column.
        medians: `[rows, columns]` median retention of the worst language; NaN where none was made.
        collapsed: Share of merges that collapse.
        counts: Number of merges.
        title, note: Heading, and pieces of the grey line.
    """

    recipes: tuple[str, ...]
    columns: tuple[tuple[str, int], ...]
    medians: np.ndarray
    collapsed: np.ndarray
    counts: np.ndarray
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and in which columns no recipe lives."""
        dead = [
            f"{SETTINGS[setting]}, k = {k}"
            for place, (setting, k) in enumerate(self.columns)
            if np.nanmin(self.collapsed[:, place]) == 1
        ]
        words = f"Every merge collapses in: {'; '.join(dead)}." if dead else ""
        return (
            "Retention of the worst language, median over the merges of a cell, by method "
            "(rows; 'permuted' and 'rotated': parents aligned before) and by the origin and number "
            f"k of the parents. Small: share of merges below {COLLAPSE:g}. " + words
        )


def prepare_methods(atlas: Atlas) -> MethodsData:
    """Collapse by method, setting and number of parents.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: It holds no merges of those settings.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> data = prepare_methods(planted_atlas())
        >>> data.recipes[0], data.columns[0]
        ('mean', ('independent', 2))
    """
    found = chosen(outcomes_of(atlas), lambda o: o.setting in LARGE, "merges of several languages")
    recipes = list(dict.fromkeys(outcome.recipe for outcome in found))
    recipes.sort(key=lambda recipe: (recipe[1] != "none", recipe[1] != "permutation"))
    columns = sorted(
        {(outcome.setting, outcome.k) for outcome in found},
        key=lambda column: (LARGE.index(column[0]), column[1]),
    )
    shape = (len(recipes), len(columns))
    medians, collapsed = np.full(shape, np.nan), np.full(shape, np.nan)
    counts = np.zeros(shape, dtype=int)
    for place, recipe in enumerate(recipes):
        for column, (setting, k) in enumerate(columns):
            values = [
                outcome.worst
                for outcome in found
                if outcome.recipe == recipe and (outcome.setting, outcome.k) == (setting, k)
            ]
            if values:
                medians[place, column] = np.median(values)
                collapsed[place, column] = np.mean(np.array(values) < COLLAPSE)
                counts[place, column] = len(values)
    return MethodsData(
        recipes=tuple(recipe_label(*recipe) for recipe in recipes),
        columns=tuple(columns),
        medians=medians,
        collapsed=collapsed,
        counts=counts,
        title="Collapse by method and number of parents",
        note=(f"{counts.sum()} merges", "large: median retention of the worst language",
              "small: share that collapses"),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CombinationPanel:
    """One origin of parents.

    Attributes:
        title: Its name.
        plain: `[languages, languages]` worst retention of the plain mean of two models.
        best: The same of the best recipe.
    """

    title: str
    plain: np.ndarray
    best: np.ndarray


@dataclasses.dataclass(frozen=True)
class CombinationsData:
    """Pairs of languages, one panel per origin of the parents.

    Attributes:
        panels: In order.
        languages: Short codes.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[CombinationPanel, ...]
    languages: tuple[str, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and how many pairs live in each panel."""
        words = [
            f"{panel.title}: {int(np.sum(panel.best[known] >= COLLAPSE))} of {int(known.sum())}"
            for panel in self.panels
            for known in [np.triu(np.isfinite(panel.best), 1)]
        ]
        return (
            "Retention of the worst language for every pair of languages: below the diagonal the "
            "plain mean, above it the best of all methods and alignments, on it two models of one "
            "language. Pairs of two languages that any recipe keeps above "
            f"{COLLAPSE:g}: {listed(words)}."
        )


def prepare_combinations(atlas: Atlas) -> CombinationsData:
    """Collapse by pair of languages, for forks by their share in common, seeds and doses.

    Args:
        atlas: What a study found.

    Raises:
        UsageError: It holds no merge of two models of its main languages.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> [panel.title for panel in prepare_combinations(planted_atlas()).panels][:2]
        ['independent weights', 'forks, 0']
    """
    wanted = (*LARGE, "one-language", "data-order")
    found = chosen(
        outcomes_of(atlas),
        lambda o: o.k == 2 and o.setting in wanted and len(o.languages) <= 2,
        "merge of two models",
    )
    languages = list(dict.fromkeys(
        language for o in found if len(o.languages) == 2 for language in o.languages
    ))  # fmt: skip
    usual = usual_rate(found)
    found = [o for o in found if set(o.languages) <= set(languages) and o.rate == usual]
    titles = _panel_titles(found)
    panels = []
    for title in dict.fromkeys(titles.values()):
        those = [outcome for outcome in found if titles[id(outcome)] == title]
        panels.append(_panel(title, those, languages))
    codes = short_codes(languages)
    return CombinationsData(
        panels=tuple(panels),
        languages=tuple(codes[language] for language in languages),
        title="Which pairs of languages survive",
        note=("retention of the worst language", "below the diagonal: plain mean",
              "above: best recipe"),
    )  # fmt: skip


def _panel_titles(found: Sequence[Outcome]) -> dict[int, str]:
    """Outcome (by identity) -> its panel; in the order of panels."""
    order = [s for s in (*LARGE, "one-language", "data-order") if s in settings_of(found)]
    forks = cluster([o.fork_fraction for o in found if o.arm == "A"])
    doses = cluster([o.apart for o in found if o.setting == "doses"])
    ranked = sorted(found, key=lambda o: (order.index(o.setting), o.fork_fraction))
    titles = {}
    for outcome in ranked:
        if outcome.setting in ("independent", "one-language"):
            title = "independent weights"
        elif outcome.setting in ("data-order", "same-init"):
            title = "forks, 0"
        elif outcome.setting == "doses":
            title = f"doses, {percent(doses[outcome.apart])} alone"
        else:
            title = f"forks, {percent(forks[outcome.fork_fraction])}"
        titles[id(outcome)] = title
    return titles


def _panel(title: str, found: Sequence[Outcome], languages: Sequence[str]) -> CombinationPanel:
    place = {language: i for i, language in enumerate(languages)}
    plain = np.full((len(languages), len(languages)), np.nan)
    best = plain.copy()
    for outcome in found:
        a, b = (place[lang] for lang in (outcome.languages * 2)[:2])
        for i, j in {(a, b), (b, a)}:
            if outcome.recipe == PLAIN:
                plain[i, j] = np.fmax(plain[i, j], outcome.worst)
            best[i, j] = np.fmax(best[i, j], outcome.worst)
    return CombinationPanel(title, plain, best)


def plot_methods(atlas: Atlas) -> Figure:
    """Draw collapse by method, setting and number of parents; see `prepare_methods`."""
    from repsim.plots.drawing.study.collapse import draw_methods

    return draw_methods(prepare_methods(atlas))


def plot_combinations(atlas: Atlas) -> Figure:
    """Draw collapse by pair of languages; see `prepare_combinations`."""
    from repsim.plots.drawing.study.collapse import draw_combinations

    return draw_combinations(prepare_combinations(atlas))
