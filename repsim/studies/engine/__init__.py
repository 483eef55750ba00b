"""The engine of studies: units of work, a store of immutable parts, executors. Knows no model."""

from repsim.studies.engine.executors import EXECUTORS, Executor, make_executor
from repsim.studies.engine.folder import StudyFolder, StudyStatus, study_status
from repsim.studies.engine.graph import Graph, selected
from repsim.studies.engine.kinds import UNIT_KINDS, UnitFunction, unit_function
from repsim.studies.engine.run import Event, Outcome, run_graph
from repsim.studies.engine.store import Store
from repsim.studies.engine.unit import Unit, unit_keys
from repsim.studies.engine.workspace import Workspace

__all__ = [
    "EXECUTORS",
    "UNIT_KINDS",
    "Event",
    "Executor",
    "Graph",
    "Outcome",
    "Store",
    "StudyFolder",
    "StudyStatus",
    "Unit",
    "UnitFunction",
    "Workspace",
    "make_executor",
    "run_graph",
    "selected",
    "study_status",
    "unit_function",
    "unit_keys",
]
