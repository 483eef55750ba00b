"""Families of language models with a known history, trained from scratch or from a model."""

from __future__ import annotations

import importlib
from typing import Any

#: Public name -> where it lives.
_PUBLIC = {
    "BitsPerByte": "repsim.evaluation.bits_per_byte",
    "DivergedError": "repsim.pretraining.loop",
    "FamilyConfig": "repsim.pretraining.config",
    "RunPlan": "repsim.pretraining.planning",
    "before_and_after": "repsim.pretraining.finetuning",
    "evaluate_bits_per_byte": "repsim.evaluation.bits_per_byte",
    "finetune": "repsim.pretraining.finetuning",
    "load_config": "repsim.pretraining.config",
    "log_to_stderr": "repsim.pretraining.metrics",
    "model_ref": "repsim.pretraining.folder",
    "plan": "repsim.pretraining.planning",
    "plan_finetuning": "repsim.pretraining.finetuning",
    "pretrain": "repsim.pretraining.family",
    "read_metrics": "repsim.pretraining.metrics",
    "read_provenance": "repsim.pretraining.folder",
    "run_finetuning": "repsim.pretraining.finetuning",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'repsim.pretraining' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
