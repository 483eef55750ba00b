"""Findings as data: quantities, thresholds and sentences in YAML, evaluated by one engine.

An entry names quantities by expressions (Jinja's, over what the caller offers), thresholds by the
expression under which each verdict holds, and a sentence that states the numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.errors import InputError
from repsim.core.formatting import listed, number, percent

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from jinja2 import Environment

#: What an entry may hold.
KEYS = ("name", "claim", "kind", "each", "let", "needs", "when", "open", "verdict", "sentence",
        "cases", "quantities")  # fmt: skip


class Statement(NamedTuple):
    """One thing that data say; the verdict is "open" if it cannot be told."""

    name: str
    text: str
    claim: str = ""
    verdict: str = ""
    kind: str = "result"


def read_entries(path: Path | Traversable) -> list[dict[str, Any]]:
    """Entries of a YAML file; an unknown key or a missing name is an InputError."""
    import yaml

    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        unknown = [key for key in entry if key not in KEYS]
        if unknown or "name" not in entry:
            what = f"the unknown key '{unknown[0]}'" if unknown else "no name"
            raise InputError(f"an entry of {path.name} has {what}", hint=f"known: {listed(KEYS)}")
    return list(entries)


def statements(
    entries: Iterable[Mapping[str, Any]],
    offered: Mapping[str, Any],
    skip: type[Exception] | tuple[type[Exception], ...] = (),
) -> list[Statement]:
    """One statement per entry that applies; errors of `skip` leave an entry out."""
    found: list[Statement] = []
    for entry in entries:
        try:
            found += _evaluated(entry, offered)
        except skip:
            continue
    return found


def _evaluated(entry: Mapping[str, Any], offered: Mapping[str, Any]) -> Iterator[Statement]:
    items = Scope(offered, entry.get("let", {})).value(entry["each"]) if "each" in entry else [None]
    for item in items:
        scope = Scope({**offered, "it": item}, entry.get("let", {}))
        if "when" in entry and not scope.value(entry["when"]):
            continue
        head = {"claim": entry.get("claim", ""), "kind": entry.get("kind", "result")}
        for condition, sentence in entry.get("open", {}).items():
            if scope.value(condition):
                yield Statement(entry["name"], scope.text(sentence), verdict="open", **head)
                break
        else:
            verdict = verdict_of(entry, scope)
            yield Statement(entry["name"], scope.text(entry["sentence"]), verdict=verdict, **head)


def verdict_of(entry: Mapping[str, Any], scope: Scope) -> str:
    """The first verdict of an entry whose expression is true; "open" if it has some, none true."""
    verdicts = entry.get("verdict", {})
    return next((name for name, rule in verdicts.items() if scope.value(rule)),
                "open" if verdicts else "")  # fmt: skip


class Scope:
    """Names that expressions may use: those offered, and those of `let`, computed when needed."""

    def __init__(self, offered: Mapping[str, Any], let: Mapping[str, str] = {}) -> None:
        self._known = dict(offered)
        self._let = dict(let)

    def value(self, expression: Any) -> Any:
        """Value of an expression; what is no text is its own value."""
        if not isinstance(expression, str):
            return expression
        made, names = _compiled(expression)
        return made(**self._needed(names))

    def text(self, template: str) -> str:
        """A sentence, filled; runs of spaces are one."""
        filled = _environment().from_string(template).render(**self._needed(_names(template)))
        return re.sub(r"[ \n]+", " ", filled).strip()

    @staticmethod
    def names(expression: str) -> frozenset[str]:
        """Names that an expression uses."""
        return _names(f"{{{{ {expression} }}}}")

    def _needed(self, names: frozenset[str]) -> dict[str, Any]:
        for name in names & set(self._let) - set(self._known):
            self._known[name] = self.value(self._let[name])
        return {name: self._known[name] for name in names if name in self._known}


@functools.cache
def _compiled(expression: str) -> tuple[Callable[..., Any], frozenset[str]]:
    made = _environment().compile_expression(expression, undefined_to_none=False)
    return made, Scope.names(expression)


@functools.cache
def _names(template: str) -> frozenset[str]:
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_environment().parse(template)))


@functools.cache
def _environment() -> Environment:
    """One environment; an undefined name is an error."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.filters |= {
        "number": number, "percent": percent, "listed": lambda items: listed(list(items)),
        "where": _where, "thousands": "{:,}".format,
        "plural": lambda count, word: f"{count} {word}" if count == 1 else f"{count} {word}s",
    }  # fmt: skip
    return environment


def _where(items: Iterable[Any], **wanted: Any) -> list[Any]:
    """Items (or rows) whose attributes equal the values, or are one of a list of them."""

    def of(item: Any, name: str) -> Any:
        return item[name] if isinstance(item, Mapping) else getattr(item, name)

    def holds(item: Any, name: str, value: Any) -> bool:
        found = of(item, name)
        return bool(found in value if isinstance(value, list) else found == value)

    return [item for item in items if all(holds(item, n, v) for n, v in wanted.items())]
