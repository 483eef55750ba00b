"""Forecasting merges: features of the parents, known outcomes, the predictor, its validation.

`predict_merge` asks about one merge, `rank_methods` about every way to merge some models,
`predict_matrix` about every combination of a pool (`ForecastTable` keeps its answers). `Predictor`,
an estimator of scikit-learn, is fitted on an `EvidenceTable` or its data frame; `validate` tells
how good it is on models never seen. `AdditiveRegressor` is the regressor in it. On tables that
somebody else made, `read_outcomes` and `validate_outcomes` tell what their features are good for.
`plan_trial` and `run_trial` forecast nothing: a merge is made, scored on little text, and removed.

Example:
    >>> from repsim.mergeability import predict_merge, rank_methods
    >>> from repsim.testing.predictors import planted_predictor
    >>> models, how = ["zoo:eng-1", "zoo:eng-2"], {"tiers": ["T0"]}
    >>> predict_merge(models, predictor=planted_predictor(), **how).verdict
    'do not merge'
    >>> best = rank_methods(models, predictor=planted_predictor(), **how)[0]
    >>> best.method, best.alignment
    ('linear', 'orthogonal')
"""

from repsim._lazy import lazily

#: Public name -> where it lives. Importing the package needs nothing heavy.
_PUBLIC = {
    "AdditiveRegressor": "repsim.stats.additive",
    "OutcomeReport": "repsim.mergeability.outcome_validation",
    "EvidenceTable": "repsim.mergeability.evidence",
    "ForecastTable": "repsim.mergeability.matrix",
    "Predictor": "repsim.mergeability.predictor",
    "Settings": "repsim.mergeability.measuring",
    "ValidationReport": "repsim.mergeability.validation_tables",
    "read_evidence": "repsim.mergeability.evidence_files",
    "read_outcomes": "repsim.mergeability.outcome_files",
    "run_trial": "repsim.mergeability.trial",
    "shipped_predictor": "repsim.mergeability.predictor",
    "examine_hypotheses": "repsim.mergeability.hypotheses",
    "plan_trial": "repsim.mergeability.trial",
    "predict_matrix": "repsim.mergeability.matrix",
    "predict_merge": "repsim.mergeability.forecast",
    "rank_methods": "repsim.mergeability.forecast",
    "validate": "repsim.mergeability.validation",
    "validate_outcomes": "repsim.mergeability.outcome_validation",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
