"""Model families, loading, and models that come in packages."""

from repsim._lazy import lazily

#: Public name -> where it lives. Loading a model needs torch, listing what there is does not.
_PUBLIC = {
    "ARCHITECTURES": "repsim.models.arch",
    "ArchSpec": "repsim.models.arch",
    "CausalModel": "repsim.models.causal",
    "HookPoint": "repsim.models.arch",
    "LoadedModel": "repsim.models.load",
    "POINTS": "repsim.models.arch",
    "check_model": "repsim.models.check",
    "fetch_model": "repsim.models.packages",
    "inspect_model": "repsim.models.inspect",
    "list_models": "repsim.models.packages",
    "list_zoo": "repsim.models.zoo",
    "load_causal_lm": "repsim.models.causal",
    "load_model": "repsim.models.load",
    "named_models": "repsim.models.in_memory",
    "read_activation": "repsim.models.arch",
    "spec_for": "repsim.models.arch",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
