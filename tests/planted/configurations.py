"""The smallest studies and families that are worth running, and the text that they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def study(**changes: Any) -> str:
    """A study file of two forks of one beginning and their merge."""
    shape = {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "context": 32}
    plain: dict[str, Any] = {
        "name": "micro",
        "corpus": "bible",
        "languages": ["eng_Latn", "deu_Latn"],
        "vocabulary": 400,
        "architecture": {"family": "llama", **shape},
        "training": {"tokens": 2_000, "batch": 4, "learning_rate": 8e-3},
        "max_bytes": 50_000,
        "arms": {"A": [{"fractions": [0]}]},
        "merging": {"methods": ["linear"], "aligned_methods": [], "alignments": []},
        "evaluation": {"max_bytes": 4000},
        "features": {"tiers": ["T0"], "sentences": 30},
    }
    made = {key: own for key, own in (plain | changes).items() if own is not None}
    return json.dumps(made)


def one_run(folder: Path, texts: int = 60, **changes: Any) -> dict[str, Any]:
    """A configuration of one English run, over made-up lines that are written to a folder."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", texts), ("heldout", 5)):
        lines = [f"text {i} tells of {i * 7 % 13} and of {i * i % 31} things" for i in range(count)]
        (corpus / f"eng_Latn.{split}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return {
        "name": "one",
        "corpus": {"source": str(corpus), "languages": ["eng_Latn"]},
        "tokenizer": {"vocab_size": 300},
        "runs": [{"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}],
        **changes,
    }
