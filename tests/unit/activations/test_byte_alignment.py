import dataclasses

import numpy as np
import pytest
from transformers import ByT5Tokenizer

from repsim.activations import byte_aligned, extract
from repsim.activations.byte_alignment import boundary_kind, common_boundaries, word_ends
from repsim.activations.tokens import Encoded, TokenPolicy, encode
from repsim.core import InputError, ParallelCorpus, UsageError
from repsim.testing.tiny_models import tiny_tokenizer


def reading(spans: list[tuple[int, int]], kept: list[int], short: bool = False) -> Encoded:
    array = np.array(spans)
    return Encoded(list(range(len(spans))), np.array(kept), np.array(kept), 3, False, short, array)


BOS = (0, 0)
# "ab cde" cut as ab| cde and as a|b |cd|e.
COARSE = reading([BOS, (0, 2), (2, 6)], [1, 2])
FINE = reading([BOS, (0, 1), (1, 3), (3, 5), (5, 6)], [1, 2, 3, 4])


def test_a_word_end_takes_the_last_token_that_covers_it():
    ends, tokens = common_boundaries("ab cde", [COARSE, FINE], "words")
    assert ends.tolist() == [2, 6]
    assert tokens.tolist() == [[1, 2], [2, 4]]


def test_token_ends_are_those_that_all_models_share():
    ends, tokens = common_boundaries("ab cde", [COARSE, FINE], "tokens")
    assert (ends.tolist(), tokens.tolist()) == ([6], [[2], [4]])


def test_of_tokens_with_the_same_span_the_last_is_taken():
    pieces = reading([BOS, (0, 3), (0, 3), (0, 3)], [1, 2, 3])
    assert common_boundaries("今", [pieces], "tokens")[1].tolist() == [[3]]


def test_a_boundary_at_a_token_that_does_not_count_is_left_out_for_all():
    first_left_out = reading([(0, 2), (2, 6)], [1])
    cut = reading([BOS, (0, 2)], [1])
    assert common_boundaries("ab cde", [first_left_out, FINE], "words")[0].tolist() == [6]
    assert common_boundaries("ab cde", [FINE, cut], "words")[0].tolist() == [2]
    ends, tokens = common_boundaries("ab cde", [first_left_out, cut], "words")
    assert (ends.shape, tokens.shape) == ((0,), (2, 0))
    short = reading([(0, 6)], [0], short=True)
    assert len(common_boundaries("ab cde", [short], "words")[0]) == 0


def test_boundaries_need_spans():
    bare = dataclasses.replace(COARSE, spans=None)
    with pytest.raises(UsageError, match="byte boundaries need sentences .* spans=True"):
        common_boundaries("ab cde", [bare], "words")


def test_word_ends_are_in_bytes():
    sentence = "  Größe и мир "
    raw = sentence.encode()
    assert [raw[:end].decode().split()[-1] for end in word_ends(sentence)] == ["Größe", "и", "мир"]


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Donaudampfschifffahrt", "words"),
        ("สวัสดีชาวโลก", "tokens"),
        ("你好 world", "words"),
        ("你好,世界!", "tokens"),
        ("안녕 세상", "words"),
        ("1 2 3", "words"),
    ],
)
def test_the_script_decides_where_rows_are_taken(sentence, kind):
    assert boundary_kind([sentence]) == kind


@pytest.fixture
def other(fresh):
    """A model with another tokenizer: no merges, a closing token, other words."""
    loaded = fresh("bert", "other")
    tokenizer = tiny_tokenizer("<s> $A </s>")
    tokenizer.add_tokens(["winter", "thun"])
    loaded.model.resize_token_embeddings(len(tokenizer))
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def test_all_models_have_the_same_rows_and_each_its_own_token(tiny, other, corpus_of, tmp_path):
    corpus = corpus_of(15)
    models = [tiny("llama"), tiny("gpt2"), other]
    results = byte_aligned(models, corpus, "eng_Latn", cache=tmp_path)
    assert len({acts.ids for acts in results}) == 1
    assert [acts.model.name for acts in results] == ["tiny", "tiny", "other"]
    first = results[0]
    assert first.info["boundaries"] == "ends of words"
    assert first.documents == results[2].documents
    # GPT-2 leaves out a first word that is one token; every other word of every sentence is a row.
    expected = []
    for name, sentence in zip(corpus.ids, corpus["eng_Latn"], strict=True):
        ids = models[1].tokenizer(sentence, return_offsets_mapping=True)
        ends = word_ends(sentence)
        one_token = ids.offset_mapping[0][1] == len(sentence.split()[0])
        expected += [f"{name}#{end}" for end in (ends[1:] if one_token else ends)]
    assert list(first.ids) == expected
    for loaded, acts in zip(models, results, strict=True):
        tokens = extract(loaded, corpus, ["eng_Latn"], pooling="tokens", cache=tmp_path)[0]
        rows = dict(zip(tokens.ids, tokens.array(), strict=True))
        spans = encode(loaded.tokenizer, corpus["eng_Latn"], TokenPolicy(), spans=True)
        for i, name in enumerate(acts.ids):
            sentence, end = name.split("#")
            found = spans[corpus.ids.index(sentence)].spans
            token = max(t for t, (s, e) in enumerate(found.tolist()) if s < int(end) <= e)
            np.testing.assert_allclose(acts.array()[i], rows[f"{sentence}#{token}"], atol=1e-5)


def test_who_takes_part_decides_the_rows_and_the_cache_knows(tiny, other, corpus_of, tmp_path):
    corpus = corpus_of(6)
    (alone,) = byte_aligned([tiny("llama")], corpus, "eng_Latn", cache=tmp_path)
    together = byte_aligned([tiny("llama"), tiny("gpt2")], corpus, "eng_Latn", cache=tmp_path)
    swapped = byte_aligned([tiny("gpt2"), tiny("llama")], corpus, "eng_Latn", cache=tmp_path)
    assert len(alone) > len(together[0])
    assert not together[0].info["cached"]
    assert swapped[1].info["cached"]
    assert swapped[1].ids == together[0].ids


def test_scripts_without_spaces_are_read_at_shared_token_ends(tiny, other, tmp_path):
    corpus = ParallelCorpus("ja", ("s",), {"jpn_Jpan": ("今日は雨。",)})
    a, b = byte_aligned([tiny("llama"), other], corpus, "jpn_Jpan", cache=tmp_path)
    assert a.ids == b.ids == ("s#3", "s#6", "s#9", "s#12", "s#15")
    assert a.info["boundaries"] == "ends of tokens"


def test_what_cannot_be_aligned_is_refused(tiny, fresh, corpus_of, tmp_path):
    with pytest.raises(UsageError, match="no model was given"):
        byte_aligned([], corpus_of(2), "eng_Latn", cache=tmp_path)
    with pytest.raises(UsageError, match="boundaries is 'word'"):
        byte_aligned([tiny("gpt2")], corpus_of(2), "eng_Latn", boundaries="word", cache=tmp_path)
    slow = dataclasses.replace(fresh("t5"), tokenizer=ByT5Tokenizer())
    with pytest.raises(UsageError, match="it keeps no offsets"):
        byte_aligned([slow], corpus_of(2), "eng_Latn", cache=tmp_path)
    single = ParallelCorpus("one", ("s",), {"eng_Latn": ("a",)})
    with pytest.raises(InputError, match="the models have no words in common in eng_Latn"):
        byte_aligned([tiny("gpt2")], single, "eng_Latn", cache=tmp_path)
