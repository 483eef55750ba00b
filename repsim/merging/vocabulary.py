"""Which token each row of an embedding stands for, and whether two tokenizers cut text alike.

Averaging row i with row i makes sense only if both stand for the same token, which equal sizes do
not show. The token map is read from the tokenizer's own files, without running it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.core.files import hash_files, hash_json, read_json
from repsim.models.inspect import tokenizer_files

if TYPE_CHECKING:
    import torch

#: Tensors with one row per token.
_ROWS_ARE_TOKENS = re.compile(
    r"(^|\.)((embed_tokens|wte|word_embeddings|embed_in|shared)\.weight"
    r"|(lm_head|embed_out)\.(weight|bias)|lm_head\.decoder\.(weight|bias)"
    r"|cls\.predictions\.(bias|decoder\.weight|decoder\.bias)|final_logits_bias)$"
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Token map and segmentation rules of one tokenizer.

    Attributes:
        name: Name of the model.
        ids: Token -> id, added tokens included; empty if the files do not show it.
        core: Tokens of the model proper -> what decides about them (score of a unigram model).
        rules: Aspect -> hash of what decides how text is cut: merges, normalizer, pre-tokenizer.
        files: Hash of the tokenizer's files.

    Example:
        >>> one = Vocabulary("en", {"a": 0, "b": 1}, {}, {"merges": "1f"}, "f1")
        >>> other = Vocabulary("de", {"b": 0, "a": 1}, {}, {"merges": "1f"}, "f2")
        >>> one.differences(other)
        ["2 of 2 tokens differ (id 0: 'a' and 'b', id 1: 'b' and 'a')"]
    """

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
        """Whether both cut any text into the same tokens, whatever the ids.

        Added tokens may differ: each tokenizer sees them only where they are written out.
        """
        return (
            bool(self.ids)
            and bool(other.ids)
            and not self._rule_differences(other)
            and dict(self.core) == dict(other.core)
        )


def read_vocabulary(folder: str | Path, name: str | None = None) -> Vocabulary | None:
    """The vocabulary of a model folder; None if it holds no tokenizer.

    Raises:
        InputError: The tokenizer's file is damaged.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> tiny = read_vocabulary(write_tiny_model("gpt2", tempfile.mkdtemp() + "/tiny"))
        >>> tiny.ids["<s>"], len(tiny.ids)
        (0, 270)
    """
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


def token_tensors(tensors: Iterable[str]) -> frozenset[str]:
    """Those tensors that have one row per token.

    Example:
        >>> sorted(token_tensors(["model.embed_tokens.weight", "lm_head.weight", "norm.weight"]))
        ['lm_head.weight', 'model.embed_tokens.weight']
    """
    return frozenset(tensor for tensor in tensors if _ROWS_ARE_TOKENS.search(tensor))


def map_rows(
    donor: Vocabulary, other: Vocabulary, *, donor_rows: int, other_rows: int
) -> torch.Tensor:
    """For each row of the donor, the row of the other model that stands for the same token.

    Args:
        donor: Vocabulary of the result.
        other: Vocabulary of the model that is brought to it.
        donor_rows: Rows of the donor's embedding; those beyond its tokens are padding.
        other_rows: Rows of the other model's embedding.

    Returns:
        `[donor_rows]` int64, -1 where the other model has no such token, and for padding.

    Raises:
        IncompatibleModelsError: The two cut text differently, so that rows with the same name were
            not trained on the same text.

    Example:
        >>> one = Vocabulary("en", {"a": 0, "b": 1}, {}, {"merges": "1f"}, "f1")
        >>> other = Vocabulary("de", {"b": 0, "a": 1}, {}, {"merges": "1f"}, "f2")
        >>> map_rows(one, other, donor_rows=4, other_rows=2).tolist()
        [1, 0, -1, -1]
    """
    import torch

    if not donor.cuts_alike(other):
        what = "; ".join(donor.differences(other)) or "token sets differ"
        raise IncompatibleModelsError(
            f"the tokenizers of '{donor.name}' and '{other.name}' cut text differently: {what}",
            hint="rows can be matched by token only where text is cut alike; merge models that "
            "were trained with one tokenizer",
        )
    rows = torch.full((donor_rows,), -1, dtype=torch.int64)
    for token, number in donor.ids.items():
        theirs = other.ids.get(token, -1)
        if number < donor_rows and 0 <= theirs < other_rows:
            rows[number] = theirs
    return rows
