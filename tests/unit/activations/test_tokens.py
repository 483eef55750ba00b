import numpy as np
import pytest
from transformers import BertConfig, ByT5Tokenizer, LlamaConfig, RobertaConfig

from repsim.activations.tokens import TokenPolicy, batches, encode, length_order, longest_input
from repsim.core import InputError, UsageError
from repsim.testing.tiny_models import tiny_tokenizer

DECODER, PLAIN, ENCODER = (tiny_tokenizer(t) for t in ("<s> $A", "$A", "<s> $A </s>"))


def test_position_0_and_special_tokens_are_left_out():
    for tokenizer in (DECODER, PLAIN, ENCODER):
        (one,) = encode(tokenizer, ["the cat"], TokenPolicy())
        tokens = tokenizer.convert_ids_to_tokens(one.ids)
        kept = [tokens[i] for i in one.kept]
        assert 0 not in one.kept
        assert not set(kept) & {"<s>", "</s>"}
        # Without BOS it is text that stands at position 0.
        text = [token for token in tokens if token not in ("<s>", "</s>")]
        assert kept == (text[1:] if tokenizer is PLAIN else text)
        assert one.n_text == len(text)


def test_position_0_is_kept_when_asked():
    (one,) = encode(ENCODER, ["the cat"], TokenPolicy(skip_first=False))
    assert one.kept[0] == 0
    assert len(one.ids) - 1 not in one.kept


def test_a_sentence_of_one_token_keeps_it_and_is_marked_short():
    (one,) = encode(PLAIN, ["a"], TokenPolicy())
    assert one.kept.tolist() == [0]
    assert one.short
    (two,) = encode(PLAIN, ["ab"], TokenPolicy())
    assert two.kept.tolist() == [1]
    assert not two.short


def test_a_sentence_without_any_token_is_named():
    class Mute:
        is_fast = True

        def __call__(self, texts, **options):
            return {"input_ids": [[] for _ in texts], "special_tokens_mask": [[] for _ in texts]}

    with pytest.raises(InputError, match="sentence 's7' has no tokens: 'x'"):
        encode(Mute(), ["x"], TokenPolicy(), sentence_ids=["s7"])


def test_long_sentences_are_cut_and_keep_their_closing_token():
    whole, cut = encode(ENCODER, ["ab", "abcdefghijk"], TokenPolicy(max_length=6))
    assert (whole.truncated, cut.truncated) == (False, True)
    assert len(cut.ids) == 6
    assert cut.ids[-1] == ENCODER.eos_token_id
    assert cut.n_text == 4


def test_tokens_of_the_prefix_are_read_but_left_out():
    (plain,) = encode(DECODER, ["the cat"], TokenPolicy())
    (prefixed,) = encode(DECODER, ["the cat"], TokenPolicy(prefix="query: "), spans=True)
    assert len(prefixed.ids) > len(plain.ids)
    text = "".join(DECODER.convert_ids_to_tokens([prefixed.ids[i] for i in prefixed.kept]))
    assert text == "ĠtheĠcat"
    assert prefixed.spans[prefixed.kept[-1]].tolist() == [6, 7]


def test_spans_are_bytes_of_the_sentence():
    sentence = "Zürich и the"
    (one,) = encode(DECODER, [sentence], TokenPolicy(), spans=True)
    raw = sentence.encode()
    assert one.spans[0].tolist() == [0, 0]
    assert one.spans[-1, 1] == len(raw)
    tokens = DECODER.convert_ids_to_tokens(one.ids)
    start, end = one.spans[tokens.index("Ð¸")]
    assert raw[start:end].decode() == "и"
    assert (np.diff(one.spans[1:, 1]) >= 0).all()


def test_a_tokenizer_without_offsets_is_refused_where_they_are_needed():
    slow = ByT5Tokenizer()
    assert encode(slow, ["ab"], TokenPolicy())[0].kept.tolist() == [1]
    with pytest.raises(UsageError, match="byte spans of tokens cannot be used with ByT5Tokenizer"):
        encode(slow, ["ab"], TokenPolicy(), spans=True)
    with pytest.raises(UsageError, match="the prefix 'q: ' cannot be used"):
        encode(slow, ["ab"], TokenPolicy(prefix="q: "))


def test_the_longest_input_is_the_smaller_limit():
    tokenizer = tiny_tokenizer()
    assert longest_input(BertConfig(max_position_embeddings=64), tokenizer) == 64
    tokenizer.model_max_length = 32
    assert longest_input(LlamaConfig(max_position_embeddings=64), tokenizer) == 32
    # RoBERTa counts positions from behind the padding id.
    roberta = RobertaConfig(max_position_embeddings=20, pad_token_id=1)
    assert longest_input(roberta, tokenizer) == 18


def test_the_order_is_by_bytes_from_the_longest_and_stable():
    assert length_order(["aa", "ü", "b", "ccc"]).tolist() == [3, 0, 1, 2]


def test_batches_hold_every_sentence_once_within_the_limits():
    lengths = [5, 1, 9, 30, 2, 2, 9, 4]
    made = list(batches(lengths, max_tokens=18, max_sentences=3))
    assert sorted(i for batch in made for i in batch) == list(range(8))
    for batch in made:
        assert len(batch) <= 3
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 18
