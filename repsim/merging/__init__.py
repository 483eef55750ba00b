"""Merging models: methods, recipes, static check, streaming execution, alignment."""

from repsim._lazy import lazily

#: Public name -> where it lives. Listing what there is needs no torch.
_PUBLIC = {
    "METHODS": "repsim.merging.methods",
    "Gram": "repsim.merging.base",
    "Finding": "repsim.merging.check",
    "MergeMethod": "repsim.merging.base",
    "Recipe": "repsim.merging.recipe",
    "Stream": "repsim.merging.arrays",
    "TensorContext": "repsim.merging.base",
    "WholeModels": "repsim.merging.base",
    "check_models": "repsim.merging.check",
    "collect_fisher": "repsim.merging.statistics",
    "collect_gram": "repsim.merging.statistics",
    "extract_lora": "repsim.merging.lora",
    "list_methods": "repsim.merging.methods",
    "load_statistics": "repsim.merging.statistics",
    "merge": "repsim.merging.to_disk",
    "merge_method": "repsim.merging.base",
    "merge_models": "repsim.merging.models",
    "merge_state_dicts": "repsim.merging.in_memory",
    "parameter": "repsim.merging.parameters",
    "per_model": "repsim.merging.parameters",
    "save_statistics": "repsim.merging.statistics",
    "read_recipe": "repsim.merging.reading",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
