"""Load a causal language model with its head: what scoring text needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.errors import IncompatibleModelsError
from repsim.core.model_ref import ModelRef
from repsim.models.inspect import ModelLike, describe, locate, read_config
from repsim.models.load import choose_device, load_tokenizer, load_weights

if TYPE_CHECKING:
    import torch
    from torch import nn


class CausalModel(NamedTuple):
    """A causal language model in memory.

    Attributes:
        model: With its head, in evaluation mode, gradients off.
        tokenizer: Its `transformers` tokenizer.
        ref: Identity and history.
    """

    model: nn.Module
    tokenizer: Any
    ref: ModelRef


def load_causal_lm(
    name: ModelLike,
    *,
    label: str | None = None,
    device: str | torch.device = "cpu",
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    allow_network: bool = False,
) -> CausalModel:
    """Load a causal language model, with its head, from a folder, the zoo or the hub.

    The family needs no spec: nothing is hooked. Arguments as in `load_model`.

    Raises:
        InputError: Nothing is there, or files are missing, truncated, pickled or incomplete.
        IncompatibleModelsError: The model does not predict the next token (an encoder).
        ResourceError: The device is not there.
        UsageError: `device` or `dtype` is not one.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = write_tiny_model("llama", tempfile.mkdtemp() + "/tiny", head=True)
        >>> model, tokenizer, ref = load_causal_lm(folder)
        >>> type(model).__name__, ref.name
        ('LlamaForCausalLM', 'tiny')
    """
    where = choose_device(device)
    located = locate(name, label=label, revision=revision, allow_network=allow_network)
    config, spec = read_config(located.folder, generic=True)
    if not spec.decoder:
        raise IncompatibleModelsError(
            f"model '{located.name}' ({config.model_type}) does not predict the next token",
            hint="bits per byte are defined for causal language models; an encoder can be read by "
            "repsim compare",
        )
    ref = describe(located, config, spec)
    tokenizer = load_tokenizer(located.folder, config)
    model = load_weights(
        located.folder, config, "AutoModelForCausalLM", dtype, device=where, device_map=device_map
    )
    return CausalModel(model, tokenizer, ref)
