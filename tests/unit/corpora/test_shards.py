"""Token shards: what goes in comes out, counted exactly, once."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from repsim.core import InputError, UsageError
from repsim.corpora.documents import Document, TrainingText
from repsim.corpora.shards import TokenShards, WindowSource, write_shards
from repsim.corpora.tokenizers import Tokenizer, train_tokenizer

DOCUMENTS = [Document(str(i), f"Document {i}: naïve, день. " * (i % 5 + 1)) for i in range(40)]
OTHERS = [Document(str(i), f"Ganz anders {i}") for i in range(9)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer({"x": [d.text for d in DOCUMENTS]}, vocab_size=300)


@pytest.fixture
def folder(tmp_path, tokenizer):
    write_shards(tmp_path, "eng_Latn", "train", DOCUMENTS, tokenizer)
    write_shards(tmp_path, "deu_Latn", "train", OTHERS, tokenizer)
    return tmp_path


def test_documents_come_back_from_their_starts(folder, tokenizer):
    shards = TokenShards.open(folder)
    tokens, starts = shards.tokens("eng_Latn"), shards.documents("eng_Latn")
    assert starts.dtype == np.int64
    pieces = np.split(tokens, starts[1:])
    assert all(piece[0] == tokenizer.bos_id for piece in pieces)
    assert [tokenizer.decode(piece[1:]) for piece in pieces] == [d.text for d in DOCUMENTS]


def test_counts_are_exact(folder):
    shards = TokenShards.open(folder)
    assert shards.n_bytes("eng_Latn") == sum(len(d.text.encode()) for d in DOCUMENTS)
    assert shards.n_tokens("eng_Latn") == len(shards.tokens("eng_Latn"))
    assert shards.n_documents("eng_Latn") == len(shards.documents("eng_Latn")) == 40
    assert shards.languages() == ("deu_Latn", "eng_Latn")
    assert shards.languages("heldout") == ()


def test_files_are_raw_little_endian_words(folder):
    shards = TokenShards.open(folder)
    raw = (folder / "eng_Latn.train.bin").read_bytes()
    assert np.array_equal(np.frombuffer(raw, "<u2"), shards.tokens("eng_Latn"))
    assert not shards.tokens("eng_Latn").flags.writeable


def test_a_large_vocabulary_is_stored_in_four_bytes(tmp_path, tokenizer):
    wide = Tokenizer(tokenizer.backend, vocab_size=70_016)
    entry = write_shards(tmp_path, "eng_Latn", "train", DOCUMENTS, wide)
    assert entry["dtype"] == "uint32"
    assert TokenShards.open(tmp_path).tokens("eng_Latn").dtype == np.dtype("<u4")
    assert (tmp_path / "eng_Latn.train.bin").stat().st_size == 4 * entry["tokens"]


def test_the_manifest_states_source_licence_split_and_tokenizer(tmp_path, tokenizer):
    text = TrainingText(
        "demo", "eng_Latn", lambda: iter(DOCUMENTS), "train", "a book", "CC0", "by page"
    )
    entry = write_shards(tmp_path, "eng_Latn", "train", text, tokenizer)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["tokenizer_sha256"] == tokenizer.hash
    assert manifest["shards"]["eng_Latn.train"] == entry
    assert (entry["source"], entry["licence"], entry["split_rule"]) == ("a book", "CC0", "by page")


def test_what_is_done_is_not_done_again(folder, tokenizer):
    path = folder / "eng_Latn.train.bin"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    write_shards(folder, "eng_Latn", "train", list(DOCUMENTS), tokenizer)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("change", ["text", "file", "index"])
def test_what_has_changed_is_done_again(folder, tokenizer, change):
    documents = list(DOCUMENTS)
    if change == "text":
        documents[3] = Document("3", "something else")
    elif change == "file":
        (folder / "eng_Latn.train.bin").write_bytes(b"\0\0")
    else:
        (folder / "eng_Latn.train.idx.npy").unlink()
    write_shards(folder, "eng_Latn", "train", documents, tokenizer)
    shards = TokenShards.open(folder)
    start = shards.documents("eng_Latn")[3:5]
    assert tokenizer.decode(shards.tokens("eng_Latn")[start[0] + 1 : start[1]]) == documents[3].text


def test_an_interrupted_language_leaves_the_others_whole_and_no_trace(folder, tokenizer):
    def broken():
        yield from OTHERS
        raise KeyboardInterrupt

    text = TrainingText("broken", "fra_Latn", broken)
    with pytest.raises(KeyboardInterrupt):
        write_shards(folder, "fra_Latn", "train", text, tokenizer)
    assert TokenShards.open(folder).languages() == ("deu_Latn", "eng_Latn")
    assert not [path for path in folder.iterdir() if "fra" in path.name]
    write_shards(folder, "fra_Latn", "train", OTHERS, tokenizer)
    assert TokenShards.open(folder).n_documents("fra_Latn") == len(OTHERS)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "eng_Latn.train.bin").unlink(), r"eng_Latn\.train\.bin' is missing"),
        (lambda f: (f / "eng_Latn.train.idx.npy").unlink(), r"idx\.npy' is missing"),
        (lambda f: os.truncate(f / "eng_Latn.train.bin", 100), "has 100 bytes, its manifest says"),
        (lambda f: flip(f / "eng_Latn.train.bin"), r"eng_Latn\.train\.bin' is damaged"),
        (lambda f: flip(f / "eng_Latn.train.idx.npy"), r"idx\.npy' is damaged"),
    ],
)
def test_damage_is_named_by_file_and_concerns_one_language(folder, damage, message):
    damage(folder)
    shards = TokenShards.open(folder)
    with pytest.raises(InputError, match=message) as caught:
        shards.tokens("eng_Latn")
    assert "delete the folder" in str(caught.value)
    assert len(shards.tokens("deu_Latn")) == shards.n_tokens("deu_Latn")


def test_the_hash_check_can_be_left_out(folder):
    flip(folder / "eng_Latn.train.bin")
    assert len(TokenShards.open(folder, verify=False).tokens("eng_Latn"))


def test_a_folder_without_shards_or_with_another_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no token shards"):
        TokenShards.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "other"}')
    with pytest.raises(InputError, match="not a manifest of token shards"):
        TokenShards.open(tmp_path)


def test_an_unknown_language_names_those_that_are_there(folder):
    with pytest.raises(InputError, match=r"no shard fra_Latn\.train .*deu_Latn\.train"):
        TokenShards.open(folder).n_tokens("fra_Latn")


def test_one_folder_belongs_to_one_tokenizer(folder):
    with pytest.raises(InputError, match="shards of another tokenizer"):
        write_shards(folder, "fra_Latn", "train", OTHERS, train_tokenizer({}, kind="bytes"))


def test_no_documents_and_documents_that_can_be_read_once_are_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="no documents for eng_Latn"):
        write_shards(tmp_path, "eng_Latn", "train", [], tokenizer)
    with pytest.raises(UsageError, match="can be read only once"):
        write_shards(tmp_path, "eng_Latn", "train", iter(DOCUMENTS), tokenizer)


def test_a_tokenizer_that_loses_bytes_is_refused(tmp_path, tokenizer):
    from tokenizers import Tokenizer as Backend
    from tokenizers import normalizers

    backend = Backend.from_str(tokenizer.backend.to_str())
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    with pytest.raises(InputError, match="does not give document '0' back byte for byte"):
        write_shards(tmp_path, "eng_Latn", "train", DOCUMENTS, Tokenizer(backend, 384))


def test_windows_predict_every_token_but_the_first_once(folder):
    shards = TokenShards.open(folder)
    source = WindowSource(shards, "train", 16)
    n = source.lengths["eng_Latn"]
    assert n == (shards.n_tokens("eng_Latn") - 1) // 16
    rows = source.batch(["eng_Latn"] * n, np.arange(n))
    assert rows.shape == (n, 17)
    assert rows.dtype == np.int64
    assert np.array_equal(rows[:, 1:].ravel(), shards.tokens("eng_Latn")[1 : 16 * n + 1])
    assert np.array_equal(rows[1:, 0], rows[:-1, -1])


def test_a_batch_mixes_languages_row_by_row(folder):
    source = WindowSource(TokenShards.open(folder), "train", 8)
    languages = np.array(["deu_Latn", "eng_Latn", "deu_Latn"])
    rows = source.batch(languages, np.array([2, 5, 0]))
    for row, language, window in zip(rows, languages, [2, 5, 0], strict=True):
        assert np.array_equal(row, source.batch([language], np.array([window]))[0])


@pytest.mark.parametrize(
    ("languages", "windows", "message"),
    [
        (["eng_Latn"], [10**6], "asked for 1000000"),
        (["eng_Latn"], [-1], "asked for -1"),
        (["fra_Latn"], [0], "fra_Latn.train has 0 windows"),
        (["eng_Latn"], [0, 1], "1 languages for 2 windows"),
    ],
)
def test_windows_that_do_not_exist_are_refused(folder, languages, windows, message):
    source = WindowSource(TokenShards.open(folder), "train", 8)
    with pytest.raises(UsageError, match=message):
        source.batch(languages, np.array(windows))


def test_a_context_of_nothing_is_refused(folder):
    with pytest.raises(UsageError, match="a context of 0 tokens"):
        WindowSource(TokenShards.open(folder), "train", 0)


BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pyarrow", "pydantic", "datasets", "scipy", "sklearn", "click",
                                  "matplotlib", "pandas", "jinja2", "threadpoolctl"}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Refuse())
from repsim.corpora import (DataOrder, TokenShards, WindowSource, load_training_text,
                            save_tokenizer, train_tokenizer, write_shards)
import numpy as np
out = sys.argv[1]
texts = load_training_text("bible", ["eng_Latn", "rus_Cyrl"], split="heldout")
tokenizer = train_tokenizer({name: text.texts() for name, text in texts.items()}, vocab_size=600)
save_tokenizer(tokenizer, out)
for name, text in texts.items():
    write_shards(out, name, "heldout", text, tokenizer)
source = WindowSource(TokenShards.open(out), "heldout", 64)
rows = source.batch(*DataOrder(source.lengths, 0.5, 7).samples(np.arange(500)))
from repsim.core.files import hash_bytes
print(tokenizer.hash, hash_bytes(rows.tobytes()))
"""


def test_the_whole_path_runs_on_a_bare_machine_and_alike_in_every_process(tmp_path):
    outputs = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", BARE, str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1
