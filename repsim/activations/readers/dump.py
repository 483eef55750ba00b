"""A dump of activations from another tool -> `Activations`."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.activations.readers.layout import layout_of, parts_of
from repsim.activations.readers.manifest import Manifest, lines, manifest_of
from repsim.activations.readers.rows import DumpArrays, Sentences, plain_rows, sentences_of
from repsim.core import Activations, InputError, ModelRef
from repsim.core.files import hash_bytes


class DumpWarning(UserWarning):
    """Something of a dump was assumed, or could not be held against another one."""


def read_dump(
    path: str | Path,
    name: str = "",
    *,
    manifest: Manifest | Mapping[str, Any] | str | Path | None = None,
) -> Activations:
    """Activations that another tool has written, read in blocks when they are needed.

    Read are `.npy`, `.npz`, `.pt` (tensors only), safetensors, HDF5, netCDF and zarr, or a folder
    of them. Names of our own files, of TransformerLens, nnsight, transformers and vLLM
    (`extract_hidden_states`) are known; a manifest beside the dump states what it does not say
    (see `Manifest`). Tokens are pooled as `repsim.extract` pools them: without padding, without
    the first token, and without special tokens where `special_ids` are stated.

    Args:
        path: The file or folder.
        name: What to call the model; else the manifest's `model`, else the name of the file.
        manifest: A manifest, a mapping with its fields, or a path; else the one beside the dump.

    Returns:
        Activations of one hook point, `[n, d]` per layer, float32.

    Raises:
        InputError: A dump that is missing, damaged, pickled, or whose axes nothing states.
        UsageError: A manifest that says what is not possible.

    Warns:
        DumpWarning: What was assumed of axes that nothing states, or did nothing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "dump.npz"
        >>> np.savez(file, layer_0=np.zeros((5, 4)), layer_1=np.ones((5, 4)))
        >>> read_dump(file).array("", 1).shape
        (5, 4)
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="a file of arrays, or a folder of them")
    stated = manifest_of(path, manifest)
    parts = parts_of(path, stated)
    layout = layout_of(path, parts, stated)
    where = next(iter(layout.layers.values()))
    if layout.by_token:
        found = [sentences_of(part, where, stated) for part in parts]
        counts = [len(kept) for one in found for kept in one.kept]
        sentences: tuple[Sentences | None, ...] = tuple(found)
    else:
        sentences = (None,) * len(parts)
        counts = [1] * sum(plain_rows(part, where) for part in parts)
    notes = [*layout.notes]
    if stated.special_ids and not all(one and one.ids for one in sentences):
        notes.append("special_ids leave nothing out: there are no token ids of each token")
    for note in notes:
        warnings.warn(f"'{path}': {note}", DumpWarning, stacklevel=2)
    ids = lines(stated.names, path, "names")
    documents = lines(stated.documents, path, "documents")
    for what, given in (("names", ids), ("documents", documents)):
        if given and len(given) != len(counts):
            raise InputError(f"'{path}' has {len(counts)} rows and {len(given)} {what}")
    ids = ids or tuple(map(str, range(len(counts))))
    if layout.by_token and not min(counts, default=0):
        raise InputError(f"'{path}': sentence '{ids[counts.index(0)]}' has no tokens")
    if layout.by_token and stated.pooling == "tokens":
        ids = tuple(f"{name}#{position}" for name, kept in
                    zip(ids, itertools.chain(*(one.kept for one in sentences if one)), strict=True)
                    for position in kept)  # fmt: skip
        documents = tuple(np.repeat(np.array(documents, dtype=object), counts)) if documents else ()
    label = name or stated.model or path.stem
    return Activations(
        model=ModelRef(label, str(path)),
        language=stated.language,
        ids=ids,
        layers={layout.point: tuple(layout.layers)},
        pooling=stated.pooling,
        corpus_hash="",
        source=DumpArrays(tuple(parts), layout, sentences, stated, len(ids)),
        documents=documents,
        info=_facts(path, stated, layout, len(parts)) | _token_ids(sentences),
    )


def _facts(path: Path, stated: Manifest, layout: Any, files: int) -> dict[str, Any]:
    """What reports say of how a dump was read."""
    first = {True: "first token left out", False: "first token read",
             "already": "first token left out by the tool"}[stated.skip_first]  # fmt: skip
    pooling = policy = "as the tool pooled"
    if layout.by_token:
        pooling, policy = stated.pooling, f"{stated.pooling} of tokens, {first}"
    named = [layer.key for layer in layout.layers.values()]
    facts = {"dump": str(path), "files": files, "policy": policy, "left_out": layout.left_out,
             "tokenizer": stated.tokenizer, "pooling": pooling}  # fmt: skip
    if layout.point == "" and len(set(named)) == len(named) and not _numbered(named):
        facts["layer_names"] = named
    return facts


def _token_ids(sentences: Sequence[Sentences | None]) -> dict[str, Any]:
    """A hash of the token ids of each sentence, where all of them are known."""
    ids = [own for one in sentences if one and one.ids for own in one.ids]
    if not ids or not all(one and one.ids for one in sentences):
        return {}
    return {"token_ids": tuple(hash_bytes(own.astype("<i8").tobytes())[:16] for own in ids)}


def _numbered(names: list[str]) -> bool:
    return all(any(letter.isdigit() for letter in name) for name in names)
