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


def _models(context: click.Context) -> Iterable[str]:
    from repsim.models import list_models, list_zoo

    zoo = (model.name for model in list_zoo())
    named = [name if name.startswith("zoo:") else f"zoo:{name}" for name in zoo]
    return [*named, *(found.model.name for found in list_models())]


def _languages(context: click.Context) -> Iterable[str]:
    """Those of the corpus that is named before, of all built-in ones where it is none of them."""
    from repsim.corpora import list_corpora, load_corpus

    named = context.params.get("corpus")
    names = [corpus.name for corpus in list_corpora()]
    chosen = [named] if named in names else names
    return sorted({code for name in chosen for code in load_corpus(name).languages})


#: Parameter of a verb -> the names that it takes.
VALUES: Mapping[str, Names] = {
    "measures": _measures, "method": _methods, "corpus": _corpora, "languages": _languages,
    **dict.fromkeys(["models", "model", "sources", "a", "b", "base", "parents", "merge"], _models),
}  # fmt: skip


class CompletedValues:
    """Completes names in place of nothing; paths are completed by the shell as well."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def __call__(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names that begin so, and files where a path may stand."""
        try:
            found = [name for name in self.names(context) if name.startswith(incomplete)]
        except RepsimError:  # a shell has nowhere to show it
            found = []
        items: list[CompletionItem] = [CompletionItem(name) for name in found]
        paths = self.names in (_models, _corpora)
        return items or ([CompletionItem(incomplete, type="file")] if paths else [])


def complete_values(command: click.Command) -> click.Command:
    """Teach a verb, and the verbs in it, to complete values."""
    for parameter in command.params:
        names = VALUES.get(parameter.name or "")
        if names and not isinstance(parameter.type, click.Choice):
            setattr(parameter, "shell_complete", CompletedValues(names))  # noqa: B010
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    for one in inner.values():
        complete_values(one)
    return command
