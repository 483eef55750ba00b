"""A broken merge diagnosed: what is lost, where, why, and which change of recipe mends it."""

from repsim.mergeability.diagnosis.causes import CAUSES, Cause
from repsim.mergeability.diagnosis.diagnose import Diagnosis, diagnose

__all__ = ["CAUSES", "Cause", "Diagnosis", "diagnose"]
