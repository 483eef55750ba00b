"""Tokenizers: exact round trips, exact byte counts, one hash."""

import json

import numpy as np
import pytest

from repsim.core import InputError, UsageError
from repsim.core.files import hash_files
from repsim.corpora.builtin_training import EDITIONS, bible_text
from repsim.corpora.tokenizers import (
    SPECIAL,
    load_tokenizer,
    save_tokenizer,
    token_byte_lengths,
    tokenizer_hash,
    train_tokenizer,
)

ODD = "a <bos> b<eos>  \t\r\n\x00 é é 日本 👩‍👩‍👧 \u202e\ufeff İ 'll 12,5"


@pytest.fixture(scope="module")
def joint():
    texts = {lang: [d.text for d in bible_text(lang, "heldout")] for lang in EDITIONS}
    return train_tokenizer(texts, vocab_size=1000)


@pytest.fixture(scope="module")
def plain_bytes():
    return train_tokenizer({}, kind="bytes")


@pytest.fixture(params=["joint", "plain_bytes"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("language", sorted(EDITIONS))
def test_round_trip_and_byte_counts_are_exact_in_every_shipped_language(tokenizer, language):
    texts = [document.text for document in bible_text(language, "heldout")]
    lengths = token_byte_lengths(tokenizer)
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert lengths[ids].sum() == len(text.encode())


def test_odd_text_comes_back_and_special_names_in_it_are_text(tokenizer):
    ids = tokenizer.encode(ODD)
    assert tokenizer.decode(ids) == ODD
    assert token_byte_lengths(tokenizer)[ids].sum() == len(ODD.encode())
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} & set(ids.tolist())


def test_byte_lengths_are_those_of_the_decoded_bytes(joint):
    lengths = token_byte_lengths(joint)
    # A byte-level token has one character per byte: "ÐµÐ½" spells the four bytes of "ен".
    for token, text in {"Ġand": " and", "ÐµÐ½": "ен", "×ķ×ľ": "ול"}.items():
        assert lengths[joint.backend.token_to_id(token)] == len(text.encode())
    assert lengths[list(joint.pad_rows)].sum() == 0
    assert [lengths[joint.backend.token_to_id(token)] for token in SPECIAL] == [0, 0, 0]


def test_the_vocabulary_is_padded_to_whole_tiles(joint, plain_bytes):
    assert (joint.n_tokens, joint.vocab_size) == (1000, 1024)
    assert joint.pad_rows == range(1000, 1024)
    assert (plain_bytes.n_tokens, plain_bytes.vocab_size) == (259, 384)
    assert len(joint) == joint.vocab_size


def test_bytes_are_one_token_each(plain_bytes):
    assert len(plain_bytes.encode(ODD)) == len(ODD.encode())


def test_training_is_deterministic_and_blind_to_the_order_of_languages():
    texts = {"eng_Latn": [f"the cat {i} sat" for i in range(99)], "deu_Latn": ["die Katze"] * 300}
    first = train_tokenizer(texts, vocab_size=300)
    assert first.hash == train_tokenizer(dict(reversed(texts.items())), vocab_size=300).hash


def test_each_language_has_an_equal_share_of_the_sample():
    # With unequal shares the much longer first text would take all merges.
    texts = {"a": ["xyxyxyxy xyxyxyxy"] * 5000, "b": ["the cat sat on the mat"] * 20}
    tokenizer = train_tokenizer(texts, vocab_size=290)
    assert len(tokenizer.encode("the cat sat on the mat")) < 12


def test_a_seed_chooses_among_more_text_than_is_wanted():
    texts = {"a": [f"{i * 7919 % 10007} word{i % 97} thing{i % 89}" for i in range(3000)]}
    sampled = [
        train_tokenizer(texts, vocab_size=400, sample_bytes=2000, seed=seed).hash
        for seed in (0, 0, 1)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.hash == tokenizer.hash == tokenizer_hash(tmp_path)
    assert tokenizer_hash(tmp_path) == hash_files([tmp_path / "tokenizer.json"])
    assert (loaded.kind, loaded.languages) == (tokenizer.kind, tokenizer.languages)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.encode(ODD).tolist() == tokenizer.encode(ODD).tolist()


def test_transformers_reads_the_folder_as_it_is(joint, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(joint, tmp_path / "a")
    outside = AutoTokenizer.from_pretrained(tmp_path / "a")
    text = "In the beginning, God — и Бог ."
    assert outside(text).input_ids == [joint.bos_id, *joint.encode(text).tolist()]
    assert outside.decode(outside(text).input_ids, skip_special_tokens=True) == text
    assert outside.bos_token_id == joint.bos_id
    assert outside.pad_token_id == joint.pad_id
    outside.save_pretrained(tmp_path / "b")
    assert tokenizer_hash(tmp_path / "b") == joint.hash


def test_padding_left_by_another_user_does_not_change_the_tokens(joint, tmp_path):
    save_tokenizer(joint, tmp_path)
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(pad_id=2, pad_token="<pad>")
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(ODD).tolist() == joint.encode(ODD).tolist()
    assert loaded.hash == joint.hash


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": {"a": ["x"]}, "vocab_size": 200}, UsageError, "a vocabulary of 200"),
        ({"texts": {"a": ["x"]}, "kind": "words"}, UsageError, "unknown tokenizer kind 'words'"),
        ({"texts": {}}, InputError, "needs text to be trained on"),
        ({"texts": {"a": ["x"], "b": []}}, InputError, "no text to train a tokenizer on in b"),
    ],
)
def test_impossible_tokenizers_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        train_tokenizer(**arguments)


def test_what_is_no_tokenizer_of_ours_is_refused(tmp_path, plain_bytes):
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        tokenizer_hash(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="not a readable tokenizer"):
        load_tokenizer(tmp_path)
    save_tokenizer(plain_bytes, tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="not a byte-level tokenizer"):
        load_tokenizer(tmp_path)


def test_encodings_are_arrays_of_int64(joint):
    ids = joint.encode("word")
    assert ids.dtype == np.int64
    assert joint.encode("").tolist() == []
