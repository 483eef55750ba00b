"""Training text from folders and data sets: splits, disjoint parts, limits, damage."""

import gzip
import itertools
import json
import lzma
import sys

import numpy as np
import pytest

from repsim.core import InputError, ResourceError, UsageError
from repsim.corpora.documents import HELDOUT_FRACTION, Document, TrainingText, is_held_out
from repsim.corpora.overlap import unseen_rows
from repsim.corpora.training_text import load_training_text

LANGUAGES = ("eng_Latn", "deu_Latn", "rus_Cyrl")


def ids(text):
    return [document.id for document in text]


@pytest.fixture
def corpus(tmp_path):
    """Three languages with documents of the same ids, in JSON lines."""
    for k, language in enumerate(LANGUAGES):
        lines = [
            json.dumps({"id": f"d{i}", "text": f"{language} {i} " * (k + 1), "url": "x"})
            for i in range(300)
        ]
        (tmp_path / f"{language}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_text_files_are_split_at_blank_lines(tmp_path, suffix, pack):
    raw = "One.\nTwo.\n\n\n  \nDrei – 日本.\n\nlast".encode()
    (tmp_path / f"eng_Latn.train.txt{suffix}").write_bytes(pack(raw))
    (tmp_path / f"eng_Latn.heldout.txt{suffix}").write_bytes(pack(b"held\n"))
    text = load_training_text(str(tmp_path), ["eng_Latn"])["eng_Latn"]
    assert [d.text for d in text] == ["One.\nTwo.", "Drei – 日本.", "last"]
    assert [d.text for d in text] == list(text.texts())
    held = load_training_text(str(tmp_path), ["eng_Latn"], split="heldout")["eng_Latn"]
    assert list(held.texts()) == ["held"]
    assert held.split_rule == "by file"


def test_json_lines_keep_their_ids_or_are_numbered(tmp_path):
    (tmp_path / "eng_Latn.train.jsonl").write_text('{"text": "a"}\n\n{"id": 7, "text": "b"}\n')
    (tmp_path / "eng_Latn.heldout.jsonl").write_text('{"text": "c"}\n{"text": "  "}\n')
    texts = load_training_text(str(tmp_path), ["eng_Latn"])
    assert list(texts["eng_Latn"]) == [Document("00000000", "a"), Document("7", "b")]
    held = load_training_text(str(tmp_path), ["eng_Latn"], split="heldout")
    assert list(held["eng_Latn"].texts()) == ["c"]


def test_without_a_heldout_file_ids_decide_alike_in_every_language(corpus):
    train = load_training_text(str(corpus), LANGUAGES)
    held = load_training_text(str(corpus), LANGUAGES, split="heldout")
    parts = {(tuple(ids(train[name])), tuple(ids(held[name]))) for name in LANGUAGES}
    ((kept, away),) = parts
    assert sorted(kept + away) == sorted(f"d{i}" for i in range(300))
    assert 0 < len(away) < 40
    assert str(HELDOUT_FRACTION) in held["eng_Latn"].split_rule
    assert next(held["eng_Latn"].texts()).startswith("eng_Latn ")


def test_the_held_out_share_is_the_stated_one():
    share = np.mean([is_held_out(f"page/{i}") for i in range(20_000)])
    assert abs(share - HELDOUT_FRACTION) < 3 * np.sqrt(0.05 * 0.95 / 20_000)


def test_disjoint_content_shares_no_document_and_loses_none(corpus):
    same = load_training_text(str(corpus), LANGUAGES)
    texts = load_training_text(str(corpus), LANGUAGES, content="disjoint")
    dealt = [ids(texts[name]) for name in LANGUAGES]
    assert sorted(itertools.chain(*dealt)) == sorted(ids(same["eng_Latn"]))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert tuple(texts) == LANGUAGES


def test_what_was_chosen_is_stated_for_the_manifest(corpus):
    texts = load_training_text(str(corpus), LANGUAGES, content="disjoint", max_bytes=500, seed=4)
    stated = "disjoint among 3 languages, seed 4; at most 500 bytes, seed 4"
    assert texts["eng_Latn"].about["choice"] == stated
    assert load_training_text(str(corpus), ["eng_Latn"])["eng_Latn"].about["choice"] == ""


def test_the_deal_depends_on_seed_and_languages_not_on_their_order(corpus):
    def deal(languages=LANGUAGES, seed=0):
        texts = load_training_text(str(corpus), languages, content="disjoint", seed=seed)
        return {name: ids(text) for name, text in texts.items()}

    assert deal() == deal(tuple(reversed(LANGUAGES)))
    assert deal()["eng_Latn"] != deal(seed=1)["eng_Latn"]


def test_held_out_text_is_the_same_in_every_language_also_for_disjoint_content(corpus):
    held = load_training_text(str(corpus), LANGUAGES, split="heldout", content="disjoint")
    assert len({tuple(ids(text)) for text in held.values()}) == 1


def test_a_byte_limit_takes_whole_documents_in_one_order_of_ids(corpus):
    texts = load_training_text(str(corpus), LANGUAGES, max_bytes=1500)
    sizes = {name: text.n_bytes() for name, text in texts.items()}
    assert all(1300 < size <= 1500 for size in sizes.values())
    # Longer languages keep fewer documents, of those that shorter ones keep.
    assert set(ids(texts["rus_Cyrl"])) < set(ids(texts["deu_Latn"])) < set(ids(texts["eng_Latn"]))
    everything = ids(load_training_text(str(corpus), ["eng_Latn"])["eng_Latn"])
    kept = ids(texts["eng_Latn"])
    assert kept == [name for name in everything if name in set(kept)]
    other = load_training_text(str(corpus), ["eng_Latn"], max_bytes=1500, seed=1)["eng_Latn"]
    assert ids(other) != kept


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, UsageError, "unknown split 'test'"),
        ({"content": "other"}, UsageError, "unknown content 'other'"),
        ({"languages": ["eng_Latn", "eng_Latn"]}, UsageError, "named twice"),
        ({"languages": ["fra_Latn"]}, InputError, "no training text in fra_Latn.*it has: deu_Latn"),
        ({"spec": "no/such/folder"}, InputError, "'no/such/folder' is not a folder"),
        ({"max_bytes": 3}, InputError, "less than one document"),
    ],
)
def test_impossible_requests_are_refused(corpus, arguments, error, message):
    settings = {"spec": str(corpus), "languages": ["eng_Latn"]} | arguments
    with pytest.raises(error, match=message):
        load_training_text(settings.pop("spec"), settings.pop("languages"), **settings)


def test_too_few_documents_cannot_be_dealt(tmp_path):
    for name in LANGUAGES:
        (tmp_path / f"{name}.train.jsonl").write_text('{"id": "one", "text": "x"}\n')
        (tmp_path / f"{name}.heldout.jsonl").write_text('{"id": "two", "text": "x"}\n')
    with pytest.raises(InputError, match="no document is left for"):
        load_training_text(str(tmp_path), LANGUAGES, content="disjoint")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("eng_Latn.train.txt.xz", lzma.compress(b"text " * 9999)[:-40], "damaged or cut short"),
        (
            "eng_Latn.train.txt.gz",
            gzip.compress(b"text " * 9999, mtime=0)[:-40],
            "damaged or cut short",
        ),
        ("eng_Latn.train.txt.gz", b"no gzip at all", "damaged or cut short"),
        ("eng_Latn.train.txt", b"caf\xe9", "not UTF-8 text"),
        ("eng_Latn.jsonl", b'{"id": 1, "text": "a"}\n{"text": ', "line 2 is not JSON"),
        ("eng_Latn.jsonl", b'{"body": "a"}\n', "line 1 has no field 'text'"),
        ("eng_Latn.jsonl", b'["a"]\n', "line 1 is not a JSON object"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(load_training_text(str(tmp_path), ["eng_Latn"])["eng_Latn"])


def test_two_files_for_one_language_are_refused(tmp_path):
    (tmp_path / "eng_Latn.train.txt").write_text("a")
    (tmp_path / "eng_Latn.jsonl").write_text('{"text": "a"}')
    with pytest.raises(InputError, match=r"two train files for eng_Latn: .*train\.txt"):
        load_training_text(str(tmp_path), ["eng_Latn"])


def test_overlap_finds_what_a_plain_search_finds():
    rng = np.random.default_rng(5)
    letters = np.array(list("ab é日"))
    pages = ["".join(rng.choice(letters, 400)) for _ in range(5)]
    lines = [page[i : i + n] for page in pages for i, n in ((3, 40), (90, 17), (380, 20), (7, 5))]
    lines += [line[:-1] + "z" for line in lines] + [pages[0] + "b", "b", "", pages[1][-16:] + "a"]
    text = TrainingText(
        "x", "eng_Latn", lambda: (Document(str(i), page) for i, page in enumerate(pages))
    )
    naive = [i for i, line in enumerate(lines) if not any(line in page for page in pages)]
    assert 20 < len(naive) < len(lines) - 20
    assert unseen_rows({"eng_Latn": lines}, {"eng_Latn": text}) == naive
    two = {"eng_Latn": lines, "deu_Latn": ["?"] * len(lines)}
    assert unseen_rows(two, {"eng_Latn": text}) == naive
    assert unseen_rows({"deu_Latn": lines}, {"eng_Latn": text}) == list(range(len(lines)))


# -- data sets ------------------------------------------------------------------------------


@pytest.fixture
def data_set(tmp_path):
    """A data set folder with two configurations, one of them with its own test split."""
    card = """---
configs:
- config_name: eng_Latn
  data_files: [{split: train, path: eng.jsonl}]
- config_name: deu_Latn
  data_files: [{split: train, path: deu.jsonl}, {split: test, path: deu_test.jsonl}]
---
"""
    (tmp_path / "README.md").write_text(card)
    for name, n in (("eng", 200), ("deu", 200), ("deu_test", 5)):
        rows = [json.dumps({"id": f"p{i}", "text": f"{name} text {i}"}) for i in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return tmp_path


def test_a_local_data_set_is_streamed_by_language(data_set):
    pytest.importorskip("datasets")
    spec, languages = f"hub:{data_set}", ["eng_Latn", "deu_Latn"]
    train = load_training_text(spec, languages)
    held = load_training_text(spec, languages, split="heldout")
    assert len(ids(train["deu_Latn"])) == 200
    assert next(held["deu_Latn"].texts()) == "deu_test text 0"
    assert held["deu_Latn"].split_rule == "the data set's own: train, test"
    both = ids(train["eng_Latn"]) + ids(held["eng_Latn"])
    assert sorted(both) == sorted(f"p{i}" for i in range(200))
    assert all(is_held_out(name) for name in ids(held["eng_Latn"]))
    assert ids(train["eng_Latn"]) == ids(train["eng_Latn"])


def test_a_streamed_limit_takes_the_first_documents_and_dealing_needs_no_list(data_set):
    pytest.importorskip("datasets")
    spec = f"hub:{data_set}:{{language}}"
    whole = load_training_text(spec, ["deu_Latn"])["deu_Latn"]
    some = load_training_text(spec, ["deu_Latn"], max_bytes=100)["deu_Latn"]
    assert ids(some) == ids(whole)[: len(ids(some))]
    assert 80 < some.n_bytes() <= 100
    dealt = load_training_text(spec, ["eng_Latn", "deu_Latn"], content="disjoint")
    assert not set(ids(dealt["eng_Latn"])) & set(ids(dealt["deu_Latn"]))
    assert len(ids(dealt["deu_Latn"])) > 60


def test_data_sets_that_cannot_be_had_say_why(data_set, monkeypatch):
    with pytest.raises(UsageError, match="fetching data sets is not allowed"):
        load_training_text("hub:someone/something", ["eng_Latn"])
    with pytest.raises(UsageError, match="names no data set"):
        load_training_text("hub:", ["eng_Latn"])
    pytest.importorskip("datasets")
    with pytest.raises(InputError, match=r"\(fra_Latn\) cannot be opened"):
        load_training_text(f"hub:{data_set}", ["fra_Latn"])
    (data_set / "eng.jsonl").write_text('{"body": "a"}')
    with pytest.raises(InputError, match="row 0 has no field 'text'.*body"):
        list(load_training_text(f"hub:{data_set}", ["eng_Latn"])["eng_Latn"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"needs the package 'datasets'.*repsim-lm\[hub\]"):
        load_training_text(f"hub:{data_set}", ["eng_Latn"])
