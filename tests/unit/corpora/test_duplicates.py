"""Copies within a text, and training documents that stand in held-out text."""

import json
from collections import Counter

import numpy as np
import pytest

from repsim.corpora.documents import Document
from repsim.corpora.duplicates import HeldOutText, _Seen, first_copies, unseen
from repsim.corpora.training_text import load_training_text

RNG = np.random.default_rng(3)
WORDS = np.array(["".join(RNG.choice(list("abcdefghij"), 7)) for _ in range(2000)])


def prose(n=120):
    return " ".join(RNG.choice(WORDS, n))


def documents(*texts):
    return [Document(str(k), text) for k, text in enumerate(texts)]


def kept(texts, held):
    dropped = Counter()
    found = unseen(documents(*texts), lambda: HeldOutText(documents(*held)), dropped)
    return [int(d.id) for d in found], dict(+dropped)


def test_the_first_copy_stays_whatever_case_white_space_and_form_of_letters_the_others_have():
    dropped = Counter()
    texts = ["Été  deux", "other", "ÉTÉ\ndeux", "E\u0301te\u0301 deux", "other", "new"]
    assert [d.id for d in first_copies(documents(*texts), dropped)] == ["0", "1", "5"]
    assert dict(dropped) == {"documents read": 6, "copies": 3}


def test_hashes_are_found_again_after_any_number_of_merges_of_runs():
    rng, seen, plain = np.random.default_rng(0), _Seen(), set()
    for _ in range(60):
        batch = rng.integers(0, 3000, 97).astype(np.uint64)
        expected = []
        for number in batch.tolist():
            expected.append(number not in plain)
            plain.add(number)
        assert seen.new(batch).tolist() == expected
    assert len(seen._runs) < 8
    assert sum(map(len, seen._runs)) == len(plain)


def test_training_text_that_is_mostly_in_held_out_text_is_left_out():
    page, other = prose(), prose()
    words = page.split()
    most = " ".join([*words[:80], *prose(30).split()])
    some = " ".join([*words[:30], *prose(90).split()])
    changed = " ".join(w if k % 25 else "changed" for k, w in enumerate(words))
    texts = [page.upper(), most, some, other, changed, "a short line"]
    ids, dropped = kept(texts, [page, prose(), "a short line"])
    assert ids == [2, 3]
    assert dropped == {"copies": 2, "near copies of held-out documents": 2}
    assert kept(texts, []) == ([0, 1, 2, 3, 4, 5], {})


def test_scripts_without_spaces_are_compared_too():
    letters = np.array([chr(0x4E00 + k) for k in range(800)])
    page, other = ("".join(RNG.choice(letters, 900)) for _ in range(2))
    assert kept([page[50:] + other[:100], other], [page])[0] == [1]


def write_lines(path, texts):
    path.write_text(
        "".join(json.dumps({"id": f"d{k}", "text": t}) + "\n" for k, t in enumerate(texts))
    )


@pytest.mark.parametrize("own_heldout", [False, True])
def test_lines_that_repeat_put_no_held_out_document_into_training(tmp_path, own_heldout):
    """Without an own held-out file nothing is lost either: the first of the copies decides."""
    pages = [prose(60) for _ in range(80)]
    texts = [pages[k % 80] for k in range(80 * 12)]
    write_lines(tmp_path / "eng_Latn.jsonl", texts)
    if own_heldout:
        write_lines(tmp_path / "eng_Latn.heldout.jsonl", pages[:5] + pages[:5])
    train, held = (
        load_training_text(str(tmp_path), ["eng_Latn"], split=split)["eng_Latn"]
        for split in ("train", "heldout")
    )
    in_train, in_held = list(train.texts()), list(held.texts())
    assert not set(in_train) & set(in_held)
    assert sorted(in_train + in_held) == sorted(pages)
    assert train.dropped["documents read"] == 960
    assert train.dropped["copies"] == 880 + (5 if own_heldout else 0)
    everything = load_training_text(f"{tmp_path}?duplicates=keep", ["eng_Latn"])["eng_Latn"]
    assert len(list(everything)) > 880


def test_parallel_documents_stay_in_one_split(tmp_path):
    for language in ("eng_Latn", "deu_Latn"):
        write_lines(tmp_path / f"{language}.jsonl", [prose(20) for _ in range(200)])
    held = load_training_text(str(tmp_path), ["eng_Latn", "deu_Latn"], split="heldout")
    assert len({tuple(d.id for d in text) for text in held.values()}) == 1
