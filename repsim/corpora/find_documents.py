"""Which files hold the text of a language: by name in a folder, in a folder of its own, by pattern.

A text in pieces has numbered files (`deu_Latn.train-00000-of-00007.parquet`), a folder of its own
(`deu_Latn/*.jsonl.gz`), or a pattern (`wiki/{language}/part-*.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from repsim.core.errors import InputError
from repsim.corpora.document_files import KINDS, PACKED, file_kind

#: Names under which text is kept that is not for training, in order of preference.
HELDOUT_NAMES = ("heldout", "validation", "dev", "test")
_KNOWN = f"({'|'.join(KINDS)})({'|'.join(re.escape(suffix) for suffix in PACKED)})?"
_NAME = re.compile(
    r"(?P<language>[^.]+?)(?:[.-](?P<part>train|" + "|".join(HELDOUT_NAMES) + r"))?"
    r"(?P<piece>[.-]\d+(?:-of-\d+)?)?\." + _KNOWN
)
_OF = re.compile(r"(.*?)-?(\d+)-of-(\d+)\b(.*)")


def find_document_files(location: str, language: str) -> tuple[list[Path], list[Path]]:
    """Training files and held-out files (perhaps none) of a language."""
    path = Path(location.replace("{language}", language))
    if path.is_dir() and "{language}" not in location:
        parts = _named(path, language) or _parted(_below(path / language), path / language)
    elif path.is_dir():
        parts = _parted(_below(path), path)
    elif path.is_file():
        parts = {"train": [path]} if file_kind(path) else {}
    else:
        top = path
        while set("*?[") & set(str(top)):
            top = top.parent
        found = sorted(top.glob(str(path.relative_to(top)))) if top != path else []
        parts = _parted([name for name in found if name.is_file() and file_kind(name)], top)
    held = next((name for name in HELDOUT_NAMES if name in parts), None)
    if "train" not in parts:
        raise _nothing(path, location, language)
    for name in ("train", *filter(None, [held])):
        _check_pieces(parts[name])
    return parts["train"], parts[held] if held else []


def _named(folder: Path, language: str) -> dict[str, list[Path]]:
    """Files of a folder that have the language in their names, by part."""
    parts: dict[str, list[Path]] = {}
    pieces: dict[str, bool] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None or match["language"] != language or not path.is_file():
            continue
        part = match["part"] or "train"
        known = parts.setdefault(part, [])
        if known and not (match["piece"] and pieces[part]):
            raise InputError(
                f"'{folder}' has two {part} files for {language}: {known[0].name}, {path.name}",
                hint="keep one of them, or number the pieces of one text",
            )
        pieces[part] = bool(match["piece"])
        known.append(path)
    return parts


def _below(folder: Path) -> list[Path]:
    """Files of documents in a folder and in those inside it."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and file_kind(p))


def _parted(paths: Iterable[Path], top: Path) -> dict[str, list[Path]]:
    """Training and held-out files by a word in their names or in those of their folders."""
    parts: dict[str, list[Path]] = {}
    for path in paths:
        words = re.split(r"[^a-z]+", str(path.relative_to(top)).lower())
        part = next((name for name in HELDOUT_NAMES if name in words), "train")
        parts.setdefault(part, []).append(path)
    return parts


def _check_pieces(paths: Sequence[Path]) -> None:
    """Refuse a text of which `-of-N` says that pieces are missing."""
    found: dict[tuple[Path, str, int, str], set[int]] = {}
    for path in paths:
        if match := _OF.fullmatch(path.name):
            stem, number, total, rest = match.groups()
            found.setdefault((path.parent, stem, int(total), rest), set()).add(int(number))
    for (folder, stem, total, _), numbers in found.items():
        if len(numbers) < total:
            raise InputError(
                f"'{folder}' has {len(numbers)} of the {total} pieces of '{stem}'",
                hint="copy the others too, or name the files without '-of-'",
            )


def _nothing(path: Path, location: str, language: str) -> InputError:
    if "{language}" not in location and path.is_dir():
        have = sorted({p.name.split(".")[0] for p in path.iterdir() if not p.name.startswith(".")})
        return InputError(
            f"'{path}' has no training text in {language}: no {language}.train.txt, "
            f"{language}.jsonl or {language}.parquet, plain or packed, and no folder {language}/",
            hint=f"it has: {', '.join(have[:40]) or 'nothing'}",
        )
    if path.is_file():
        return InputError(f"'{path}' is no file of documents", hint=f"known: {', '.join(KINDS)}")
    return InputError(
        f"training text '{path}' is not a folder, a file or a pattern of files",
        hint="'bible', a path, or hub:NAME",
    )
