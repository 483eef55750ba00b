"""repsim: will these language models merge?

Representational similarity of language models, layer by layer and language by language, with honest
statistics. Names are loaded on first use, so that importing the package costs nothing.

Example:
    >>> import repsim
    >>> repsim.ParallelCorpus.__name__
    'ParallelCorpus'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim.activations import extract
    from repsim.core import (
        Activations,
        Measure,
        ModelRef,
        ParallelCorpus,
        RepsimError,
        SimilarityTable,
    )
    from repsim.core.forecast import MergeForecast
    from repsim.corpora import load_corpus
    from repsim.evaluation import barrier, evaluate
    from repsim.measures import compare_arrays, measure, sweep
    from repsim.mergeability.forecast import predict_merge
    from repsim.merging.align import align
    from repsim.models import load_model
    from repsim.pretraining import pretrain
    from repsim.studies.compare import compare

__version__ = "0.1.0"

#: Public name -> where it lives.
_PUBLIC = {
    "Activations": "repsim.core",
    "Measure": "repsim.core",
    "ModelRef": "repsim.core",
    "ParallelCorpus": "repsim.core",
    "RepsimError": "repsim.core",
    "SimilarityTable": "repsim.core",
    "align": "repsim.merging.align",
    "barrier": "repsim.evaluation",
    "compare": "repsim.studies.compare",
    "compare_arrays": "repsim.measures",
    "evaluate": "repsim.evaluation",
    "MergeForecast": "repsim.core.forecast",
    "load_corpus": "repsim.corpora",
    "load_model": "repsim.models",
    "extract": "repsim.activations",
    "measure": "repsim.measures",
    "sweep": "repsim.measures",
    "predict_merge": "repsim.mergeability.forecast",
    "pretrain": "repsim.pretraining",
}

__all__ = [
    "Activations", "Measure", "MergeForecast", "ModelRef", "ParallelCorpus", "RepsimError",
    "SimilarityTable", "__version__", "align", "barrier", "compare", "compare_arrays",
    "evaluate", "extract", "load_corpus", "load_model", "measure", "predict_merge", "pretrain",
    "sweep",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in {"activations", "core", "corpora", "evaluation", "measures", "mergeability",
                "merging", "models", "plots", "pretraining",
                "reports", "studies", "testing"}:  # fmt: skip
        return importlib.import_module(f"repsim.{name}")
    raise AttributeError(f"module 'repsim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
