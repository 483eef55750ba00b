"""The first steps of the packaged models: weights and curve as in version 0.1, byte for byte.

Where another library or another processor rounds otherwise, the losses to five digits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repsim.pretraining import pretrain, read_metrics
from repsim.pretraining.config import from_mapping

#: The family of `repsim/pretraining/examples/zoo.yaml` with eight steps and less text.
FAMILY: dict[str, Any] = {
    "name": "zoo", "data_order": 1,
    "corpus": {"source": "bible", "languages": ["eng_Latn", "deu_Latn"], "max_bytes": 200_000},
    "tokenizer": {"kind": "joint", "vocab_size": 4096},
    "architecture": {"family": "llama", "size": "1m"},
    "training": {"steps": 8, "batch": 8, "learning_rate": 4e-3, "schedule": "wsd", "decay": 0.2},
    "saving": {"checkpoints": "none", "log_every": 4, "state_every": 4, "validation_bytes": 2000,
               "final_bytes": 2000, "validate_every": 4, "dtype": "bfloat16"},
    "runs": [
        {"name": "mixed", "mix": {"eng_Latn": 0.5, "deu_Latn": 0.5}, "init_seed": 1,
         "data_seed": 1},
        {"name": "deu-fork", "languages": ["deu_Latn"], "fork": {"from": "mixed", "at": 0.85}},
    ],
}  # fmt: skip
#: Run -> SHA-256 of its weights and of its metrics, and its losses. The fork's metrics have one row
#: more than in version 0.1: held-out text is scored before the first of its steps too.
KNOWN: dict[str, tuple[str, str, list[float]]] = {
    "mixed": (
        "199dacb65bfe008521badd7265b837a687ba37a96000e732237764836c2e28db",
        "e46a5ab42f1eae0234db4473f8c51094142bb7eed298743a4fd1615b8702d50e",
        [8.3764753, 8.3594475, 8.0044127, 7.5826812, 7.5190415, 7.1743460, 7.1187978, 6.9993095],
    ),
    "deu-fork": (
        "f1978db884061efc453427db9bfaf1597e874ebc9bd33bf8f21ef13dcf0b248b",
        "6101e32cf7fc05304c265cfa961b6ebd53932969ecb200113f7086da22a0ba2d",
        [7.3886623],
    ),
}
MADE_BY = ("2.13.0+cpu", "AVX2")


def test_the_first_steps_of_the_packaged_models_stay_as_they_were(tmp_path: Path) -> None:
    same = (torch.__version__, torch.backends.cpu.get_cpu_capability()) == MADE_BY
    for ref in pretrain(from_mapping(FAMILY), tmp_path, device="cpu"):
        path = tmp_path / ref.name / "metrics.jsonl"
        weights, metrics, losses = KNOWN[ref.name]
        found = [row["loss"] for row in read_metrics(path) if row["kind"] == "train"]
        np.testing.assert_allclose(found, losses, rtol=1e-5)
        if same:
            assert ref.weights_hash == weights
            assert hashlib.sha256(path.read_bytes()).hexdigest() == metrics
