"""Families of language models with a known history, trained from scratch or from a model."""

from repsim._lazy import lazily

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
    "merge": "repsim.pretraining.finetuned_merge",
    "model_ref": "repsim.pretraining.folder",
    "plan": "repsim.pretraining.planning",
    "plan_finetuning": "repsim.pretraining.finetuning",
    "pretrain": "repsim.pretraining.family",
    "read_metrics": "repsim.pretraining.metrics",
    "read_provenance": "repsim.pretraining.folder",
    "run_finetuning": "repsim.pretraining.finetuning",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
