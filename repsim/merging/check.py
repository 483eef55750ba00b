"""Do these models fit each other? Told from configs, headers and tokenizer files, before any work.

Heads, rotary positions, norms and token maps can differ without one tensor changing its shape.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from repsim.core.errors import IncompatibleModelsError, RepsimError, UsageError
from repsim.core.files import hash_files, read_json
from repsim.merging.arrays import is_finite
from repsim.merging.checkpoint import FLOATS, Checkpoint
from repsim.merging.config_meanings import (
    TOKEN_IDS,
    Meaning,
    generation_settings,
    meaning_of,
    read_configs,
)
from repsim.merging.recipe import Strategy
from repsim.merging.tensors import (
    head_and_embedding,
    is_tied,
    layer_of,
    merged_names,
    token_tensors,
)
from repsim.merging.vocabulary import Vocabulary, more_padding, read_vocabulary
from repsim.models.inspect import check_config, locate, tokenizer_files

Level = Literal["error", "warning", "ok"]

_FIT = "merge models of one architecture and size"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "error" if the models must not be merged, "warning" if a reader should know, or "ok".
        check: What was looked at.
        what: What was found.
        where: Models or tensors that it concerns.
        hint: What to do about it; empty if nothing.

    Example:
        >>> Finding("warning", "vocabulary", "64 tokens differ", "en and de").to_dict()["level"]
        'warning'
    """

    level: Level
    check: str
    what: str
    where: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        """Check and finding in one line."""
        return f"{self.check}: {self.what}"

    def to_dict(self) -> dict[str, str]:
        """A JSON-able dictionary."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Model:
    """What is known of one model without its weights."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    checkpoint: Checkpoint

    @functools.cached_property
    def meaning(self) -> Meaning:
        """What its config comes to."""
        return meaning_of(self.config)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Its tokens; None if it has no tokenizer."""
        return read_vocabulary(self.folder, self.name)

    def tokens_at(self, ids: Any) -> str:
        """Ids of special tokens with what they stand for."""
        listed = ids if isinstance(ids, list) else [ids]
        known = {number: token for token, number in self.vocabulary.ids.items()} if (
            self.vocabulary) else {}  # fmt: skip
        return ", ".join(
            f"{number} ('{known[number]}')" if number in known else str(number) for number in listed
        )


def check_models(
    models: Sequence[str | Path],
    *,
    deep: bool = False,
    tokenizer: Strategy = "same",
    stacked: bool = False,
    aligned: bool = False,
) -> list[Finding]:
    """Compare models with the first of them, without loading weights.

    Args:
        models: Folders or names of packaged models, two or more.
        deep: Whether all weights are read in search of NaN and infinity.
        tokenizer: "map" accepts tokens in another order if text is cut alike, "union" any.
        stacked: Whether models may differ in the number of layers, of which some are taken.
        aligned: Whether they are aligned before they are merged, which gives all of them a head of
            their own where only some have one.

    Returns:
        What was found, per check and model; `ok` where models agree.

    Raises:
        InputError: A model is not there, its files are damaged, or its config contradicts them.
        UsageError: Fewer than two models.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> root = tempfile.mkdtemp()
        >>> a = write_tiny_model("llama", root + "/a")
        >>> b = write_tiny_model("llama", root + "/b", seed=1, rope_theta=5e5)
        >>> [f.check for f in check_models([a, b]) if f.level == "error"]
        ['rotary positions']
    """
    if len(models) < 2:
        raise UsageError("a check compares models: name two or more")
    located = [locate(model) for model in models]
    names = [found.name for found in located]
    labels = names if len(set(names)) == len(names) else [str(model) for model in models]
    described = _describe([found.folder for found in located], labels)
    for model in described:
        check_config(model.name, model.folder, model.checkpoint.headers)
    first = described[0]
    findings: list[Finding] = []
    for other in described[1:]:
        options = {"tokenizer": tokenizer, "stacked": stacked, "aligned": aligned}
        for check, fine in _CHECKS.items():
            fits = Finding("ok", *fine, _both(first, other))
            findings += check(first, other, options) or [fits]
    for model in described:
        findings += _stored_head(model)
        if deep:
            findings += list(_values(model)) or [
                Finding("ok", "values", "no NaN and no infinity", model.name)
            ]
    return findings


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raise the first error among findings, with the number of others."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; see: repsim check)" if len(errors) > 1 else ""
        raise IncompatibleModelsError(
            f"{errors[0].check}: {errors[0].what}, {errors[0].where}{more}",
            hint=errors[0].hint or None,
        )


def _both(a: _Model, b: _Model) -> str:
    return f"'{a.name}' and '{b.name}'"


def _describe(folders: Sequence[Path], names: Sequence[str]) -> list[_Model]:
    configs = read_configs(folders)
    return [
        _Model(label, folder, config, Checkpoint(folder, label))
        for label, folder, config in zip(names, folders, configs, strict=True)
    ]


_Options = Mapping[str, Any]


def _config(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    """Aspects that must agree, then everything else that differs."""
    findings, both = [], _both(a, b)
    for aspect, values in a.meaning.differences(b.meaning).items():
        if aspect != "layers" or not options["stacked"]:
            findings.append(Finding("error", aspect, f"{values[0]} and {values[1]}", both, _FIT))
    if a.meaning.aspects["architecture"] == b.meaning.aspects["architecture"]:
        for what in _differing(a.meaning.rest, b.meaning.rest):
            hint = f"the result has that of '{a.name}'"
            findings.append(Finding("warning", "config", what, both, hint))
    return findings


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, in words."""
    return [
        f"{key} is {_shown(first.get(key))} and {_shown(second.get(key))}"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _shown(value: Any) -> str:
    """A value of a config, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _rope(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    differing = _differing(a.meaning.rotary, b.meaning.rotary)
    if not differing:
        return []
    hint = "queries and keys of one mean other positions in the other: do not merge them"
    return [Finding("error", "rotary positions", ", ".join(differing), _both(a, b), hint)]


def _generation(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    """Special tokens and settings of generation: a merge takes those of the first model."""
    settings = [generation_settings(model.folder, model.config) for model in (a, b)]
    both, hint = _both(a, b), f"the result has that of '{a.name}'"
    findings = []
    for key in TOKEN_IDS:
        values = [own.pop(key) for own in settings]
        if values[0] != values[1]:
            tokens = [model.tokens_at(value) for model, value in zip((a, b), values, strict=True)]
            what = f"{key} is {tokens[0]} and {tokens[1]}"
            findings.append(Finding("warning", "special tokens", what, both, hint))
    if differing := _differing(*settings):
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        what = "; ".join(differing[:3]) + more
        findings.append(Finding("warning", "generation config", what, both, hint))
    return findings


def _ties(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    one, other = (a, b) if _is_tied(a) else (b, a)
    if _is_tied(a) == _is_tied(b):
        return []
    what = "the head is the embedding in one and not in the other"
    where = f"tied in '{one.name}', not in '{other.name}'"
    if options["aligned"]:
        return [
            Finding("warning", "tied embeddings", f"{what}; all get a head of their own", where)
        ]
    hint = (
        f"align them, which unties '{one.name}' (--align orthogonal undoes a rotation), or save it "
        "with a head of its own and tie_word_embeddings: false"
    )
    return [Finding("error", "tied embeddings", what, where, hint)]


def _is_tied(model: _Model) -> bool:
    return is_tied(model.config, model.checkpoint.headers)


def _stored_head(model: _Model) -> list[Finding]:
    """A head that is stored although the config ties it must be the embedding."""
    headers = model.checkpoint.headers
    head, embedding = head_and_embedding(headers)
    if not head or not embedding or not is_tied(model.config, headers):
        return []
    import torch

    if torch.equal(model.checkpoint.read(head), model.checkpoint.read(embedding)):
        return []
    return [
        Finding(
            "error", "tied embeddings", f"the config ties {head} to {embedding}, and they differ",
            f"'{model.name}'", "set tie_word_embeddings to what the weights are",
        )
    ]  # fmt: skip


def _tensors(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    names = [set(merged_names(model.config, model.checkpoint.headers)) for model in (a, b)]
    if options["stacked"]:
        names = [{n for n in some if layer_of(n) is None} for some in names]
    if options["aligned"] and _is_tied(a) != _is_tied(b):
        names = [some - {head_and_embedding(some)[0]} for some in names]
    findings = []
    for some, other, model in ((names[0], names[1], b), (names[1], names[0], a)):
        if lacking := sorted(some - other):
            findings.append(_lacking(lacking, other, model))
    freely = token_tensors(names[0]) if options["tokenizer"] != "same" else frozenset()
    for tensor in sorted(names[0] & names[1]):
        shapes = [model.checkpoint.headers[tensor].shape for model in (a, b)]
        if tensor in freely:
            shapes = [shape[1:] for shape in shapes]
        if shapes[0] == shapes[1]:
            continue
        rows = (shapes[0][0], shapes[1][0]) if token_tensors([tensor]) else None
        alike = rows and shapes[0][1:] == shapes[1][1:]
        if rows and alike and more_padding(a.vocabulary, b.vocabulary, rows) is not None:
            what = (
                f"'{tensor}' has {rows[0]} and {rows[1]} rows for the same tokens; "
                "rows beyond the tokens are padding"
            )
            hint = f"the result has as many rows as '{a.name}'"
            findings.append(Finding("warning", "shapes", what, _both(a, b), hint))
        else:
            what = f"'{tensor}' is {list(shapes[0])} and {list(shapes[1])}"
            hint = "the vocabularies differ in size; see the tokenizer check" if rows else _FIT
            findings.append(Finding("error", "shapes", what, _both(a, b), hint))
    return findings


def _lacking(lacking: Sequence[str], present: set[str], model: _Model) -> Finding:
    shown = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
    what = f"{len(lacking)} tensor(s) missing: {shown}"
    hint = "a tensor that one model lacks cannot be merged"
    prefixed = {name.partition(".")[2] for name in present} | set(present)
    if len(lacking) > 1 and all(n in prefixed or n.partition(".")[2] in present for n in lacking):
        hint = "one was saved with its head and the other without: save both alike"
    elif all(name.endswith(".bias") for name in lacking):
        hint = "one has biases and the other not; " + _FIT
    return Finding("error", "tensors", what, f"'{model.name}'", hint)


def _types(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    types = [
        sorted({h.dtype for h in model.checkpoint.headers.values() if h.dtype in FLOATS})
        for model in (a, b)
    ]
    if types[0] == types[1]:
        return []
    what = f"stored as {'/'.join(types[0])} and {'/'.join(types[1])}"
    hint = "sums are in float32; the result is stored as the first model unless out_dtype says so"
    return [Finding("warning", "types", what, _both(a, b), hint)]


def _tokens(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    both = _both(a, b)
    hashes = [_tokenizer_hash(model.folder) for model in (a, b)]
    if None in hashes:
        lacking = " and ".join(f"'{m.name}'" for m, h in zip((a, b), hashes, strict=True) if not h)
        what = f"no tokenizer in {lacking}: whether rows stand for the same tokens is not known"
        return [Finding("warning", "tokens", what, both, "put the tokenizers into the folders")]
    if hashes[0] == hashes[1]:
        return []
    first, second = a.vocabulary, b.vocabulary
    assert first is not None
    assert second is not None
    differences = first.differences(second)
    if not differences:
        return []
    what = "; ".join(differences)
    if not first.cuts_alike(second):
        if first.ids and first.ids == second.ids:
            hint = f"the result cuts text as '{a.name}' does; '{b.name}' was trained otherwise"
            return [Finding("warning", "tokens", what, both, hint)]
        if options["tokenizer"] == "union":
            return [
                Finding("warning", "tokens", f"{what}; the result knows the tokens of all", both)
            ]
        if options["tokenizer"] == "map" and (first.extends(second) or second.extends(first)):
            return [Finding("warning", "tokens", f"{what}; rows are matched by token", both)]
        hint = (
            "row i would be averaged with another token's; a union keeps what both form from text "
            "(tokenizer: {strategy: union}, mergekit's tokenizer_source: union), or train on one "
            "joint tokenizer"
        )
        return [Finding("error", "tokens", what, both, hint)]
    if options["tokenizer"] != "same":
        return [Finding("warning", "tokens", f"{what}; rows are matched by token", both)]
    hint = "text is cut alike: match rows by token with tokenizer: {strategy: map}"
    return [Finding("error", "tokens", what, both, hint)]


def _tokenizer_hash(folder: Path) -> str | None:
    try:
        return hash_files(tokenizer_files(folder))
    except RepsimError:
        return None


def _templates(a: _Model, b: _Model, options: _Options) -> list[Finding]:
    first, second = read_chat_template(a.folder), read_chat_template(b.folder)
    if first == second:
        return []
    state = ["has none" if t is None else f"{len(t)} characters" for t in (first, second)]
    what = f"chat templates differ ({state[0]}, {state[1]})"
    hint = f"the result has that of '{a.name}'"
    return [Finding("warning", "chat template", what, _both(a, b), hint)]


def read_chat_template(folder: Path) -> str | None:
    """The chat template of a model folder, None if it has none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    document = read_json(path) if path.is_file() else {}
    template = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(template, list):  # several by name
        named = {each.get("name"): each.get("template") for each in template}
        template = named.get("default")
    return None if template is None else str(template)


def _values(model: _Model) -> Iterator[Finding]:
    for tensor, header in model.checkpoint.headers.items():
        if header.dtype not in FLOATS:
            continue
        found = model.checkpoint.read(tensor)
        if not is_finite(found):
            bad = int((~found.isfinite()).sum())
            what = f"{bad} of {found.numel()} values of '{tensor}' are NaN or infinite"
            hint = "the checkpoint is damaged: take another one"
            yield Finding("error", "values", what, f"'{model.name}'", hint)


#: Checks of a pair in the order of reports, and what is said where they find nothing.
_CHECKS: dict[Callable[[_Model, _Model, _Options], list[Finding]], tuple[str, str]] = {
    _config: ("config", "the configs agree"),
    _rope: ("rotary positions", "the same"),
    _ties: ("tied embeddings", "the same"),
    _tensors: ("tensors", "the same names and shapes"),
    _types: ("types", "the same"),
    _tokens: ("tokens", "the same token map"),
    _generation: ("generation config", "the same, special tokens too"),
    _templates: ("chat template", "the same"),
}
