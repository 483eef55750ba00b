"""Model families that are known. Adding one = a spec in a file of its own and a line here.

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
ARCHITECTURES.add(
    "llama", "repsim.models.arch.llama:LLAMA", aliases=("mistral", "qwen2", "qwen3", "gemma")
)
ARCHITECTURES.add("gemma2", "repsim.models.arch.llama:GEMMA2", aliases=("gemma3_text",))
ARCHITECTURES.add("gpt2", "repsim.models.arch.gpt2:GPT2")
ARCHITECTURES.add("gpt_neox", "repsim.models.arch.gpt_neox:GPT_NEOX")
ARCHITECTURES.add("opt", "repsim.models.arch.opt:OPT")
ARCHITECTURES.add("bloom", "repsim.models.arch.bloom:BLOOM")
ARCHITECTURES.add(
    "bert", "repsim.models.arch.bert:BERT", aliases=("roberta", "xlm-roberta", "camembert")
)
ARCHITECTURES.add("distilbert", "repsim.models.arch.bert:DISTILBERT")
ARCHITECTURES.add("t5", "repsim.models.arch.t5:T5", aliases=("mt5",))


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
