"""A finished tokenizer of any kind, for models from scratch."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

from repsim.core.errors import InputError
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.tokenizers import CONFIG, MULTIPLE, Tokenizer, load_tokenizer


def open_tokenizer(folder: Path) -> Tokenizer | ModelTokenizer:
    """The tokenizer in a folder, with rows of an embedding for it, a multiple of 128."""
    from repsim.models.inspect import tokenizer_files
    from repsim.models.load import load_tokenizer as load_any

    if not folder.is_dir():
        raise InputError(f"tokenizer '{folder}' is not a folder", hint="tokenizer.path: DIR")
    config = folder / CONFIG
    if config.is_file() and '"repsim"' in config.read_text(encoding="utf-8"):
        return load_tokenizer(folder)
    found = load_any(folder, SimpleNamespace())
    rows = math.ceil(len(found) / MULTIPLE) * MULTIPLE
    return ModelTokenizer(found, rows, tokenizer_files(folder))
