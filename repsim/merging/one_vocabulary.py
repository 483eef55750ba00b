"""All models of a recipe in one vocabulary, and the tokenizer that goes with it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.merging.checkpoint import Checkpoint, TensorSource
from repsim.merging.recipe import Recipe
from repsim.merging.segmentation import compare_segmentation
from repsim.merging.tensors import token_tensors
from repsim.merging.token_rows import Layout, Reindexed, Rows, assign_rows
from repsim.merging.union import Document, add_tokens, ids_of, unite
from repsim.merging.vocabulary import Vocabulary, more_padding, read_vocabulary
from repsim.models.inspect import read_config, read_provenance
from repsim.models.load import load_tokenizer

#: What stays as it is where the result has a tokenizer.json of its own.
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclasses.dataclass(frozen=True)
class OneVocabulary:
    """Models in one order of rows; the result's tokenizer.json (None: its owner's), notes, hash."""

    sources: dict[str, TensorSource]
    document: Document | None
    notes: list[str]
    key: str


def one_vocabulary(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], owner: Path, name: str
) -> OneVocabulary:
    """Bring the rows of all models into the order of the vocabulary that the recipe asks for."""
    models = {model: checkpoints[model] for model in recipe.sources}
    vocabularies = {m: read_vocabulary(c.folder, c.name) for m, c in models.items()}
    own = read_vocabulary(owner, name)
    key = hash_json([own and own.files, *(v and v.files for v in vocabularies.values())])
    tensors = token_tensors(models[recipe.donor].headers)
    counts = {model: _count(checkpoint) for model, checkpoint in models.items()}
    if recipe.tokenizer == "same":
        kept, notes = _padded_alike(recipe.donor, models, vocabularies, counts, tensors)
        return OneVocabulary(kept, None, notes, key)
    for model, vocabulary in ((name, own), *((models[m].name, v) for m, v in vocabularies.items())):
        if vocabulary is None or not vocabulary.ids:
            raise InputError(
                f"model '{model}' has no tokenizer that shows its tokens, so its rows cannot be "
                "matched by token",
                hint="put a tokenizer.json into its folder",
            )
    assert own is not None
    known = {model: found for model, found in vocabularies.items() if found is not None}
    asked = recipe.tokens or recipe.pad_to_multiple_of
    if not asked and not any(own.differences(found) for found in known.values()):
        kept, notes = _padded_alike(recipe.donor, models, vocabularies, counts, tensors)
        return OneVocabulary(kept, None, notes, key)
    document, notes = _tokenizer(recipe, (owner, own), known, models, counts)
    ids = own.ids if document is None else ids_of(document)
    rows = {
        model: Rows({t: i for t, i in known[model].ids.items() if i < counts[model]}, counts[model])
        for model in models
    }
    owning = recipe.tokenizer_owner if recipe.tokenizer_owner in models else ""
    layout = _layout(recipe, ids, counts.get(owning, 0), owning)
    _refuse_unknown(recipe)
    taken, lacking = assign_rows(layout, rows, recipe.base_model, recipe.tokens)
    notes += _said(layout, recipe, known, ids, lacking, counts.get(owning, 0))
    means = 0 if layout.owner else layout.count - 1 - max(ids.values(), default=-1)
    sources: dict[str, TensorSource] = {
        model: Reindexed(
            models[model], [(models[other], index) for other, index in taken[model].items()],
            tensors, means,
        )
        for model in models
    }  # fmt: skip
    return OneVocabulary(sources, document, notes, hash_json([key, document]))


def _count(checkpoint: Checkpoint) -> int:
    """Rows of the vocabulary of one model."""
    counts = {checkpoint.headers[t].shape[0] for t in token_tensors(checkpoint.headers)}
    if len(counts) > 1:
        raise IncompatibleModelsError(
            f"vocabulary tensors of '{checkpoint.name}' have different numbers of rows: "
            f"{', '.join(map(str, sorted(counts)))}"
        )
    return next(iter(counts), 0)


def _padded_alike(
    donor: str, models: Mapping[str, Checkpoint], known: Mapping[str, Vocabulary | None],
    counts: Mapping[str, int], tensors: frozenset[str],
) -> tuple[dict[str, TensorSource], list[str]]:  # fmt: skip
    """Models of one tokenizer whose rows are padded differently: as many as the donor has."""
    notes, owned = list[str](), counts[donor]
    sources: dict[str, TensorSource] = dict(models)
    for model, count in counts.items():
        if count == owned:  # most merges: they do without torch
            continue
        import torch

        both = f"'{models[model].name}' has {count} rows and '{models[donor].name}' {owned}"
        more = more_padding(known[donor], known[model], (owned, count))
        if more is None:
            raise IncompatibleModelsError(
                f"{both}, and not only rows that stand for no token differ",
                hint="see the tokenizer check: repsim check",
            )
        rows = torch.arange(owned)
        own = torch.where(rows < count, rows, -1)
        donors = [(models[model], own), (models[donor], torch.where(own < 0, rows, -1))]
        sources[model] = Reindexed(models[model], donors, tensors)
        what = "are left out" if more > 0 else "are the latter's"
        notes.append(f"{both} for the same tokens: {abs(more)} that stand for no token {what}")
    return sources, notes


def _tokenizer(
    recipe: Recipe, owner: tuple[Path, Vocabulary], known: Mapping[str, Vocabulary],
    models: Mapping[str, Checkpoint], counts: Mapping[str, int],
) -> tuple[Document | None, list[str]]:  # fmt: skip
    """The tokenizer of the result, None for the owner's as it is, and what was decided."""
    (folder, own), notes = owner, list[str]()
    differing = {m: c for m, c in models.items() if own.differences(known[m])}
    document = None
    if recipe.tokenizer == "union" and any(_brings(own, known[m]) for m in differing):
        others = [(known[m], _document(c.folder, c.name), counts[m]) for m, c in differing.items()]
        document, notes = unite((own, _document(folder, own.name)), others)
        for model, checkpoint in models.items():
            if not all(own.cuts_alike(vocabulary) for vocabulary in known.values()):
                languages = read_provenance(checkpoint.folder).get("languages", ())
                path = checkpoint.folder / "tokenizer.json"
                notes += compare_segmentation(path, document, languages, known[model].name)
    elif recipe.tokenizer == "map":
        for model in differing:
            _check_cut(own, known[model])
    ids = own.ids if document is None else ids_of(document)
    new = [token for token in recipe.tokens if token not in ids]
    if new:
        document = _document(folder, own.name) if document is None else document
        add_tokens(document, new)
        notes.append(f"tokens that the recipe adds: {', '.join(map(repr, new))}")
    return document, notes


def _brings(own: Vocabulary, other: Vocabulary) -> bool:
    """Whether a union with another vocabulary is more than the vocabulary itself."""
    return bool(other.ids.keys() - own.ids.keys()) or not own.cuts_alike(other)


def _document(folder: Path, name: str) -> Document:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"model '{name}' has no tokenizer.json, and tokens can be added to no other kind",
            hint="AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one",
        )
    document: Document = read_json(path)
    return document


def _check_cut(own: Vocabulary, other: Vocabulary) -> None:
    """Refuse a vocabulary that does not hold what the other model was trained on."""
    if own.cuts_alike(other) or own.extends(other):
        return
    raise IncompatibleModelsError(
        f"the tokenizers of '{own.name}' and '{other.name}' cut text differently: "
        + ("; ".join(own.differences(other)) or "token sets differ"),
        hint="a union keeps what both form from text (tokenizer: {strategy: union}, or "
        "tokenizer_source: union); or merge models that were trained with one tokenizer",
    )


def _layout(recipe: Recipe, ids: Mapping[str, int], owned: int, owner: str) -> Layout:
    count = 1 + max(ids.values(), default=-1)
    if multiple := recipe.pad_to_multiple_of:
        return Layout(ids, -(-count // multiple) * multiple, "")
    return Layout(ids, max(count, owned), owner if owned > count else "")


def _refuse_unknown(recipe: Recipe) -> None:
    for choice in recipe.tokens.values():
        if choice.model is not None and choice.model not in recipe.sources:
            listed = ", ".join(map(repr, recipe.sources))
            raise UsageError(
                f"tokenizer.tokens names '{choice.model}', which is not merged",
                hint=f"models of the recipe: {listed}",
            )


def _said(
    layout: Layout, recipe: Recipe, known: Mapping[str, Vocabulary], ids: Mapping[str, int],
    lacking: list[str], owned: int,
) -> list[str]:  # fmt: skip
    """What a reader of the result should know of its rows."""
    notes = []
    for model in recipe.sources:
        own = known[model].ids
        absent = sum(1 for token in ids if token not in own)
        dropped = sum(1 for token in own if token not in ids)
        moved = sum(1 for token, number in own.items() if ids.get(token, number) != number)
        if absent or dropped or moved:
            notes.append(
                f"rows of '{known[model].name}' are matched by token: {absent} tokens that it "
                f"lacks take rows of the other models, {dropped} of its own are left out"
            )
    if lacking:
        notes.append(
            f"{len(lacking)} tokens have a row in no model and take zeros: "
            + ", ".join(map(repr, lacking[:3])) + (", ..." if len(lacking) > 3 else "")
        )  # fmt: skip
    for token, choice in recipe.tokens.items():
        if not choice.default:
            where = "zeros" if choice.model is None else f"that of '{known[choice.model].name}'"
            what = "" if choice.token is None else f" (token {choice.token!r})"
            whom = "in all models" if choice.force else "where a model lacks it"
            notes.append(f"row of {token!r}: {where}{what}, {whom}")
    last = 1 + max(ids.values(), default=-1)
    if layout.count > last:
        kind = f"those of '{known[layout.owner].name}'" if layout.owner else "means of all others"
        notes.append(f"{layout.count - last} of {layout.count} rows stand for no token: {kind}")
    return notes


def load_result_tokenizer(owner: Path, document: Document | None) -> Any:
    """The tokenizer that the result will have: its owner's, or one of its own."""
    if document is None:
        return load_tokenizer(owner, read_config(owner)[0])
    with tempfile.TemporaryDirectory() as name:
        for beside in BESIDE:
            if (owner / beside).is_file():
                shutil.copyfile(owner / beside, Path(name, beside))
        write_tokenizer(Path(name), document)
        return load_tokenizer(Path(name), None)


def write_tokenizer(folder: Path, document: Mapping[str, Any]) -> None:
    """A tokenizer of the result's own, in the place of its owner's."""
    write_json(folder / "tokenizer.json", dict(document))
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    settings: dict[str, Any] = read_json(path)
    if "added_tokens_decoder" in settings:
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        settings["added_tokens_decoder"] = {
            str(each["id"]): {flag: each[flag] for flag in flags if flag in each}
            for each in document.get("added_tokens", ())
        }
        write_json(path, settings)
