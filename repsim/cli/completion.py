"""What a shell completes: names of models, measures, methods, corpora and languages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from repsim.core.errors import RepsimError

Names = Callable[[click.Context], Iterable[str]]


def _listed(place: str) -> Names:
    """Names of what a module holds: keys, things that have a name, or files of a folder."""
    module, _, attribute = place.partition(":")

    def names(context: click.Context) -> Iterable[str]:
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, Path):
            return (path.stem for path in found.glob("*.yaml"))
        things = found() if callable(found) else found
        return (str(getattr(thing, "name", thing)) for thing in things)

    return names


_MEASURES = _listed("repsim.measures:list_measures")
_METHODS = _listed("repsim.merging.methods:list_methods")
_PACKAGED = _listed("repsim.models.packages:PACKAGED")
_CONFIGURATIONS = _listed("repsim.pretraining.config:EXAMPLES")
_STUDIES = _listed("repsim.studies.study_file:EXAMPLES")


def _corpora(context: click.Context) -> Iterable[str]:
    return ["bible", *_listed("repsim.corpora:list_corpora")(context)]


def _models(context: click.Context) -> Iterable[str]:
    zoo = _listed("repsim.models:list_zoo")(context)
    named = [name if name.startswith("zoo:") else f"zoo:{name}" for name in zoo]
    return [*named, *_PACKAGED(context)]


def _languages(context: click.Context) -> Iterable[str]:
    """Those of the corpus that is named before, of all built-in ones where it is none of them."""
    from repsim.corpora import list_corpora, load_corpus

    named = context.params.get("corpus")
    names = [corpus.name for corpus in list_corpora()]
    chosen = [named] if named in names else names
    return sorted({code for name in chosen for code in load_corpus(name).languages})


def _figures(context: click.Context) -> Iterable[str]:
    """Those that are drawn of a comparison."""
    from repsim.core import SimilarityTable
    from repsim.plots import FIGURES

    return (name for name in FIGURES if FIGURES[name].reads == SimilarityTable.STEM)


#: Parameter of a verb -> the names that it takes; `verb name` where verbs differ.
VALUES: Mapping[str, Names] = {
    **dict.fromkeys(["measures", "measure", "chosen", "measures name"], _MEASURES),
    **dict.fromkeys(["method", "methods name"], _METHODS),
    **dict.fromkeys(["models", "model", "sources", "a", "b", "base", "parents", "merge",
                     "to_check"], _models),
    "to_fetch": _PACKAGED, "corpus": _corpora, "languages": _languages, "kinds": _figures,
    "point": _listed("repsim.models.arch:POINTS"), "config": _CONFIGURATIONS,
    "tier": _listed("repsim.mergeability.features.tiers:FORECASTING"), "study_file": _STUDIES,
}  # fmt: skip
#: Where a path may stand as well.
_PATHS = (_models, _corpora, _CONFIGURATIONS, _STUDIES)


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
