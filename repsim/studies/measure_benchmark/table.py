"""The table of the benchmark, and the questions that its tests answer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

from repsim.core.errors import InputError
from repsim.core.table import Table

SHIPPED = Path(__file__).parent / "shipped"


class Question(NamedTuple):
    """What a user may want to know of two models, and the tests that bear on it."""

    words: str
    tests: tuple[str, ...]


#: Test -> when a measure is right in one comparison.
TESTS = {
    "layers": "nearer layers of a model are more alike than layers further apart (the stream grows "
    "with depth, and measures in the units of the activations see that alone)",
    "noise": "a model with less noise on its weights is more like the original",
    "seeds": "two seeds of one language are more alike than models of two languages",
    "forks": "models that share more of their training are more alike",
    "atlas_seeds": "seeds, on the pairs of models of the atlas (measures of its tables only)",
    "atlas_forks": "forks, on the pairs of models of the atlas (measures of its tables only)",
    "atlas_merging": "pairs of the atlas whose plain average survives are more alike than pairs "
    "whose average collapses (measures of its tables only)",
}
QUESTIONS = {
    "overall": Question("all four tests on models", ("layers", "noise", "seeds", "forks")),
    "depth": Question("which layers correspond?", ("layers",)),
    "damage": Question("how much did noise on the weights change?", ("noise",)),
    "content": Question("were they trained on the same?", ("seeds", "atlas_seeds")),
    "history": Question("how much training do they share?", ("forks", "atlas_forks")),
    "merging": Question("will their average live?", ("atlas_merging",)),
}


class MeasureScores(Table):
    """One row per measure, test, unit (model or pair of models), text and layer."""

    SCHEMA = "repsim/measure-scores/1"
    STEM = "measure_scores"
    HINT = "make one with: repsim measures --benchmark DIR"
    COLUMNS: ClassVar = {
        "measure": ("string", "name"),
        "label": ("string", "name in figures"),
        "rung": ("string", "rung of the invariance ladder; empty beside it"),
        "cost": ("string", "cheap or expensive"),
        "test": ("string", "name of the test"),
        "source": ("string", "models, or name of an atlas"),
        "unit": ("string", "what the comparisons share: a model, a pair of models, or languages"),
        "language": ("string", "language of the text"),
        "layer": ("int", "layer; of the test of layers the first of three; section of an atlas"),
        "correct": ("float", "share of comparisons that are right; equal or undefined count half"),
        "comparisons": ("int", "number of comparisons"),
    }


def load_scores(folder: str | Path | None = None) -> MeasureScores:
    """The table of a benchmark; the one that ships with the package if no folder is given.

    Example:
        >>> sorted(set(load_scores()["test"]))[0]
        'atlas_forks'
    """
    if folder is not None and not Path(folder).exists():
        raise InputError(f"there is no benchmark at '{folder}'", hint=MeasureScores.HINT)
    return MeasureScores.load(Path(folder) if folder is not None else SHIPPED)
