"""What else an atlas says, in words, beside the findings of the source paper.

Every sentence is computed from the atlas and states its numbers; intervals are 95 % bootstrap
intervals over models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import listed, number
from repsim.plots.study.outcomes import (
    ALIGNMENTS,
    PLAIN,
    SETTINGS,
    Outcome,
    outcomes_of,
    settings_of,
)
from repsim.reports.study_claims import value_words
from repsim.stats.bootstrap import estimate

#: Settings of which the change by alignment is told.
ALIGNED = ("one-language", "data-order", "independent", "same-init", "late-forks")


def further_findings(atlas: Atlas) -> list[str]:
    """What else the atlas says: forks, alignment, number of parents, distance, use, controls.

    Args:
        atlas: What a study found.

    Returns:
        Sentences; what the atlas cannot support is not said.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> further_findings(planted_atlas())[0][:36]
        'Where merging begins to live, by the'
    """
    outcomes = outcomes_of(atlas)
    makers: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: _forks(atlas),
        lambda: _settings(outcomes),
        lambda: _alignment(atlas),
        lambda: _paths(atlas),
        lambda: _sizes(outcomes),
        lambda: _distance(atlas),
        lambda: _use(outcomes),
        lambda: _controls(atlas),
    )
    found: list[str] = []
    for make in makers:
        try:
            found += list(make())
        except UsageError:  # the atlas lacks what this sentence is about; the figure says so
            continue
    return found


def _forks(atlas: Atlas) -> Iterator[str]:
    from repsim.plots.study.forks import forks_info

    crossings = forks_info(atlas).crossings
    plain = next(crossing for crossing in crossings if crossing.recipe == "mean")
    first = crossings[0]
    words = "Where merging begins to live, by the share of training in common (median over pairs "
    words += f"of languages): plain mean of two forks {plain.words()}"
    if first.recipe != "mean" and first.at.value < plain.at.value:
        words += f"; earliest for {first.recipe}, {first.words()}"
    yield f"{words}."


def _settings(outcomes: Sequence[Outcome]) -> Iterator[str]:
    plain = [o for o in outcomes if o.recipe == PLAIN and o.k == 2 and not o.control]
    words = []
    for setting in settings_of(plain):
        those = [o for o in plain if o.setting == setting]
        lives = sum(not o.collapsed for o in those)
        middle = estimate([o.worst for o in those], [o.parents for o in those])
        words.append(f"{SETTINGS[setting]} {lives} of {len(those)} (median {value_words(middle)})")
    if words:
        yield "Plain means of two models that live, by origin: " + "; ".join(words) + "."


def _alignment(atlas: Atlas) -> Iterator[str]:
    from repsim.plots.study.alignment import alignment_info

    for panel in alignment_info(atlas).panels:
        known = [s for s in panel.settings if s.setting != "control"]
        rescued, collapsed = sum(s.rescued for s in known), sum(s.collapsed for s in known)
        gains = {s.setting: s.gain for s in known}
        saved = "; ".join(f"{SETTINGS[s.setting]} {s.rescued} of {s.collapsed}"
                          for s in known if s.rescued)  # fmt: skip
        lost = sum(s.lost for s in known)
        told = [f"{SETTINGS[s]} {value_words(gains[s])}" for s in ALIGNED if s in gains]
        yield (
            f"Alignment (parents {ALIGNMENTS[panel.alignment]}) rescues {rescued} of {collapsed} "
            f"groups whose plain mean collapses{f' ({saved})' if saved else ''}, and ends {lost} "
            f"that live as they are. Median change of retention: {'; '.join(told)}."
        )


def _paths(atlas: Atlas) -> Iterator[str]:
    from repsim.plots.study.paths import paths_info

    panels = paths_info(atlas).panels
    told = "; ".join(f"{SETTINGS[panel.setting]} {panel.words()}" for panel in panels)
    yield f"Median barrier on the path between two parents, in bits per byte: {told}."


def _sizes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The plain mean by number of parents, in each setting that has several."""
    plain = [o for o in outcomes if o.recipe == PLAIN]
    words = []
    for setting in settings_of(plain):
        sizes = sorted({o.k for o in plain if o.setting == setting})
        if len(sizes) > 1:
            heaps = {k: [o.worst for o in plain if (o.setting, o.k) == (setting, k)] for k in sizes}
            medians = [f"k = {k} {number(float(np.median(heap)))}" for k, heap in heaps.items()]
            words.append(f"{SETTINGS[setting]}: {', '.join(medians)}")
    if words:
        yield "Median retention by number of parents, plain mean: " + "; ".join(words) + "."


def _distance(atlas: Atlas) -> Iterator[str]:
    from repsim.plots.study.distance import distance_info

    panel = distance_info(atlas).panels[0]
    yield (
        "Inside shared initial weights, distance of the weights against what the plain mean keeps: "
        f"rank correlation {panel.words()} over {len(panel.values)} pairs."
    )


def _use(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """How many merges are worth having."""
    those = [o for o in outcomes if not o.control and len(o.languages) > 1]
    if those:
        useful = [o for o in those if o.useful]
        counts = [f"{SETTINGS[s]} {sum(o.setting == s for o in useful)}"
                  for s in settings_of(useful)]  # fmt: skip
        where = f" ({'; '.join(counts)})" if useful else ""
        yield (
            f"{len(useful)} of {len(those)} merges of several languages beat keeping the best "
            f"single parent for all of them{where}."
        )


def _controls(atlas: Atlas) -> Iterator[str]:
    from repsim.plots.study.controls import controls_info

    data = controls_info(atlas)
    met, count = sum(row.met for row in data.rows), sum(len(row.points) for row in data.rows)
    failed = [f"{row.label} (expected {row.expectation}, found "
              f"{listed([number(p.retention, 3) for p in row.points if not p.met])})"
              for row in data.rows if row.met < len(row.points)]  # fmt: skip
    words = f" Not: {'; '.join(failed)}." if failed else ""
    yield f"Of {count} controls with known answers {met} came out as expected.{words}"
