"""Token shards: raw token files that are mapped into memory, document starts, one manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, UsageError
from repsim.core.files import read_json, write_json
from repsim.core.progress import progress
from repsim.corpora.documents import Document, TrainingText, batches
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.tokenizers import Tokenizer, token_byte_lengths

MANIFEST = "manifest.json"
SCHEMA = "repsim-shards/2"
#: Characters that are tokenised in one call: enough to keep every thread busy.
BATCH_CHARACTERS = 2_000_000
_REMAKE = "delete the folder and let the shards be made again"


def write_shards(
    folder: str | Path,
    language: str,
    split: str,
    documents: Iterable[Document],
    tokenizer: Tokenizer | ModelTokenizer,
    *,
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Tokenise the documents of one language and split; nothing is done if that was done before.

    One process at a time may write to a folder. What is there is kept if the documents, the
    tokenizer and the files on disk are those of the manifest.

    Args:
        folder: Where the shards go.
        language: Language code.
        split: "train" or "heldout".
        documents: A `TrainingText` or any collection of documents that can be read twice.
        tokenizer: Encodes them.
        about: Facts for the manifest (source, licence, split rule); a `TrainingText` knows its own.

    Returns:
        The manifest's entry: `tokens`, `bytes`, `documents`, `dtype`, `sha256`, `idx_sha256`,
        `text_sha256`, what `about` says, and of a `TrainingText` counts of what was `dropped`.

    Raises:
        InputError: No text, the folder holds shards of another tokenizer, or a text that the
            tokenizer does not give back byte for byte.
        UsageError: `documents` is an iterator, which can be read only once.
    """
    if isinstance(documents, Iterator):
        raise UsageError(
            f"the documents of {language} can be read only once",
            hint="pass a list",
        )
    folder = Path(folder)
    facts = dict(about or (documents.about if isinstance(documents, TrainingText) else {}))
    key = f"{language}.{split}"
    manifest = _manifest_for(folder, tokenizer)
    known = manifest["shards"].get(key)
    if known and not _damage(folder, key, known) and known["text_sha256"] == _text_hash(documents):
        return dict(known)
    folder.mkdir(parents=True, exist_ok=True)
    entry = _write(folder, key, documents, tokenizer)
    entry = {"language": language, "split": split, **entry, **facts}
    if isinstance(documents, TrainingText) and documents.dropped:
        entry["dropped"] = dict(documents.dropped)
    manifest["shards"][key] = entry
    write_json(folder / MANIFEST, manifest)
    return entry


def _manifest_for(folder: Path, tokenizer: Tokenizer | ModelTokenizer) -> dict[str, Any]:
    """The folder's manifest, or a new one; it belongs to one tokenizer."""
    path = folder / MANIFEST
    if not path.exists() or _is_older(path):
        return {
            "schema": SCHEMA,
            "tokenizer_sha256": tokenizer.hash,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "shards": {},
        }
    manifest = _read_manifest(folder)
    if manifest["tokenizer_sha256"] != tokenizer.hash:
        raise InputError(
            f"'{folder}' holds shards of another tokenizer",
            hint="use one folder for each tokenizer, or delete this one",
        )
    return manifest


def _is_older(path: Path) -> bool:
    """Whether shards are of the schema before, which held no sizes of documents."""
    document = read_json(path)
    return isinstance(document, dict) and document.get("schema") == "repsim-shards/1"


def _text_hash(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(_framed(document))
    return digest.hexdigest()


def _framed(document: Document) -> bytes:
    """Id and text, each after its length, so that borders count."""
    parts = (document.id.encode(), document.text.encode())
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


@dataclasses.dataclass
class _Writer:
    """Appends documents to an open token file and counts."""

    tokenizer: Tokenizer | ModelTokenizer
    dtype: np.dtype[Any]
    digest: Any = dataclasses.field(default_factory=hashlib.sha256)
    text_digest: Any = dataclasses.field(default_factory=hashlib.sha256)
    starts: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    sizes: array[int] = dataclasses.field(default_factory=lambda: array("q"))
    tokens: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        known = self.tokenizer
        self._byte_lengths = token_byte_lengths(known) if isinstance(known, Tokenizer) else None

    def add(self, batch: list[Document], handle: Any) -> None:
        """Encode a batch, check that no byte is lost (as far as tokens stand for bytes), write."""
        bos = np.array([self.tokenizer.bos_id])
        pieces = self.tokenizer.encode_batch([document.text for document in batch])
        for document, ids in zip(batch, pieces, strict=True):
            size = len(document.text.encode())
            if self._byte_lengths is not None and int(self._byte_lengths[ids].sum()) != size:
                raise InputError(
                    f"the tokenizer does not give document '{document.id}' back byte for byte",
                    hint="use a tokenizer from train_tokenizer",
                )
            self.text_digest.update(_framed(document))
            self.starts.append(self.tokens)
            self.sizes.append(size)
            self.tokens += len(ids) + 1
            self.bytes += size
            raw = np.concatenate([bos, ids]).astype(self.dtype).tobytes()
            self.digest.update(raw)
            handle.write(raw)


def _write(
    folder: Path, key: str, documents: Iterable[Document], tokenizer: Tokenizer | ModelTokenizer
) -> dict[str, Any]:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    writer = _Writer(tokenizer, dtype)
    bin_path, idx_path = _paths(folder, key)
    with (
        written_aside(bin_path) as aside,
        aside.open("wb") as handle,
        progress(f"tokenising {key}", unit="doc") as bar,
    ):
        for batch in batches(documents, BATCH_CHARACTERS):
            writer.add(batch, handle)
            bar.update(len(batch))
        if not writer.starts:
            raise InputError(f"there are no documents for {key}")
    with written_aside(idx_path) as aside, aside.open("wb") as handle:
        np.save(handle, np.array([writer.starts, writer.sizes], dtype="<i8"))
    return {
        "dtype": "uint16" if dtype.itemsize == 2 else "uint32",
        "tokens": writer.tokens,
        "bytes": writer.bytes,
        "documents": len(writer.starts),
        "sha256": writer.digest.hexdigest(),
        "idx_sha256": _file_hash(idx_path),
        "text_sha256": writer.text_digest.hexdigest(),
    }


def _paths(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.bin", folder / f"{key}.idx.npy"


def _file_hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _damage(folder: Path, key: str, entry: Mapping[str, Any], *, verify: bool = True) -> str | None:
    """What is wrong with the files of one shard; None if nothing is."""
    bin_path, idx_path = _paths(folder, key)
    for path in (bin_path, idx_path):
        if not path.is_file():
            return f"token shard '{path}' is missing"
    wanted = entry["tokens"] * np.dtype(entry["dtype"]).itemsize
    found = bin_path.stat().st_size
    if found != wanted:
        return f"token shard '{bin_path}' has {found} bytes, its manifest says {wanted}"
    if verify and _file_hash(bin_path) != entry["sha256"]:
        return f"token shard '{bin_path}' is damaged: its SHA-256 is not that of the manifest"
    if _file_hash(idx_path) != entry["idx_sha256"]:
        return f"document index '{idx_path}' is damaged: its SHA-256 is not that of the manifest"
    return None


def shard_damage(folder: str | os.PathLike[str]) -> str | None:
    """What is wrong with the manifest or a file of a folder of shards; None if nothing is."""
    try:
        manifest = _read_manifest(Path(folder))
        for key, entry in manifest["shards"].items():
            if damage := _damage(Path(folder), key, entry):
                return damage
    except InputError as error:
        return error.what
    except (KeyError, TypeError, AttributeError) as error:
        return f"'{Path(folder) / MANIFEST}' is damaged ({type(error).__name__}: {error})"
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"'{folder}' holds no token shards: there is no {MANIFEST}")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise InputError(f"'{path}' is not a manifest of token shards ({SCHEMA})", hint=_REMAKE)
    return manifest


class TokenShards:
    """A folder of token shards, mapped into memory language by language.

    Attributes:
        folder: Where they lie.
        manifest: The manifest as read.

    Example:
        >>> import tempfile
        >>> from repsim.corpora.tokenizers import train_tokenizer
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_shards(folder, "eng_Latn", "train", [Document("1", "ab"), Document("2", "c")],
        ...                  train_tokenizer({}, kind="bytes"))
        >>> shards = TokenShards.open(folder)
        >>> shards.tokens("eng_Latn").tolist(), shards.documents("eng_Latn").tolist()
        ([0, 67, 68, 0, 69], [0, 3])
        >>> shards.n_tokens("eng_Latn"), shards.n_bytes("eng_Latn")
        (5, 3)
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], *, verify: bool = True) -> None:
        self.folder, self.manifest = folder, manifest
        self._verify = verify
        self._open: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> TokenShards:
        """Open a folder; token files are opened, and checked, when they are first asked for.

        Args:
            folder: Where they lie.
            verify: Compare the SHA-256 of each token file; sizes are always compared.
        """
        folder = Path(folder)
        return cls(folder, _read_manifest(folder), verify=verify)

    def languages(self, split: str = "train") -> tuple[str, ...]:
        """Languages that have this split, sorted."""
        entries = self.manifest["shards"].values()
        return tuple(sorted(e["language"] for e in entries if e["split"] == split))

    def tokens(self, language: str, split: str = "train") -> np.ndarray:
        """Tokens of a language and split, `[n_tokens]` uint16 or uint32, a read-only memory map."""
        return self._map(language, split)[0]

    def documents(self, language: str, split: str = "train") -> np.ndarray:
        """Index of the first token (`<bos>`) of each document, `[n_documents]` int64."""
        return self._map(language, split)[1][0]

    def sizes(self, language: str, split: str = "train") -> np.ndarray:
        """UTF-8 bytes of each document, `[n_documents]` int64."""
        return self._map(language, split)[1][1]

    def n_tokens(self, language: str, split: str = "train") -> int:
        """Number of tokens, `<bos>` included."""
        return int(self._entry(language, split)["tokens"])

    def n_bytes(self, language: str, split: str = "train") -> int:
        """UTF-8 bytes of the text."""
        return int(self._entry(language, split)["bytes"])

    def n_documents(self, language: str, split: str = "train") -> int:
        """Number of documents."""
        return int(self._entry(language, split)["documents"])

    def token_counts(self, language: str, split: str = "train") -> np.ndarray:
        """How often each token occurs, `[vocab_size]` int64; read a million tokens at a time."""
        tokens = self.tokens(language, split)
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(tokens), 1 << 20):
            counts += np.bincount(tokens[start : start + (1 << 20)], minlength=len(counts))
        return counts

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding that the tokens index."""
        return int(self.manifest["vocab_size"])

    @property
    def tokenizer_hash(self) -> str:
        """Hash of the tokenizer that made the tokens."""
        return str(self.manifest["tokenizer_sha256"])

    def _entry(self, language: str, split: str) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = self.manifest["shards"][f"{language}.{split}"]
        except KeyError:
            have = ", ".join(sorted(self.manifest["shards"])) or "nothing"
            raise InputError(
                f"'{self.folder}' has no shard {language}.{split}", hint=f"it has: {have}"
            ) from None
        return entry

    def _map(self, language: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        key = f"{language}.{split}"
        if key not in self._open:
            entry = self._entry(language, split)
            if damage := _damage(self.folder, key, entry, verify=self._verify):
                raise InputError(damage, hint=_REMAKE)
            bin_path, idx_path = _paths(self.folder, key)
            dtype = np.dtype(entry["dtype"]).newbyteorder("<")
            self._open[key] = np.memmap(bin_path, dtype=dtype, mode="r"), np.load(idx_path)
        return self._open[key]


class WindowSource:
    """Training windows: window w is the `context + 1` tokens from token `w * context` on.

    Inputs are the first `context` of them, targets the last; neighbours share one token, so that
    every token but the first of the shard is a target once. Documents follow each other and may
    begin inside a window, each with its `<bos>`.

    Args:
        shards: The open shards.
        split: "train" or "heldout".
        context: Tokens that the model reads.

    Attributes:
        lengths: Language -> number of whole windows (0 if the text is shorter than one).

    Raises:
        UsageError: A context below 1.
    """

    def __init__(self, shards: TokenShards, split: str, context: int) -> None:
        if context < 1:
            raise UsageError(f"a context of {context} tokens is not possible")
        self.shards, self.split, self.context = shards, split, context
        self.lengths = {
            language: (shards.n_tokens(language, split) - 1) // context
            for language in shards.languages(split)
        }

    def batch(self, languages: Sequence[str] | np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Windows of these languages and numbers, `[b]` each, as rows: `[b, context + 1]` int64."""
        codes, windows = np.asarray(languages), np.asarray(windows, dtype=np.int64)
        if codes.shape != windows.shape:
            raise UsageError(f"{codes.size} languages for {windows.size} windows")
        rows = np.empty((len(windows), self.context + 1), dtype=np.int64)
        span = np.arange(self.context + 1)
        for language in np.unique(codes):
            mine = np.flatnonzero(codes == language)
            starts = windows[mine]
            count = self.lengths.get(str(language), 0)
            if starts.min() < 0 or starts.max() >= count:
                raise UsageError(
                    f"{language}.{self.split} has {count} windows, asked for "
                    f"{int(starts.min())} to {int(starts.max())}"
                )
            tokens = self.shards.tokens(str(language), self.split)
            rows[mine] = tokens[starts[:, None] * self.context + span]
        return rows
