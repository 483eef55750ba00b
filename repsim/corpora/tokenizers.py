"""Byte-level tokenizers: one for all languages of a study, one per language, or plain bytes.

Byte-level BPE (Sennrich et al. 2016 over bytes, as in GPT-2) has no unknown token: every text comes
back exactly, and the number of bytes behind each token is known, so bits per byte are exact.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_files, read_json, write_json, write_text
from repsim.corpora.data_order import seeded_permutation

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

Kind = Literal["joint", "bytes"]
Algorithm = Literal["bpe", "unigram"]
BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
SPECIAL = (BOS, EOS, PAD)
FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
#: Rows of the embedding come in multiples of this, which matrix units want.
MULTIPLE = 128
#: Most bytes of all languages together that a tokenizer is trained on.
SAMPLE = 128_000_000
#: The smallest vocabulary that holds the specials and every byte.
SMALLEST = 256 + len(SPECIAL)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A byte-level tokenizer and the size of the embedding that goes with it.

    Attributes:
        backend: The `tokenizers.Tokenizer`.
        vocab_size: Rows of the embedding, a multiple of 128.
        kind: "joint" (BPE over all its languages, one or more) or "bytes".
        languages: Languages that it was trained on.

    Example:
        >>> tokenizer = train_tokenizer({}, kind="bytes")
        >>> tokenizer.encode("né").tolist(), tokenizer.decode(tokenizer.encode("né"))
        ([80, 130, 105], 'né')
        >>> tokenizer.n_tokens, tokenizer.vocab_size, tokenizer.pad_rows
        (259, 384, range(259, 384))
    """

    backend: Backend
    vocab_size: int
    kind: Kind = "joint"
    languages: tuple[str, ...] = ()

    def encode(self, text: str) -> np.ndarray:
        """Token ids of a text, `[n]` int64; no `<bos>` is added, "<bos>" in the text is text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of many texts, each `[n]` int64."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, specials included; inverse of `encode`."""
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=False))

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def n_tokens(self) -> int:
        """Tokens that exist, specials included; rows from here on are padding."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def pad_rows(self) -> range:
        """Rows of the embedding that belong to no token: keep them out of merges and measures."""
        return range(self.n_tokens, self.vocab_size)

    @property
    def bos_id(self) -> int:
        """Id of `<bos>`, which starts every document."""
        return self._special(BOS)

    @property
    def eos_id(self) -> int:
        """Id of `<eos>`; shards hold none, a document ends where the next `<bos>` stands."""
        return self._special(EOS)

    @property
    def pad_id(self) -> int:
        """Id of `<pad>`."""
        return self._special(PAD)

    def special_ids(self) -> list[int]:
        """Ids that stand for no text."""
        return [self._special(token) for token in SPECIAL]

    @property
    def hash(self) -> str:
        """SHA-256 of the `tokenizer.json` that `save_tokenizer` writes."""
        return tokenizer_hash(self)

    def _special(self, token: str) -> int:
        number = self.backend.token_to_id(token)
        if number is None:
            raise InputError(f"the tokenizer has no token {token}")
        return int(number)


def train_tokenizer(
    texts: Mapping[str, Iterable[str]],
    *,
    vocab_size: int = 4096,
    kind: Kind = "joint",
    algorithm: Algorithm = "bpe",
    sample_bytes: int = 8_000_000,
    seed: int = 0,
) -> Tokenizer:
    """Train one byte-level tokenizer on a balanced sample: equal UTF-8 bytes of every language.

    Pass one language for a tokenizer of its own. Kind "bytes" needs no text.

    Args:
        texts: Language -> documents.
        vocab_size: Tokens wanted, specials and the 256 bytes included; fewer come of little text.
            The embedding is padded to a multiple of 128.
        kind: "joint" or "bytes".
        algorithm: "bpe", or "unigram" (Kudo 2018) over the same bytes.
        sample_bytes: Most bytes of a language to train on (of many languages less: 128 MB in all);
            the smallest language sets the amount for all.
        seed: Which documents of a longer text are taken.

    Raises:
        UsageError: A vocabulary that is too small for all bytes or too large, an unknown kind.
        InputError: A language without text.

    Example:
        >>> texts = {"eng_Latn": ["the cat and the dog"] * 9, "deu_Latn": ["die Katze"] * 9}
        >>> tokenizer = train_tokenizer(texts, vocab_size=272)
        >>> tokenizer.decode(tokenizer.encode("the Maus")), tokenizer.vocab_size
        ('the Maus', 384)
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    if kind not in ("joint", "bytes"):
        raise UsageError(f"unknown tokenizer kind '{kind}'", hint="'joint' or 'bytes'")
    wanted = SMALLEST if kind == "bytes" else vocab_size
    if not SMALLEST <= wanted <= 1 << 20:
        raise UsageError(
            f"a vocabulary of {vocab_size} is not possible",
            hint=f"{SMALLEST} (bytes and special tokens) to {1 << 20}",
        )
    if algorithm not in ("bpe", "unigram"):
        raise UsageError(f"unknown tokenizer algorithm '{algorithm}'", hint="'bpe' or 'unigram'")
    unigram = algorithm == "unigram" and kind != "bytes"
    backend = Backend(models.Unigram() if unigram else models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=kind != "bytes"
    )
    backend.decoder = decoders.ByteLevel()
    most = min(sample_bytes, SAMPLE // max(1, len(texts)))
    sample = [] if kind == "bytes" else _balanced(texts, most, seed)
    backend.train_from_iterator(sample, _trainer(wanted, unigram=unigram))
    return _finished(backend, kind, tuple(sorted(texts)))


def _trainer(vocab_size: int, *, unigram: bool) -> Any:
    """What finds the pieces: merges of frequent pairs, or a unigram model by EM."""
    from tokenizers import pre_tokenizers, trainers

    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "show_progress": False,
        "special_tokens": list(SPECIAL),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
    }
    if unigram:
        return trainers.UnigramTrainer(**common)
    return trainers.BpeTrainer(min_frequency=2, **common)


def _finished(backend: Backend, kind: Kind, languages: tuple[str, ...]) -> Tokenizer:
    """Let outside users get `<bos>` by default, while "<bos>" written in a text stays text."""
    from tokenizers import processors

    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, backend.token_to_id(BOS))],
    )
    backend.encode_special_tokens = True
    # Whoever saved the file last may have left his own.
    backend.no_padding()
    backend.no_truncation()
    rows = math.ceil(backend.get_vocab_size(with_added_tokens=True) / MULTIPLE) * MULTIPLE
    return Tokenizer(backend, vocab_size=rows, kind=kind, languages=languages)


def _balanced(texts: Mapping[str, Iterable[str]], most: int, seed: int) -> list[str]:
    """Documents of every language up to one common number of bytes, the last one cut."""
    if not texts:
        raise InputError("a tokenizer needs text to be trained on")
    pools = {language: _pool(texts[language], 4 * most) for language in sorted(texts)}
    sizes = {name: sum(len(text.encode()) for text in pool) for name, pool in pools.items()}
    if empty := [name for name, size in sizes.items() if size == 0]:
        raise InputError(f"no text to train a tokenizer on in {', '.join(empty)}")
    budget = min(most, *sizes.values())
    sample: list[str] = []
    for language, pool in pools.items():
        left = budget
        for i in seeded_permutation(len(pool), "tokenizer", seed, language):
            piece = pool[i].encode()[:left]
            sample.append(piece.decode(errors="ignore"))
            left -= len(piece)
            if left <= 0:
                break
    return sample


def _pool(documents: Iterable[str], most: int) -> list[str]:
    """The first documents, until there are `most` bytes of them."""
    pool, size = [], 0
    for text in documents:
        pool.append(text)
        size += len(text.encode())
        if size >= most:
            break
    return pool


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a folder that `AutoTokenizer` and `load_tokenizer` read: two JSON files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, _canonical(tokenizer))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1_000_000_000,
        "repsim": {
            "kind": tokenizer.kind,
            "languages": list(tokenizer.languages),
            "vocab_size": tokenizer.vocab_size,
            "pad_rows": [tokenizer.pad_rows.start, tokenizer.pad_rows.stop],
        },
    }
    write_json(folder / CONFIG, config)
    return folder


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote; InputError if it is damaged or not byte-level."""
    from tokenizers import Tokenizer as Backend

    path = Path(folder) / FILE
    if not path.is_file():
        raise InputError(f"there is no {FILE} in '{folder}'")
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:
        # The Rust side raises bare Exception for every kind of damage.
        raise InputError(f"'{path}' is not a readable tokenizer: {error}") from error
    missing = [token for token in SPECIAL if backend.token_to_id(token) is None]
    if missing or "ByteLevel" not in str(json.loads(backend.to_str())["pre_tokenizer"]):
        raise InputError(
            f"'{path}' is not a byte-level tokenizer with {', '.join(SPECIAL)}",
            hint="make one with train_tokenizer",
        )
    config = Path(folder) / CONFIG
    about: dict[str, Any] = read_json(config).get("repsim", {}) if config.is_file() else {}
    return _finished(backend, about.get("kind", "joint"), tuple(about.get("languages", ())))


def tokenizer_hash(tokenizer: Tokenizer | str | Path) -> str:
    """SHA-256 that tells tokenizers apart, of one or of the folder of one: of its `tokenizer.json`.

    Example:
        >>> tokenizer = train_tokenizer({}, kind="bytes")
        >>> tokenizer_hash(tokenizer) == tokenizer.hash, len(tokenizer.hash)
        (True, 64)
    """
    if isinstance(tokenizer, Tokenizer):
        # As hash_files does it: name, NUL, content.
        content = _canonical(tokenizer).encode()
        return hashlib.sha256(FILE.encode() + b"\0" + content).hexdigest()
    path = Path(tokenizer) / FILE
    if not path.is_file():
        raise InputError(f"there is no {FILE} in '{tokenizer}'")
    return hash_files([path])


def token_byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes behind each token, `[vocab_size]` int64, so that bits per byte need no decoding.

    A byte-level token is spelled with one printable character per byte. Specials and pad rows stand
    for no bytes.

    Example:
        >>> lengths = token_byte_lengths(train_tokenizer({}, kind="bytes"))
        >>> lengths.sum(), lengths[:4].tolist()
        (np.int64(256), [0, 0, 0, 1])
    """
    lengths = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for token, number in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        if token not in SPECIAL:
            lengths[number] = len(token)
    return lengths


def _canonical(tokenizer: Tokenizer) -> str:
    return str(tokenizer.backend.to_str(pretty=True))
