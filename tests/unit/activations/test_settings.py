import pytest

from repsim.activations import ExtractionSettings, extraction_key
from repsim.core import ModelRef, UsageError

REF = ModelRef("m", "m", weights_hash="w", tokenizer_hash="t")


def test_the_key_depends_on_every_setting(corpus_of):
    corpus = corpus_of(2)
    base = ExtractionSettings()
    other = [
        ExtractionSettings(points=("mlp",)),
        ExtractionSettings(layers=(0,)),
        ExtractionSettings(pooling="last"),
        ExtractionSettings(skip_first=False),
        ExtractionSettings(max_length=8),
        ExtractionSettings(prefix="p"),
        ExtractionSettings(dtype="bfloat16"),
        ExtractionSettings(precision="bfloat16"),
        ExtractionSettings(config_hash="c"),
        ExtractionSettings(boundaries="words"),
    ]
    keys = {extraction_key(REF, corpus, "eng_Latn", one) for one in [base, *other]}
    assert len(keys) == 11
    assert extraction_key(REF, corpus, "eng_Upper", base) not in keys


def test_the_key_depends_on_sentences_and_not_on_other_languages(corpus_of):
    corpus = corpus_of(4)
    settings = ExtractionSettings()
    key = extraction_key(REF, corpus, "eng_Latn", settings)
    assert extraction_key(REF, corpus.select(["eng_Latn"]), "eng_Latn", settings) == key
    assert extraction_key(REF, corpus.select(rows=[0, 1, 2]), "eng_Latn", settings) != key


def test_settings_that_are_not_possible_are_refused():
    with pytest.raises(UsageError, match="max_length is 0"):
        ExtractionSettings(max_length=0)
    with pytest.raises(UsageError, match="unknown pooling"):
        ExtractionSettings(pooling="sum")
