"""Which measure to trust: tests whose answer is known, on models whose history is known.

After ReSi (Klabunde et al. 2025, arXiv:2408.00531): a measure is right where it puts two
representations in the order that training, noise or depth gives them. `repsim measures --benchmark`
runs it, the table that ships answers `repsim measures --recommend`.
"""

from __future__ import annotations

import importlib
from typing import Any

from repsim.studies.measure_benchmark.recommend import Recommendation, recommend
from repsim.studies.measure_benchmark.table import QUESTIONS, MeasureScores, load_scores

#: Public name -> module that holds it, imported on first use: an answer needs no torch.
_LATER = {
    "Benchmark": "repsim.studies.measure_benchmark.run",
    "plan_benchmark": "repsim.studies.measure_benchmark.run",
    "run_benchmark": "repsim.studies.measure_benchmark.run",
}

__all__ = [
    "QUESTIONS", "MeasureScores", "Recommendation", "load_scores", "recommend", *_LATER,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'repsim.studies.measure_benchmark' has no attribute '{name}'")
