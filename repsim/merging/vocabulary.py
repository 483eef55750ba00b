"""Which token each row of an embedding stands for, and whether two tokenizers cut text alike.

The token map is read from the tokenizer's own files, without running it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.files import hash_files, hash_json, read_json
from repsim.models.inspect import tokenizer_files


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Token map and segmentation rules of one tokenizer."""

    name: str
    ids: Mapping[str, int]
    core: Mapping[str, Any]
    rules: Mapping[str, str]
    files: str

    def differences(self, other: Vocabulary, *, shown: int = 3) -> list[str]:
        """What differs, in words, the tokens first; empty if both cut text into the same ids."""
        if self.files == other.files:
            return []
        if not self.ids or not other.ids:
            return ["tokenizer files differ, and do not show their tokens"]
        return [*self._token_differences(other, shown), *self._rule_differences(other)]

    def _token_differences(self, other: Vocabulary, shown: int) -> list[str]:
        mine = {number: token for token, number in self.ids.items()}
        theirs = {number: token for token, number in other.ids.items()}
        differing = sorted(i for i in mine.keys() | theirs.keys() if mine.get(i) != theirs.get(i))
        if not differing:
            return []
        first = ", ".join(
            f"id {i}: {mine.get(i)!r} and {theirs.get(i)!r}" for i in differing[:shown]
        )
        return [f"{len(differing)} of {len(mine.keys() | theirs.keys())} tokens differ ({first})"]

    def _rule_differences(self, other: Vocabulary) -> list[str]:
        found = [
            f"{aspect} differ" if aspect.endswith("s") else f"{aspect} differs"
            for aspect in self.rules
            if self.rules[aspect] != other.rules.get(aspect)
        ]
        if dict(self.core) != dict(other.core) and self.core.keys() == other.core.keys():
            found.append("scores of tokens differ")
        return found

    def cuts_alike(self, other: Vocabulary) -> bool:
        """Whether both cut any text into the same tokens, whatever the ids and the added tokens."""
        return (
            bool(self.ids)
            and bool(other.ids)
            and not self._rule_differences(other)
            and dict(self.core) == dict(other.core)
        )

    def extends(self, other: Vocabulary) -> bool:
        """Whether the other's tokens are all among these, and only merges were added."""
        rules = [{k: v for k, v in each.rules.items() if k != "merges"} for each in (self, other)]
        formed = other.ids and not any(isinstance(v, float) for v in self.core.values())
        return bool(formed) and rules[0] == rules[1] and other.core.keys() <= self.ids.keys()


def read_vocabulary(folder: str | Path, name: str | None = None) -> Vocabulary | None:
    """The vocabulary of a model folder; None if it holds no tokenizer."""
    folder = Path(folder)
    label = name or folder.name
    try:
        files = tokenizer_files(folder)
    except InputError:
        return None
    digest = hash_files(files)
    if files[0].name == "tokenizer.json":
        return _from_document(label, read_json(files[0]), digest)
    if files[0].name == "vocab.json":
        ids = read_json(files[0])
        rules = {"merges": hash_files([files[1]])}
        return Vocabulary(label, ids, dict.fromkeys(ids), rules, digest)
    if files[0].name == "vocab.txt":
        tokens = files[0].read_text(encoding="utf-8").splitlines()
        ids = {token: number for number, token in enumerate(tokens)}
        return Vocabulary(label, ids, dict.fromkeys(ids), {}, digest)
    return Vocabulary(label, {}, {}, {}, digest)


def _from_document(name: str, document: Any, digest: str) -> Vocabulary:
    try:
        model = document["model"]
        listed = model["vocab"]
        if isinstance(listed, dict):
            ids = {str(token): int(number) for token, number in listed.items()}
            core: dict[str, Any] = dict.fromkeys(ids)
        else:
            ids = {str(token): number for number, (token, _) in enumerate(listed)}
            core = {str(token): float(score) for token, score in listed}
        for added in document.get("added_tokens") or ():
            ids[added["content"]] = int(added["id"])
            core.pop(added["content"], None)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the tokenizer.json of model '{name}' is damaged: {error!r}") from None
    merges = [
        pair if isinstance(pair, list) else pair.split(" ") for pair in model.get("merges", [])
    ]
    settings = {k: v for k, v in model.items() if k not in ("vocab", "merges", "unk_id")}
    rules = {
        "merges": hash_json(merges),
        "settings": hash_json(settings),
        "normalizer": hash_json(document.get("normalizer")),
        "pre-tokenizer": hash_json(document.get("pre_tokenizer")),
    }
    return Vocabulary(name, ids, core, rules, digest)


def more_padding(
    first: Vocabulary | None, second: Vocabulary | None, rows: tuple[int, int]
) -> int | None:
    """How many more rows of padding the second model has; None unless both have the same tokens."""
    if first is None or second is None or not first.ids or first.ids != second.ids:
        return None
    fits = max(first.ids.values()) < min(rows) and not first.differences(second)
    return rows[1] - rows[0] if fits else None
