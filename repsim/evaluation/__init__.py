"""What a merge lost: bits per byte, retention, barriers, retrieval, minimal pairs."""

from repsim._lazy import lazily

#: Public name -> where it lives.
_PUBLIC = {
    "BarrierTable": "repsim.evaluation.path",
    "BitsPerByte": "repsim.evaluation.bits_per_byte",
    "EvaluationTable": "repsim.evaluation.table",
    "EvaluationText": "repsim.evaluation.text",
    "Interval": "repsim.stats.intervals",
    "MergeOutcome": "repsim.evaluation.retention",
    "MinimalPair": "repsim.evaluation.minimal_pairs",
    "PreparedText": "repsim.evaluation.text",
    "barrier": "repsim.evaluation.path",
    "builtin_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "evaluate": "repsim.evaluation.held_out",
    "evaluate_bits_per_byte": "repsim.evaluation.bits_per_byte",
    "gain_kept": "repsim.evaluation.retention",
    "judge": "repsim.evaluation.retention",
    "load_evaluation_text": "repsim.evaluation.text",
    "read_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "retrieval": "repsim.evaluation.sentence_retrieval",
    "run_harness": "repsim.evaluation.harness",
    "score_minimal_pairs": "repsim.evaluation.minimal_pairs",
    "unigram_floor": "repsim.evaluation.floor",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
