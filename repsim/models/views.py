"""Views: a small folder in the cache that stands for a model whose weights lie elsewhere.

A GGUF file, an adapter or a quantised checkpoint has no safetensors weights of plain numbers. Its
view has the config, the tokenizer and a document that says where the weights are and how they are
read, one tensor at a time. Every verb takes it for a model folder; the weights are never copied.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repsim.core.aside import sweep_once, written_aside
from repsim.core.errors import InputError
from repsim.core.files import cache_folder, file_mark, hash_bytes, read_json, write_json

#: The document of a view. Its name has no ending, so that it is copied with no tokenizer.
VIEW = "repsim_view"
#: Part of the place of a view: another one when the document changes its form.
_VERSION = "4"

#: What a folder holds beside its tokenizer, chat template and generation settings.
_NOT_TOKENIZER = ("config.json", "adapter_config.json", "repsim_provenance.json")


def copy_tokenizer(folder: Path, target: Path) -> None:
    """The tokenizer's files as they are, with chat template and generation settings."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        kept = path.suffix in (".json", ".txt", ".jinja", ".model", ".tiktoken")
        index = path.name.endswith(".index.json")
        if kept and not index and path.name not in _NOT_TOKENIZER and path.is_file():
            shutil.copyfile(path, target / path.name)


def read_view(folder: Path) -> dict[str, Any] | None:
    """The document of a view; None for any other folder."""
    path = folder / VIEW
    if not path.is_file():
        return None
    document = read_json(path)
    if not isinstance(document, dict) or not {"kind", "files", "marks"} <= document.keys():
        raise InputError(f"'{path}' is damaged", hint=f"delete '{folder}'; it is made anew")
    for file, mark in zip(document["files"], document["marks"], strict=True):
        if not Path(file).is_file() or list(file_mark(file)) != mark:
            raise InputError(
                f"'{file}' was changed or moved while it was in use", hint="start again"
            )
    return document


def view_folder(
    name: str, kind: str, files: Sequence[Path], write: Callable[[Path], dict[str, Any]],
    *, beside: Sequence[Path] = (),
) -> Path:  # fmt: skip
    """The view of some weight files (and files `beside`), written the first time."""
    files = [path.resolve() for path in files]
    marks = [file_mark(path) for path in files]
    known = [*files, *(path.resolve() for path in beside)]
    parts = [kind, _VERSION, *(f"{path}\0{file_mark(path)}" for path in known)]
    root = cache_folder() / "views"
    folder = root / hash_bytes(*(part.encode() for part in parts))[:32] / name
    if (folder / VIEW).is_file():
        return folder
    with contextlib.suppress(OSError):
        sweep_once(root)
    try:
        with written_aside(folder) as aside:
            aside.mkdir(parents=True)
            told = write(aside)
            document = {"kind": kind, "files": [str(path) for path in files], "marks": marks}
            write_json(aside / VIEW, document | told, indent=None)
    except OSError:
        if not (folder / VIEW).is_file():  # another process may have been quicker
            raise
    return folder
