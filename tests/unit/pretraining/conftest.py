"""A corpus of two made-up languages, and the smallest family that is worth training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repsim.pretraining.config import FamilyConfig, from_mapping


def write_corpus(folder: Path, languages: tuple[str, ...]) -> Path:
    """Sentences over a small vocabulary of each language's own letters; 60 and 6 documents."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, language in enumerate(languages):
        rng = np.random.default_rng(number)
        letters = np.array(list("aeioubcd" if number == 0 else "äöüßklmn"))
        words = ["".join(rng.choice(letters, size=rng.integers(2, 6))) for _ in range(40)]
        weights = 1.0 / np.arange(1, 41)
        for split, documents in (("train", 60), ("heldout", 6)):
            texts = [
                " ".join(rng.choice(words, size=80, p=weights / weights.sum()))
                for _ in range(documents)
            ]
            path = folder / f"{language}.{split}.txt"
            path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), ("eng_Latn", "deu_Latn"))


@pytest.fixture(scope="session")
def document(corpus: Path) -> Callable[..., dict[str, Any]]:
    """A family's configuration as a mapping; keywords replace top-level keys."""

    def make(**changes: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "name": "tiny",
            "corpus": {"source": str(corpus), "languages": ["eng_Latn", "deu_Latn"]},
            "tokenizer": {"vocab_size": 300},
            "architecture": {"hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "context": 16},
            "training": {"steps": 8, "batch": 4, "learning_rate": 1e-2},
            "saving": {"state_every": 2, "log_every": 3, "validation_bytes": 500},
            "runs": [{"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}],
        }
        return plain | changes

    return make


@pytest.fixture(scope="session")
def family(document: Callable[..., dict[str, Any]]) -> Callable[..., FamilyConfig]:
    """The same, checked."""
    return lambda **changes: from_mapping(document(**changes))
