"""Which measure to trust: tests whose answer is known, on models whose history is known.

After ReSi (Klabunde et al. 2025, arXiv:2408.00531): a measure is right where it puts two
representations in the order that training, noise or depth gives them. `repsim measures --benchmark`
runs it, the table that ships answers `repsim measures --recommend`.
"""

from __future__ import annotations

from repsim.studies.measure_benchmark.recommend import Recommendation, recommend
from repsim.studies.measure_benchmark.run import Benchmark, plan_benchmark, run_benchmark
from repsim.studies.measure_benchmark.table import QUESTIONS, MeasureScores, load_scores

__all__ = [
    "QUESTIONS", "Benchmark", "MeasureScores", "Recommendation", "load_scores", "plan_benchmark",
    "recommend", "run_benchmark",
]  # fmt: skip
