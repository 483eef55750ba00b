"""Symmetry-aware alignment: models into the coordinates of a reference before they are merged."""

from repsim.merging.align.activation_matching import collect_activations
from repsim.merging.align.alignment import AlignmentResult, ModelAlignment, align
from repsim.merging.align.checking import build_model, output_difference
from repsim.merging.align.learned import Learned, Learning
from repsim.merging.align.repair import RepairReport, RepairResult, repair_state_dict

__all__ = [
    "AlignmentResult",
    "Learned",
    "Learning",
    "ModelAlignment",
    "RepairReport",
    "RepairResult",
    "align",
    "build_model",
    "collect_activations",
    "output_difference",
    "repair_state_dict",
]
