"""The nouns and the plumbing. Knows no other package of repsim, and no heavy library."""

from repsim.core.activations import Activations, ArraysInMemory, ArraySource, Pooling
from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import (
    GateFailedError,
    IncompatibleModelsError,
    InputError,
    RepsimError,
    ResourceError,
    UsageError,
)
from repsim.core.measure import Invariance, Measure, Rung
from repsim.core.model_ref import ModelRef
from repsim.core.registry import Registry
from repsim.core.runs import RunFolder
from repsim.core.similarity_table import Grid, SimilarityTable

__all__ = [
    "Activations", "ArraySource", "ArraysInMemory", "GateFailedError", "Grid",
    "IncompatibleModelsError", "InputError", "Invariance", "Measure", "ModelRef", "ParallelCorpus",
    "Pooling", "Registry", "RepsimError", "ResourceError", "Rung", "RunFolder", "SimilarityTable",
    "UsageError",
]  # fmt: skip
