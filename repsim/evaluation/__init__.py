"""What a merge lost: bits per byte, retention, barriers, retrieval, minimal pairs."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives.
_PUBLIC = {
    "BarrierTable": "repsim.evaluation.path",
    "BitsPerByte": "repsim.evaluation.bits_per_byte",
    "EvaluationTable": "repsim.evaluation.table",
    "EvaluationText": "repsim.evaluation.text",
    "Interval": "repsim.stats.intervals",
    "MergeOutcome": "repsim.evaluation.retention",
    "MinimalPair": "repsim.evaluation.minimal_pairs",
    "PreparedText": "repsim.evaluation.text",
    "barrier": "repsim.evaluation.path",
    "builtin_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "evaluate": "repsim.evaluation.held_out",
    "evaluate_bits_per_byte": "repsim.evaluation.bits_per_byte",
    "judge": "repsim.evaluation.retention",
    "load_evaluation_text": "repsim.evaluation.text",
    "read_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "retrieval": "repsim.evaluation.sentence_retrieval",
    "run_harness": "repsim.evaluation.harness",
    "score_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "unigram_floor": "repsim.evaluation.floor",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.evaluation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
