"""Model families that are known. Adding one = its spec, as data, and a line here.

Aliases are further values of `model_type` in config.json. Other distributions add families through
the entry-point group `repsim.architectures`, one entry point per model type.
"""

from __future__ import annotations

from repsim.core.errors import IncompatibleModelsError
from repsim.core.registry import Registry
from repsim.models.arch.base import POINTS, ArchSpec, HookPoint, read_activation

ARCHITECTURES: Registry[ArchSpec] = Registry(
    "architecture", entry_point_group="repsim.architectures", see="repsim models"
)
#: File -> the families whose specs stand in it, each under its name in capitals.
_FAMILIES = {
    "decoders": "llama granite qwen3 gemma gemma2 gemma3_text gemma3 mistral3 olmo2 cohere helium "
    "glm glm4 falcon phi phi3 stablelm starcoder2 gpt2 gpt_neox opt bloom",
    "experts": "mixtral qwen2_moe qwen3_moe olmoe gpt_oss deepseek_v3",
    "state_space": "mamba",
    "encoders": "bert roberta distilbert modernbert t5",
}
_ALIASES = {
    "llama": ("mistral", "ministral", "ministral3", "qwen2", "smollm3"),
    "olmo2": ("olmo3",),
    "cohere": ("cohere2",),
    "helium": ("ernie4_5",),
    "roberta": ("xlm-roberta", "camembert"),
    "t5": ("mt5",),
}
for _file, _names in _FAMILIES.items():
    for _name in _names.split():
        ARCHITECTURES.add(
            _name, f"repsim.models.arch.{_file}:{_name.upper()}", aliases=_ALIASES.get(_name, ())
        )


def supported_model_types() -> list[str]:
    """Values of `model_type` that have a spec, sorted.

    Example:
        >>> "xlm-roberta" in supported_model_types()
        True
    """
    return sorted([*ARCHITECTURES.names(), *ARCHITECTURES.aliases()])


def spec_for(model_type: str, *, generic: bool = False) -> ArchSpec:
    """The spec of a model type.

    Args:
        model_type: `model_type` of config.json.
        generic: Whether to fall back to the generic spec (`resid` only) where there is none.

    Raises:
        IncompatibleModelsError: There is no spec, and `generic` is off.

    Example:
        >>> spec_for("mistral").name
        'llama'
    """
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type]
    if generic:
        from repsim.models.arch.generic import GENERIC

        return GENERIC
    raise IncompatibleModelsError(
        f"no spec for model type '{model_type}'",
        hint=f"supported: {', '.join(supported_model_types())}; `generic=True` (--generic) hooks "
        "the outputs of its blocks without knowing the family",
    )


__all__ = [
    "ARCHITECTURES", "POINTS", "ArchSpec", "HookPoint", "read_activation", "spec_for",
    "supported_model_types",
]  # fmt: skip
