"""Where training text may lie: single files, pieces, folders, patterns, tables, packed or not."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repsim.core import InputError, UsageError
from repsim.corpora.documents import Document
from repsim.corpora.text_address import TextAddress
from repsim.corpora.training_text import load_training_text


def texts(spec, language="eng_Latn", **more):
    return list(load_training_text(str(spec), [language], **more)[language])


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstandard(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


ROWS = [{"id": f"k{k}", "text": f"the text of number {k}"} for k in range(40)]


@pytest.fixture
def held(tmp_path):
    """A folder whose held-out file exists, so that every training document is in training."""
    (tmp_path / "eng_Latn.heldout.txt").write_text("held")
    return tmp_path


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress),
     (".zst", zstandard)],
)  # fmt: skip
def test_packed_files_give_the_same_documents(held, suffix, pack):
    (held / f"eng_Latn.train.jsonl{suffix}").write_bytes(pack(lines(*ROWS)))
    assert texts(held) == [Document(r["id"], r["text"]) for r in ROWS]


def test_a_damaged_packed_file_is_named(held):
    (held / "eng_Latn.train.jsonl.zst").write_bytes(zstandard(lines(*ROWS))[:-9])
    with pytest.raises(InputError, match=r"zst' is damaged or cut short"):
        texts(held)


def test_a_table_is_read_by_columns(held):
    table = pa.table({"url": ["a", "b"], "content": ["One.", "Two."], "score": [1.0, 2.0]})
    pq.write_table(table, held / "eng_Latn.train.parquet")
    assert texts(f"{held}?text=content&id=url") == [Document("a", "One."), Document("b", "Two.")]
    assert texts(f"{held}?text=content")[1].id == "00000001"
    with pytest.raises(InputError, match=r"no field 'text'.*url, content, score.*\?text=NAME"):
        texts(held)
    (held / "eng_Latn.train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        texts(held)


def test_numbered_pieces_are_one_text(held):
    for k in range(3):
        (held / f"eng_Latn.train-0000{k}-of-00003.txt").write_text(f"a{k}\n\nb{k}\n")
    assert [d.text for d in texts(held)] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert len({d.id for d in texts(held)}) == 6
    (held / "eng_Latn.train-00001-of-00003.txt").unlink()
    with pytest.raises(InputError, match="has 2 of the 3 pieces of 'eng_Latn.train'"):
        texts(held)


def test_a_folder_for_each_language_may_hold_held_out_files(tmp_path):
    for language in ("eng_Latn", "deu_Latn"):
        (tmp_path / language / "more").mkdir(parents=True)
        (tmp_path / language / "a.jsonl").write_bytes(lines({"text": f"{language} one"}))
        (tmp_path / language / "more" / "b.jsonl").write_bytes(lines({"text": "two"}))
        (tmp_path / language / "test.jsonl").write_bytes(lines({"text": "three"}))
        (tmp_path / language / "notes.md").write_text("no text")
    assert [d.text for d in texts(tmp_path, "deu_Latn")] == ["deu_Latn one", "two"]
    assert [d.text for d in texts(tmp_path, "deu_Latn", split="heldout")] == ["three"]


def test_a_pattern_names_files_below_its_first_star(tmp_path):
    top = tmp_path / "test" / "eng"  # a word above the pattern says nothing of the split
    top.mkdir(parents=True)
    for name, text in (("part-1.txt", "one"), ("part-2.txt", "two"), ("dev.txt", "held")):
        (top / name).write_text(text)
    assert [d.text for d in texts(f"{tmp_path}/test/*/*.txt")] == ["one", "two"]
    assert [d.text for d in texts(f"{tmp_path}/test/*/*.txt", split="heldout")] == ["held"]
    (tmp_path / "eng_Latn").mkdir()
    (tmp_path / "eng_Latn" / "x.txt").write_text("mine")
    (tmp_path / "eng_Latn" / "dev.txt").write_text("held")
    assert [d.text for d in texts(f"{tmp_path}/{{language}}/*.txt")] == ["mine"]


def test_one_file_may_hold_several_languages(tmp_path):
    rows = [{"id": f"{k}{c}", "text": f"{c} number {k}", "lang": c}
            for k in range(200) for c in ("en", "deu_Latn", "fr")]  # fmt: skip
    path = tmp_path / "all.jsonl"
    path.write_bytes(lines(*rows))
    for language, code in (("eng_Latn", "en"), ("deu_Latn", "deu_Latn")):
        found = [*texts(f"{path}?language=lang", language),
                 *texts(f"{path}?language=lang", language, split="heldout")]  # fmt: skip
        assert sorted(d.id for d in found) == sorted(f"{k}{code}" for k in range(200))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("{}/none.jsonl", InputError, "not a folder, a file or a pattern"),
        ("{}/*.csv", InputError, "not a folder, a file or a pattern"),
        ("{}/table.csv", InputError, "is no file of documents .*known: txt, jsonl"),
        ("{}?txt=content", UsageError, "unknown option of the text .*did you mean 'text'"),
        ("{}?duplicates=all", UsageError, "duplicates are 'drop' or 'keep'"),
        ("?text=a", UsageError, "names no text"),
    ],
)
def test_what_cannot_be_read_says_what_can(tmp_path, spec, error, message):
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(error, match=message):
        texts(spec.format(tmp_path))


def test_an_address_keeps_its_defaults():
    assert TextAddress.parse("bible") == TextAddress("bible", "text", "id", "", "drop")
