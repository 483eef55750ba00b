"""A study of two models and one merge, and its commands."""

from pathlib import Path

import pytest

from repsim.cli.main import main

MICRO = """
name: micro
corpus: bible
languages: [eng_Latn, deu_Latn]
vocabulary: 400
architecture: {family: llama, hidden: 16, layers: 1, heads: 2, kv_heads: 1, context: 32}
training: {tokens: 2_000, batch: 4, learning_rate: 8.0e-3}
max_bytes: 50_000
arms:
  A: [{fractions: [0]}]
merging: {methods: [linear], aligned_methods: [], alignments: []}
evaluation: {max_bytes: 4000}
features: {tiers: [T0], sentences: 30}
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["study", *arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def micro(tmp_path: Path) -> str:
    (tmp_path / "micro.yaml").write_text(MICRO)
    return str(tmp_path / "micro.yaml")
