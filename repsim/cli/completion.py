"""What a shell completes: names of models, measures, methods, corpora and languages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from repsim.core.errors import RepsimError

Names = Callable[[click.Context], Iterable[str]]


def _measures(context: click.Context) -> Iterable[str]:
    from repsim.measures import list_measures

    return (measure.name for measure in list_measures())


def _methods(context: click.Context) -> Iterable[str]:
    from repsim.merging.methods import list_methods

    return (method.name for method in list_methods())


def _corpora(context: click.Context) -> Iterable[str]:
    from repsim.corpora import list_corpora

    return ["bible", *(corpus.name for corpus in list_corpora())]


def _packaged(context: click.Context) -> Iterable[str]:
    from repsim.models import list_models

    return (found.model.name for found in list_models())


def _models(context: click.Context) -> Iterable[str]:
    from repsim.models import list_zoo

    zoo = (model.name for model in list_zoo())
    named = [name if name.startswith("zoo:") else f"zoo:{name}" for name in zoo]
    return [*named, *_packaged(context)]


def _languages(context: click.Context) -> Iterable[str]:
    """Those of the corpus that is named before, of all built-in ones where it is none of them."""
    from repsim.corpora import list_corpora, load_corpus

    named = context.params.get("corpus")
    names = [corpus.name for corpus in list_corpora()]
    chosen = [named] if named in names else names
    return sorted({code for name in chosen for code in load_corpus(name).languages})


def _points(context: click.Context) -> Iterable[str]:
    from repsim.models.arch import POINTS

    return POINTS


def _tiers(context: click.Context) -> Iterable[str]:
    from repsim.mergeability.features.tiers import FORECASTING

    return FORECASTING


def _figures(context: click.Context) -> Iterable[str]:
    """Those that are drawn of a comparison."""
    from repsim.core import SimilarityTable
    from repsim.plots import FIGURES

    return (name for name in FIGURES if FIGURES[name].reads == SimilarityTable.STEM)


def _configurations(context: click.Context) -> Iterable[str]:
    from repsim.pretraining.config import EXAMPLES

    return (path.stem for path in EXAMPLES.glob("*.yaml"))


def _studies(context: click.Context) -> Iterable[str]:
    from repsim.studies.study_file import EXAMPLES

    return (path.stem for path in EXAMPLES.glob("*.yaml"))


#: Parameter of a verb -> the names that it takes; `verb name` where verbs differ.
VALUES: Mapping[str, Names] = {
    "measures": _measures, "chosen": _measures, "measure": _measures, "measures name": _measures,
    "method": _methods, "methods name": _methods, "corpus": _corpora, "languages": _languages,
    "point": _points, "tier": _tiers, "kinds": _figures, "to_fetch": _packaged,
    "config": _configurations, "study_file": _studies,
    **dict.fromkeys(["models", "model", "sources", "a", "b", "base", "parents", "merge",
                     "to_check"], _models),
}  # fmt: skip
#: Where a path may stand as well.
_PATHS = (_models, _corpora, _configurations, _studies)


class CompletedValues:
    """Completes names in place of nothing; paths are completed by the shell as well."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def __call__(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names that begin so, and files where a path may stand."""
        label, equals, begun = "", "", incomplete
        if self.names is _models:  # NAME=MODEL
            label, equals, begun = incomplete.rpartition("=")
        try:
            names = [name for name in self.names(context) if name.startswith(begun)]
            found = [label + equals + name for name in names]
        except RepsimError:  # a shell has nowhere to show it
            found = []
        items: list[CompletionItem] = [CompletionItem(name) for name in found]
        paths = self.names in _PATHS
        return items or ([CompletionItem(incomplete, type="file")] if paths else [])


def complete_values(command: click.Command) -> click.Command:
    """Teach a verb, and the verbs in it, to complete values."""
    for parameter in command.params:
        name = parameter.name or ""
        names = VALUES.get(f"{command.name} {name}") or VALUES.get(name)
        if names and not isinstance(parameter.type, click.Choice):
            setattr(parameter, "shell_complete", CompletedValues(names))  # noqa: B010
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    for one in inner.values():
        complete_values(one)
    return command
