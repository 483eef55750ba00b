import functools
from collections.abc import Callable

import pytest

from repsim.core import ModelRef, ParallelCorpus
from repsim.models.arch import spec_for
from repsim.models.load import LoadedModel
from repsim.testing.tiny_models import tiny_model, tiny_tokenizer

TEMPLATES = {"bert": "<s> $A </s>", "roberta": "<s> $A </s>", "t5": "$A </s>", "gpt2": "$A"}
WORDS = ("the", "cat", "sees", "and", "hears", "a", "dog", "in", "winter", "thunder", "Zürich")


def load_tiny(kind: str, name: str = "tiny", **overrides: object) -> LoadedModel:
    return LoadedModel(
        ModelRef(name, name, architecture=kind),
        tiny_model(kind, **overrides),
        tiny_tokenizer(TEMPLATES.get(kind, "<s> $A")),
        spec_for(kind),
    )


@pytest.fixture(scope="session")
def tiny() -> Callable[..., LoadedModel]:
    """Models in memory by kind; the same object for the same kind, never to be altered."""
    return functools.cache(load_tiny)


@pytest.fixture
def fresh() -> Callable[..., LoadedModel]:
    """A model of one's own, which a test may alter."""
    return load_tiny


def make_sentences(n: int) -> tuple[str, ...]:
    """Sentences of 1 to 14 words, in no order of length."""
    lengths = [1 + (7 * i + i * i) % 14 for i in range(n)]
    return tuple(
        " ".join(WORDS[(i * 3 + j * 5) % len(WORDS)] for j in range(k)) + f" {i}"
        for i, k in enumerate(lengths)
    )


@pytest.fixture
def corpus_of() -> Callable[[int], ParallelCorpus]:
    def build(n: int) -> ParallelCorpus:
        text = make_sentences(n)
        ids = tuple(f"s{i}" for i in range(n))
        documents = tuple(f"d{i // 3}" for i in range(n))
        upper = tuple(sentence.upper() for sentence in text)
        return ParallelCorpus("made", ids, {"eng_Latn": text, "eng_Upper": upper}, documents)

    return build
