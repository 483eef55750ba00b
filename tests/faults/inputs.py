"""Inputs that nobody wrote on purpose: configs, headers, corpora, recipes, tables, options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.cases import Case
from tests.faults.forked import run
from tests.faults.kills import last_words, leftovers
from tests.faults.mutations import changed_document, changed_text
from tests.faults.stage import Stage

#: Characters of an error beyond which nobody reads it.
LONGEST_MESSAGE = 2500
#: Keys of a config that the shapes of its tensors contradict when they are changed.
SHAPES = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
_COMPARE = ("compare", "a", "b", "--corpus", "pairs.tsv", "-m", "cka", "--permutations", "0")
_MODEL = (
    ("check", "a", "b"),
    ("merge", "a", "b", "out", "--no-forecast"),
    ("predict", "a", "b", "--tier", "T1", "-l", "eng_Latn"),
    _COMPARE,
    ("models", "--check", "a"),
    ("lineage", "a", "b"),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A file, how it is changed, and the verbs that read it."""

    file: str
    change: Callable[[bytes, np.random.Generator], tuple[bytes, str]]
    verbs: tuple[tuple[str, ...], ...]
    refused: Callable[[bytes, bytes], bool] = lambda before, after: False


def _contradicts(before: bytes, after: bytes) -> bool:
    """Whether a changed config cannot be that of the weights."""
    try:
        old, new = json.loads(before), json.loads(after)
    except (ValueError, RecursionError):
        return True
    return not isinstance(new, dict) or any(new.get(key) != old[key] for key in SHAPES)


def _not_safetensors(before: bytes, after: bytes) -> bool:
    """Whether the library that defines the format refuses the file."""
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(after)
    except SafetensorError:
        return True
    return False


def _not_utf8(before: bytes, after: bytes) -> bool:
    try:
        after.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _header(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A changed header of safetensors, of the right length, before the same numbers."""
    length = int.from_bytes(data[:8], "little")
    body = data[8 + length :]
    if rng.random() < 0.3:
        at = int(rng.integers(8 + length))
        kind = str(rng.choice(["truncate", "flip"]))
        if kind == "truncate":
            return data[:at], f"truncated at {at}"
        return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :], f"byte {at} flipped"
    text, what = changed_document(data[8 : 8 + length], rng)
    return len(text).to_bytes(8, "little") + text + body, what


def _text(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    return changed_text(data, rng)


TARGETS = (
    Target("a/config.json", changed_document, _MODEL, _contradicts),
    Target("a/model.safetensors", _header, _MODEL, _not_safetensors),
    Target("a/tokenizer.json", changed_document, _MODEL),
    Target("a/tokenizer_config.json", changed_document, _MODEL),
    Target("a/repsim_provenance.json", changed_document, _MODEL),
    Target("recipe.yml", changed_document,
           (("merge", "recipe.yml", "out", "--no-forecast"),
            ("predict", "recipe.yml", "--tier", "T0", "-l", "eng_Latn"))),
    Target("family.yaml", changed_document, (("pretrain", "family.yaml", "--dry-run"),)),
    Target("study.yaml", changed_document, (("study", "plan", "study.yaml"),)),
    Target("pairs.tsv", _text, (("corpora", "pairs.tsv"), (*_COMPARE, "--dry-run"), _COMPARE),
           _not_utf8),
    Target("pairs.jsonl", _text, (("corpora", "pairs.jsonl"),), _not_utf8),
    Target("corpus/eng_Latn.train.txt", _text,
           (("study", "run", "study.yaml", "-o", "out", "--only", "pretrain"),), _not_utf8),
    Target("merges.csv", _text,
           (("predictor", "fit", "--table", "merges.csv", "--parents", "a,b", "--features",
             "cos:+,dist:-", "-o", "out"),)),
)  # fmt: skip
#: How often each is drawn; the one that trains costs most.
SHARES = np.array([4, 4, 2, 1, 1, 4, 3, 3, 3, 1, 0.3, 2])


def input_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Change one input, run one verb on it."""
    target = TARGETS[int(rng.choice(len(TARGETS), p=SHARES / SHARES.sum()))]
    top = target.file.partition("/")[0]
    folder, cache = stage.place(copy=(top,))
    path = folder / target.file
    before = path.read_bytes()
    after, how = target.change(before, rng)
    path.write_bytes(after)
    arguments = target.verbs[int(rng.integers(len(target.verbs)))]
    what = f"{' '.join(arguments)}; {target.file}: {how}"
    ended = run(arguments, folder, cache=cache)
    reads = target.file != "a/config.json" or arguments[0] != "lineage"  # weights alone
    refused = after != before and reads and target.refused(before, after)
    verdict, why = _verdict(ended, folder, cache, refused=refused, study=arguments[0] == "study")
    if verdict in ("survived", "named"):
        stage.drop(folder)
    return Case("inputs", number, what, verdict, why)


def _verdict(
    ended: Any, folder: Path, cache: Path, *, refused: bool, study: bool
) -> tuple[str, str]:
    if ended.traceback:
        return "traceback", ended.traceback
    if ended.code == 0:
        if refused:
            return "silent", "taken as if nothing were wrong"
    else:
        said = last_words(ended.said)
        if len(said) > LONGEST_MESSAGE:
            return "flood", f"{len(said):,} characters: {said[:80]}"
        # A study keeps what it has done and goes on; a result is there or not.
        if (folder / "out").exists() and not study:
            return "untidy", "a half of a result was written"
    if left := leftovers(folder, cache):
        return "untidy", left
    return ("survived", "") if ended.code == 0 else ("named", last_words(ended.said))
