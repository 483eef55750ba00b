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
_DECODERS, _ENCODERS = "repsim.models.arch.decoders", "repsim.models.arch.encoders"
_EXPERTS = "repsim.models.arch.experts"
ARCHITECTURES.add(
    "llama",
    f"{_DECODERS}:LLAMA",
    aliases=("mistral", "ministral", "ministral3", "qwen2", "smollm3"),
)
ARCHITECTURES.add("granite", f"{_DECODERS}:GRANITE")
ARCHITECTURES.add("qwen3", f"{_DECODERS}:QWEN3")
ARCHITECTURES.add("gemma", f"{_DECODERS}:GEMMA")
ARCHITECTURES.add("gemma2", f"{_DECODERS}:GEMMA2")
ARCHITECTURES.add("gemma3_text", f"{_DECODERS}:GEMMA3")
ARCHITECTURES.add("gemma3", f"{_DECODERS}:GEMMA3_VISION")
ARCHITECTURES.add("mistral3", f"{_DECODERS}:MISTRAL3")
ARCHITECTURES.add("olmo2", f"{_DECODERS}:OLMO2", aliases=("olmo3",))
ARCHITECTURES.add("cohere", f"{_DECODERS}:COHERE", aliases=("cohere2",))
ARCHITECTURES.add("helium", f"{_DECODERS}:HELIUM", aliases=("ernie4_5",))
ARCHITECTURES.add("glm", f"{_DECODERS}:GLM")
ARCHITECTURES.add("glm4", f"{_DECODERS}:GLM4")
ARCHITECTURES.add("falcon", f"{_DECODERS}:FALCON")
ARCHITECTURES.add("phi", f"{_DECODERS}:PHI")
ARCHITECTURES.add("phi3", f"{_DECODERS}:PHI3")
ARCHITECTURES.add("stablelm", f"{_DECODERS}:STABLELM")
ARCHITECTURES.add("starcoder2", f"{_DECODERS}:STARCODER2")
ARCHITECTURES.add("gpt2", f"{_DECODERS}:GPT2")
ARCHITECTURES.add("gpt_neox", f"{_DECODERS}:GPT_NEOX")
ARCHITECTURES.add("opt", f"{_DECODERS}:OPT")
ARCHITECTURES.add("bloom", f"{_DECODERS}:BLOOM")
ARCHITECTURES.add("mixtral", f"{_EXPERTS}:MIXTRAL")
ARCHITECTURES.add("qwen2_moe", f"{_EXPERTS}:QWEN2_MOE")
ARCHITECTURES.add("qwen3_moe", f"{_EXPERTS}:QWEN3_MOE")
ARCHITECTURES.add("olmoe", f"{_EXPERTS}:OLMOE")
ARCHITECTURES.add("gpt_oss", f"{_EXPERTS}:GPT_OSS")
ARCHITECTURES.add("deepseek_v3", f"{_EXPERTS}:DEEPSEEK_V3")
ARCHITECTURES.add("mamba", "repsim.models.arch.state_space:MAMBA")
ARCHITECTURES.add("bert", f"{_ENCODERS}:BERT")
ARCHITECTURES.add("roberta", f"{_ENCODERS}:ROBERTA", aliases=("xlm-roberta", "camembert"))
ARCHITECTURES.add("distilbert", f"{_ENCODERS}:DISTILBERT")
ARCHITECTURES.add("modernbert", f"{_ENCODERS}:MODERNBERT")
ARCHITECTURES.add("t5", f"{_ENCODERS}:T5", aliases=("mt5",))


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
