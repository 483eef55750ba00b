"""repsim: will these language models merge?

Representational similarity of language models, layer by layer and language by language, with honest
statistics; merging with and without alignment; what a merge lost; a forecast of it. Names are
loaded on first use, so that importing the package costs nothing.

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
    from repsim.core.atlas import Atlas
    from repsim.core.forecast import MergeForecast
    from repsim.core.table import Table
    from repsim.corpora import load_corpus
    from repsim.evaluation import barrier, evaluate
    from repsim.measures import assess, between_models, difference, measure, sweep
    from repsim.mergeability.diagnosis import diagnose
    from repsim.mergeability.forecast import predict_merge, rank_methods
    from repsim.merging import check_models, merge_models
    from repsim.merging.align import align
    from repsim.merging.ancestry import check_base
    from repsim.merging.lineage import lineage
    from repsim.merging.parts import take_apart
    from repsim.models import load_model
    from repsim.pretraining import finetune, merge, pretrain
    from repsim.studies.atlases import load_atlas
    from repsim.studies.compare import compare
    from repsim.studies.compare_dumps import compare_arrays
    from repsim.studies.compare_modules import compare_modules

__version__ = "0.2.0"

#: Verbs and nouns -> where they live.
_PUBLIC = {
    "align": "repsim.merging.align",
    "assess": "repsim.measures",
    "barrier": "repsim.evaluation",
    "between_models": "repsim.measures",
    "check_base": "repsim.merging.ancestry",
    "check_models": "repsim.merging",
    "compare": "repsim.studies.compare",
    "compare_arrays": "repsim.studies.compare_dumps",
    "compare_modules": "repsim.studies.compare_modules",
    "diagnose": "repsim.mergeability.diagnosis",
    "difference": "repsim.measures",
    "evaluate": "repsim.evaluation",
    "extract": "repsim.activations",
    "finetune": "repsim.pretraining",
    "lineage": "repsim.merging.lineage",
    "load_atlas": "repsim.studies.atlases",
    "load_corpus": "repsim.corpora",
    "load_model": "repsim.models",
    "measure": "repsim.measures",
    "merge": "repsim.pretraining",
    "merge_models": "repsim.merging",
    "predict_merge": "repsim.mergeability.forecast",
    "pretrain": "repsim.pretraining",
    "rank_methods": "repsim.mergeability.forecast",
    "sweep": "repsim.measures",
    "take_apart": "repsim.merging.parts",
    "Activations": "repsim.core",
    "Atlas": "repsim.core.atlas",
    "Measure": "repsim.core",
    "MergeForecast": "repsim.core.forecast",
    "ModelRef": "repsim.core",
    "ParallelCorpus": "repsim.core",
    "RepsimError": "repsim.core",
    "SimilarityTable": "repsim.core",
    "Table": "repsim.core.table",
}
_PACKAGES = (
    "activations", "core", "corpora", "evaluation", "measures", "mergeability", "merging", "models",
    "plots", "pretraining", "reports", "stats", "studies", "testing",
)  # fmt: skip

__all__ = [
    "__version__", "Activations", "Atlas", "Measure", "MergeForecast", "ModelRef",
    "ParallelCorpus", "RepsimError", "SimilarityTable", "Table", "align", "assess", "barrier",
    "between_models", "check_base", "check_models", "compare", "compare_arrays",
    "compare_modules", "diagnose", "difference", "evaluate", "extract", "finetune", "lineage",
    "load_atlas", "load_corpus", "load_model", "measure", "merge", "merge_models", "predict_merge",
    "pretrain", "rank_methods", "sweep", "take_apart",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"repsim.{name}")
    raise AttributeError(f"module 'repsim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
