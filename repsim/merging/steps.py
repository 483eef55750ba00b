"""Files of several merges that are made of each other's results, as `mergekit-multi` reads them."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repsim.core.config import read_yaml
from repsim.core.errors import InputError, UsageError
from repsim.core.files import file_mark, hash_json
from repsim.merging.reading import read_recipe
from repsim.merging.recipe import Recipe
from repsim.models.headers import weight_files
from repsim.models.inspect import locate

#: Keys whose words are no models.
_WORDS = ("name", "method", "merge_method")


class Step(NamedTuple):
    """One merge of a file: its name (empty for the last), its keys, and whom it is made of."""

    name: str
    document: dict[str, Any]
    uses: tuple[str, ...]

    def recipe(self, results: Path) -> Recipe:
        """Its recipe, the others' results being folders in one folder."""
        return read_recipe(_placed(self.document, {name: results / name for name in self.uses}))


def read_steps(source: Any) -> list[Step]:
    """The merges of a file in the order in which they are made; none if it holds a single one."""
    if not isinstance(source, str | Path) or not Path(source).is_file():
        return []
    found = [each for each in read_yaml(source, "recipe", several=True) if each is not None]
    if len(found) < 2:
        return []
    if not all(isinstance(each, dict) for each in found):
        raise InputError(f"recipe '{source}' holds a document that is not a mapping")
    named = {str(each.pop("name", "") or ""): each for each in found}
    for name in named:
        if name in (".", "..") or Path(name).name != name:
            raise UsageError(f"'{name}' in '{source}' cannot be the name of a merge's folder")
    if len(named) < len(found):
        raise UsageError(
            f"two merges in '{source}' have one name, or none",
            hint="give each a name of its own; the one that is asked for may have none",
        )
    uses = {name: tuple(n for n in named if n and n in set(_models(document)))
            for name, document in named.items()}  # fmt: skip
    try:
        order = list(graphlib.TopologicalSorter(uses).static_order())
    except graphlib.CycleError:
        raise UsageError(f"the merges in '{source}' need each other") from None
    ends = [name for name in order if not any(name in used for used in uses.values())]
    if len(ends) > 1:
        named_ends = ", ".join(f"'{name}'" if name else "one without a name" for name in ends)
        raise UsageError(
            f"'{source}' ends in several merges: {named_ends}",
            hint="one result is written: put merges that do not need each other into files of "
            "their own",
        )
    return [Step(name if name != ends[0] else "", named[name], uses[name]) for name in order]


def parents_of(steps: Sequence[Step]) -> list[str]:
    """The models that the merges begin with."""
    names = {step.name for step in steps}
    used = (model for step in steps for model in step.recipe(Path()).sources)
    return list(dict.fromkeys(model for model in used if model.partition("+")[0] not in names))


def key_of(steps: Sequence[Step]) -> str:
    """Hash of what the merges are, and of the files of the models that they begin with."""
    marks = [
        [model, *((file.name, file_mark(file)) for file in weight_files(locate(model).folder))]
        for model in parents_of(steps)
    ]
    return hash_json([[step.document for step in steps], marks])


def _models(value: Any) -> Iterator[str]:
    """Words of a document that may name a model, without an adapter put on it."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in _WORDS:
                yield from _models(each)
    elif isinstance(value, list):
        for each in value:
            yield from _models(each)
    elif isinstance(value, str):
        yield value.partition("+")[0]


def _placed(value: Any, folders: Mapping[str, Path], key: str = "") -> Any:
    """A document whose models are folders where they are results of other merges."""
    if isinstance(value, Mapping):
        return {key: _placed(each, folders, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, folders) for each in value]
    if not isinstance(value, str) or key in _WORDS:
        return value
    name, plus, adapter = value.partition("+")
    return f"{folders[name]}{plus}{adapter}" if name in folders else value
