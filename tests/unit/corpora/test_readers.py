"""Every format is read, and every damaged input is named by file and line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repsim.core import InputError, ParallelCorpus, UsageError
from repsim.corpora import load_corpus

TSV = (
    "id\tdocument\teng_Latn\tdeu_Latn\n"
    "a\tp1\tOne.\tEins.\nb\tp1\tTwo.\tZwei.\nc\tp2\tThree.\tDrei.\n"
)
ENGLISH = ("One.", "Two.", "Three.")
GERMAN = ("Eins.", "Zwei.", "Drei.")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuses(spec: Any, message: str, kind: type[Exception] = InputError, **options: Any) -> None:
    with pytest.raises(kind, match=message):
        load_corpus(spec, **options)


# -- TSV -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", COMPRESS)
def test_tsv_is_read_plain_and_compressed(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"mine.tsv{suffix}", COMPRESS[suffix](TSV.encode()))
    corpus = load_corpus(path)
    assert corpus.name == "mine"
    assert corpus.ids == ("a", "b", "c")
    assert corpus.documents == ("p1", "p1", "p2")
    assert dict(corpus.sentences) == {"eng_Latn": ENGLISH, "deu_Latn": GERMAN}
    assert corpus.notes == ()
    assert str(path) in corpus.source


def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    plain = load_corpus(write(tmp_path / "a.tsv", TSV))
    other = write(tmp_path / "b.tsv", b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n").encode())
    assert load_corpus(other).hash == plain.hash


def test_unicode_line_separators_stay_inside_a_sentence(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.tsv", "en\tde\nOne\u2028more.\tEins.\n"))
    assert corpus["eng_Latn"] == ("One\u2028more.",)


def test_a_tsv_without_ids_is_numbered(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.tsv", "en\tfr\nOne.\tUn.\nTwo.\tDeux.\n"))
    assert corpus.ids == corpus.documents == ("1", "2")
    assert corpus.languages == ("eng_Latn", "fra_Latn")


def test_rows_without_a_chosen_language_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tsv", "en\tde\tfr\nOne.\t\tUn.\nTwo.\tZwei.\t\nThree.\tDrei.\tTrois.\n"
    )
    assert load_corpus(path, languages=["en", "de"])["eng_Latn"] == ("Two.", "Three.")
    corpus = load_corpus(path)
    assert corpus["fra_Latn"] == ("Trois.",)
    assert corpus.notes == (
        "2 of 3 rows left out: not in every language (deu_Latn lacks 1, fra_Latn lacks 1)",
    )
    assert corpus.describe()["notes"] == list(corpus.notes)
    refuses(path, "line 2: the sentence is empty in deu_Latn", languages=["de"], empty="refuse")


def test_no_common_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "en\tde\nOne.\t\n\tZwei.\nThree.\t\n")
    refuses(path, r"no sentence is there in all of eng_Latn, deu_Latn .*deu_Latn lacks 2 of 3")


def test_repeated_text_is_left_out_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "en\tde\nYes.\tJa.\nNo.\tNein.\nYep.\tJa.\nYes.\tDoch.\n")
    corpus = load_corpus(path)
    assert corpus["eng_Latn"] == ("Yes.", "No.")
    assert re.search(r"^2 of 4 rows left out.*line 4 repeats .*line 2 in deu_Latn", corpus.notes[0])
    assert len(load_corpus(path, languages=["en"])) == 3
    kept = load_corpus(path, deduplicate=False)
    assert len(kept) == 4
    assert "2 of 4 rows repeat" in kept.notes[0]


def test_splits_are_chosen_or_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "split\ten\ntrain\tOne.\nheldout\tTwo.\ntrain\tThree.\n")
    assert load_corpus(path, split="train")["eng_Latn"] == ("One.", "Three.")
    assert load_corpus(path).notes == ("all splits together (train 2, heldout 1)",)
    refuses(
        path, "unknown split of corpus 'a' 'held'.*did you mean 'heldout'", UsageError, split="held"
    )
    refuses(
        write(tmp_path / "b.tsv", TSV), "'b' is not divided into splits", UsageError, split="train"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "file '.*bad.tsv' is empty"),
        ("en\tde\n", "has a header and no rows"),
        ("en\tde\nOne.\tEins.\nTwo.\n", "line 3: 1 fields where the header has 2 columns"),
        ("en\tde\nOne.\tEins.\tUn.\n", "line 2: 3 fields where the header has 2 columns"),
        ("en\tde\n\nOne.\tEins.\n", "line 2: blank where the header has 2 columns"),
        ("en\tde\nOne.\t  \n", "line 2: column 'de' holds only white space"),
        ("en\tsource\nOne.\tx\n", "line 1: column 'source' is neither id, split, document nor a"),
        ("Hello there.\tHallo.\n", "line 1: column 'Hello there.' is neither"),
        ("en\ten\nOne.\tTwo.\n", "line 1: column 'en' stands there twice"),
        ("id\tsplit\n1\tdev\n", "bad.tsv' holds no language"),
        ("id\ten\n1\tOne.\n2\tB.\n1\tThree.\n", "line 4: id '1' is used twice, first at .*line 2"),
        ("id\ten\n1\tOne.\n\tTwo.\n", "line 3: the id is empty"),
        (b"en\tde\nOne.\tEins.\nTwo.\tZw\xf6lf.\n", r"line 3: not UTF-8 \(byte 0xf6 at .* 24\)"),
        ("en\tde\nOne.\tEins.\n".encode("utf-16"), "is UTF-16, not UTF-8 .*iconv -f UTF-16"),
        (b"en\tde\nOne.\tEi\x00ns.\n", r"line 2, column 8: control character U\+0000 .*UTF-16"),
        ("en\tde\nOne\x07.\tEins.\n", r"line 2, column 4: control character U\+0007 .*remove it"),
        ("en\tde\nOne.\tZw\x94lf.\n", r"line 2, column 8: control character U\+0094 .*Latin-1"),
        ("en\tde\nOne.\rTwo.\tEins.\n", "line 2, column 5: .*a carriage return inside a line"),
    ],
)  # fmt: skip
def test_a_damaged_tsv_is_named_by_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    refuses(write(tmp_path / "bad.tsv", content), message)


def test_text_that_was_decoded_wrongly_is_noted(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.tsv", "en\nCaf\ufffd.\nTea.\n"))
    assert corpus.notes[0].startswith("1 sentences hold U+FFFD")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_a_damaged_archive_is_named(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](TSV.encode())
    refuses(write(tmp_path / f"cut.tsv{suffix}", whole[:-9]), f"damaged or not {suffix[1:]}")
    refuses(write(tmp_path / f"plain.tsv{suffix}", TSV), f"damaged or not {suffix[1:]}")


# -- JSON lines ------------------------------------------------------------------------------------


def test_jsonl_takes_languages_at_top_level_or_under_translation(tmp_path: Path) -> None:
    top = [
        {"id": i, "document": "p", "eng_Latn": a, "deu_Latn": b}
        for i, (a, b) in enumerate(zip(ENGLISH, GERMAN, strict=True))
    ]
    under = [
        {"id": str(i), "document": "p", "translation": {"en": a, "de": b}}
        for i, (a, b) in enumerate(zip(ENGLISH, GERMAN, strict=True))
    ]
    corpora = [
        load_corpus(write(tmp_path / name, "".join(json.dumps(row) + "\n" for row in rows)))
        for name, rows in (("top.jsonl", top), ("under.jsonl", under))
    ]
    assert corpora[0].hash == corpora[1].hash
    assert corpora[0].documents == ("p", "p", "p")
    assert corpora[0]["deu_Latn"] == GERMAN


def test_jsonl_missing_keys_are_missing_and_other_fields_are_named(tmp_path: Path) -> None:
    lines = [
        '{"en": "One.", "de": null, "score": 1}',
        '{"en": "Two."}',
        '{"en": "No.", "de": "Nein."}',
    ]
    corpus = load_corpus(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert corpus["deu_Latn"] == ("Nein.",)
    assert corpus.ids == ("3",)
    assert corpus.notes[0] == "fields that are not read: score"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n", "is empty"),
        ('{"en": "One."}\n{"en": \n', "line 2: not JSON: .* at column"),
        ('{"en": "One."}\n\n{"en": "Two."}\n', "line 2: blank"),
        ('["One."]\n', r"line 1: a list, not an object .*one object per line"),
        ('{"translation": "One."}\n', "line 1: 'translation' is str, not an object of languages"),
        ('{"text": "One."}\n', "holds no language"),
        ('{"en": 7}\n', "line 1: en is int, not text"),
        ('{"en": ' + "9" * 5000 + "}\n", "line 1: not JSON: .*4300 digits"),
        ('{"en": ' + "[" * 100_000 + "}\n", "line 1: not JSON: "),
        ('{"en": " "}\n', "line 1: en holds only white space"),
        ('{"en": "a\\u0000b"}\n', r"line 1, en, column 2: control character U\+0000"),
        ('{"id": 1, "en": "One."}\n{"en": "Two."}\n', "line 2: no id, where other lines have one"),
        (
            '{"id": 1, "en": "a"}\n{"id": "1", "en": "b"}\n',
            "line 2: id '1' is used twice, .*line 1",
        ),
    ],
)
def test_a_damaged_jsonl_is_named_by_line(tmp_path: Path, content: str, message: str) -> None:
    refuses(write(tmp_path / "bad.jsonl", content), message)


# -- line-aligned files ----------------------------------------------------------------------------


def test_moses_pairs_are_read(tmp_path: Path) -> None:
    write(tmp_path / "corpus.en-de.en", "One.\nTwo.\nThree.\n")
    write(tmp_path / "corpus.en-de.de.gz", gzip.compress(b"Eins.\nZwei.\nDrei."))
    corpus = load_corpus(f"moses:{tmp_path / 'corpus.en-de'}")
    assert corpus.name == "corpus.en-de"
    assert dict(corpus.sentences) == {"deu_Latn": GERMAN, "eng_Latn": ENGLISH}
    assert corpus.ids == ("1", "2", "3")


def test_moses_takes_any_number_of_files_and_is_recognised(tmp_path: Path) -> None:
    for code in ("eng_Latn", "deu_Latn", "yor_Latn"):
        write(tmp_path / f"train.{code}", f"1 {code}\n2 {code}\n")
    write(tmp_path / "train.ids", "x\ny\n")
    write(tmp_path / "trainer.fra_Latn", "another corpus\n")
    corpus = load_corpus(tmp_path / "train", languages=["yo", "de"])
    assert dict(corpus.sentences) == {
        "yor_Latn": ("1 yor_Latn", "2 yor_Latn"), "deu_Latn": ("1 deu_Latn", "2 deu_Latn"),
    }  # fmt: skip
    assert corpus.ids == ("x", "y")


def test_moses_takes_documents_from_the_ids_of_opus(tmp_path: Path) -> None:
    write(tmp_path / "b.de-en.de", "Eins.\nZwei.\n")
    write(tmp_path / "b.de-en.en", "One.\nTwo.\n")
    write(tmp_path / "b.de-en.ids", "de/x.xml\ten/x.xml\t1\t1\nde/x.xml\ten/x.xml\t2\t2 3\n")
    corpus = load_corpus(f"moses:{tmp_path / 'b.de-en'}")
    assert corpus.documents == ("de/x.xml", "de/x.xml")
    assert corpus.ids[1] == "de/x.xml en/x.xml 2 2 3"


def test_misaligned_moses_files_are_named_with_their_counts(tmp_path: Path) -> None:
    write(tmp_path / "c.en", "One.\nTwo.\nThree.\n")
    write(tmp_path / "c.de", "Eins.\nZwei.\n")
    refuses(f"moses:{tmp_path / 'c'}", r"misaligned: '.*c\.de' has 2 lines and '.*c\.en' has 3")
    write(tmp_path / "d.en", "One.\nTwo.\n")
    write(tmp_path / "d.de", "Eins.\nZwei.\n")
    write(tmp_path / "d.ids", "1\n")
    refuses(f"moses:{tmp_path / 'd'}", r"misaligned: '.*d\.ids' has 1 lines and '.*d\.de' has 2")


def test_an_empty_line_is_refused_or_dropped(tmp_path: Path) -> None:
    write(tmp_path / "c.en", "One.\n\nThree.\n  \n")
    write(tmp_path / "c.de", "Eins.\nZwei.\nDrei.\nVier.\n")
    spec = f"moses:{tmp_path / 'c'}"
    refuses(spec, r"file '.*c\.en', line 2: the sentence is empty in eng_Latn \(and 1 more\)")
    corpus = load_corpus(spec, empty="drop")
    assert corpus.ids == ("1", "3")
    assert "2 of 4 rows left out" in corpus.notes[0]


def test_moses_needs_two_files_of_different_languages(tmp_path: Path) -> None:
    spec = f"moses:{tmp_path / 'c'}"
    refuses(spec, "no file was found .*such as c.en and c.de")
    refuses(f"moses:{tmp_path / 'nowhere' / 'c'}", "no file was found")
    write(tmp_path / "c.en", "")
    refuses(spec, r"only .*c\.en was found")
    write(tmp_path / "c.de", "")
    refuses(spec, r"file '.*c\.de' is empty")
    write(tmp_path / "c.en.xz", lzma.compress(b"One.\n"))
    refuses(spec, r"'.*c\.en' and '.*c\.en\.xz' are both there for 'en'")


# -- FLORES ----------------------------------------------------------------------------------------


def flores_200(folder: Path) -> Path:
    for split, n in (("dev", 3), ("devtest", 2)):
        for code in ("eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant"):
            lines = "".join(f"{split} {i} {code}\n" for i in range(1, n + 1))
            write(folder / split / f"{code}.{split}", lines)
    write(folder / "README", "not a language\n")
    write(folder / "metadata_dev.tsv", "URL\tdomain\nw/a\tnews\nw/a\tnews\nw/b\tbook\n")
    return folder


def test_flores_200_is_read_with_its_pages(tmp_path: Path) -> None:
    folder = flores_200(tmp_path / "flores200")
    corpus = load_corpus(folder, languages=["en", "zho_Hant"])
    assert corpus.name == "flores200"
    assert corpus.ids == ("dev:1", "dev:2", "dev:3", "devtest:1", "devtest:2")
    assert corpus.documents == ("w/a", "w/a", "w/b", "devtest:1", "devtest:2")
    assert corpus["zho_Hant"][3] == "devtest 1 zho_Hant"
    assert load_corpus(f"flores:{folder}", split="devtest").ids == ("devtest:1", "devtest:2")
    inner = load_corpus(folder / "dev", languages=["de"])
    assert inner.ids == ("dev:1", "dev:2", "dev:3")
    refuses(folder, "unknown split of '.*' 'test'", UsageError, split="test")


def test_damaged_flores_200_is_named(tmp_path: Path) -> None:
    folder = flores_200(tmp_path / "f")
    write(folder / "dev" / "deu_Latn.dev", "1\n2\n")
    refuses(folder, r"describes 3 sentences, '.*deu_Latn.dev' has 2")
    (folder / "metadata_dev.tsv").unlink()
    refuses(folder, r"misaligned: 2 sentences in deu_Latn \(.*line 2\) and 3 in eng_Latn")
    write(folder / "dev" / "deu_Latn.dev", "1\n\n3\n")
    refuses(folder, r"file '.*deu_Latn.dev', line 2: the sentence is empty in deu_Latn")
    write(folder / "metadata_dev.tsv", "url\nx\n")
    refuses(folder, "metadata_dev.tsv', line 1: no column 'URL'")
    write(folder / "metadata_dev.tsv", "URL\tdomain\nx\ty\nx\nx\ty\n")
    refuses(folder, "metadata_dev.tsv', line 3: 1 fields where the header has 2 columns")
    (folder / "metadata_dev.tsv").unlink()
    (folder / "dev" / "deu_Latn.dev").unlink()
    refuses(folder, "deu_Latn is not in split 'dev'", languages=["en", "de"])


def test_flores_plus_is_joined_by_id(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "flores_plus"
    english = [{"id": i, "text": f"English {i}", "url": f"w/{i // 2}"} for i in (2, 0, 1, 5)]
    german = [{"id": i, "text": f"Deutsch {i}", "url": f"w/{i // 2}"} for i in (0, 1, 2, 4)]
    (folder / "dev").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(english), folder / "dev" / "eng_Latn.parquet")
    write(folder / "dev" / "deu_Latn.jsonl", "".join(json.dumps(row) + "\n" for row in german))
    corpus = load_corpus(folder, languages=["en", "de"])
    assert corpus.ids == ("dev:0", "dev:1", "dev:2")
    assert corpus["deu_Latn"] == ("Deutsch 0", "Deutsch 1", "Deutsch 2")
    assert corpus.documents == ("w/0", "w/0", "w/1")
    assert "2 of 5 rows left out" in corpus.notes[0]
    refuses(folder, "row 4 .not in deu_Latn.: the sentence is empty in deu_Latn", empty="refuse")


def test_damaged_flores_plus_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    path = folder / "dev" / "eng_Latn.jsonl"
    write(path, '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n')
    refuses(folder, "line 2: id '1' is used twice in eng_Latn, first at .*line 1")
    write(path, '{"id": 1, "sentence": "a"}\n')
    refuses(folder, "line 1: no field 'text' .*fields: id, sentence")
    write(path, '{"id": 1, "text": "a"}\n{"text": "b"}\n')
    refuses(folder, "line 2: no id, where others have one")
    write(folder / "dev" / "eng_Latn.parquet", "no parquet")
    refuses(folder, "are both there for eng_Latn")
    path.unlink()
    refuses(folder, "eng_Latn.parquet' is not a readable parquet file")


# -- recognising, choosing ------------------------------------------------------------------------


def test_the_format_is_recognised_by_content(tmp_path: Path) -> None:
    assert len(load_corpus(write(tmp_path / "a.txt", TSV))) == 3
    assert len(load_corpus(write(tmp_path / "b.data", '{"en": "One."}\n'))) == 1
    assert len(load_corpus(write(tmp_path / "c.data", TSV), format="tsv")) == 3
    refuses(write(tmp_path / "d.data", "One.\nTwo.\n"), "the format of '.*d.data' does not show")
    (tmp_path / "folder").mkdir()
    refuses(tmp_path / "folder", "is neither FLORES .* nor a saved data set")
    refuses(f"flores:{tmp_path / 'folder'}", "holds no FLORES files")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    refuses(tmp_path / "none.tsv", "corpus '.*none.tsv' does not exist")
    refuses(f"tsv:{tmp_path / 'none.tsv'}", "file '.*none.tsv' does not exist")
    refuses(f"tsv:{tmp_path}", "is a folder, not a file")
    refuses("kolibry", "unknown corpus 'kolibry' .*did you mean 'kolibri'", UsageError)
    refuses("a.tsv", "unknown corpus format 'tvs'", UsageError, format="tvs")


def test_a_file_that_may_not_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(path)

    path = write(tmp_path / "a.tsv", TSV)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    refuses(path, "may not be read")


def test_limit_draws_reproducibly_and_says_so(tmp_path: Path) -> None:
    rows = "".join(f"{i}\n" for i in range(100))
    path = write(tmp_path / "a.tsv", "en\n" + rows)
    first, again, other = (load_corpus(path, limit=10, seed=seed) for seed in (1, 1, 2))
    assert first.ids == again.ids != other.ids
    assert [int(i) for i in first.ids] == sorted(int(i) for i in first.ids)
    assert first.notes == ("10 of 100 sentences drawn with seed 1",)
    assert len(load_corpus(path, limit=1000)) == 100
    refuses(path, "limit 0 leaves no sentence", UsageError, limit=0)


def test_a_corpus_is_only_chosen_from(tmp_path: Path) -> None:
    corpus = load_corpus(write(tmp_path / "a.tsv", TSV))
    assert load_corpus(corpus) is corpus
    chosen = load_corpus(corpus, languages="de", limit=2)
    assert (chosen.languages, len(chosen), chosen.source) == (("deu_Latn",), 2, corpus.source)


def test_the_hash_depends_on_text_and_order_alone(tmp_path: Path) -> None:
    tsv = load_corpus(write(tmp_path / "a.tsv", TSV))
    made = ParallelCorpus("other", tsv.ids, {"eng_Latn": ENGLISH, "deu_Latn": GERMAN})
    assert made.hash == tsv.hash
    assert made.language_hash("deu_Latn") == load_corpus(tsv, languages=["de"]).language_hash(
        "deu_Latn"
    )
    assert made.select(rows=[1, 0, 2]).hash != made.hash
    joined = [
        ParallelCorpus("x", ("1", "2"), {"eng_Latn": s}) for s in (("a\nb", "c"), ("a", "b\nc"))
    ]
    assert joined[0].hash != joined[1].hash
