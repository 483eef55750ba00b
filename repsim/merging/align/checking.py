"""Does a mapped model still compute what it computed?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.align.weights import StateDict, as_built, has_body_prefix
from repsim.models.arch import spec_for
from repsim.models.load import quiet_transformers

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Largest change of an output, relative to the largest output, that rounding explains in float32.
TOLERANCE = 1e-4
#: Parts that no output that is looked at depends on.
_OPTIONAL = ("pooler.",)


def build_model(config: Any, state: StateDict) -> nn.Module:
    """A model in float32 on the CPU out of a config and a state dict.

    Args:
        config: `transformers` config; not changed.
        state: Tensors of the base model, or of the whole model with its head.

    Returns:
        The model in evaluation mode; of an encoder with a head, the masked language model.

    Raises:
        IncompatibleModelsError: The tensors are not those of the config's model.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("gpt2", head=True)
        >>> type(build_model(tiny.config, tiny.state_dict())).__name__
        'GPT2LMHeadModel'
    """
    import torch
    import transformers

    spec = spec_for(config.model_type)
    spaces, kind = spec.spaces(config), "AutoModel"
    if has_body_prefix(state, spaces):
        kind = "AutoModelForCausalLM" if spec.decoder else "AutoModelForMaskedLM"
    plain = copy.deepcopy(config)
    if not spec.decoder:
        plain.is_decoder = False
    # What from_config draws is overwritten; the caller's stream of random numbers is left alone.
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        model: Any = getattr(transformers, kind).from_config(plain, dtype=torch.float32)
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    wanted = set(model.state_dict())
    heads = [weight.tensor[1:] for weight in spaces.weights if weight.roles == ("head",)]
    state = as_built(state, spaces)
    known = {name: tensor.float() for name, tensor in state.items() if name in wanted}
    for old, new in itertools.permutations(heads, 2):
        if old in state and old not in wanted and new in wanted:
            known[new] = state[old].float()
    report = model.load_state_dict(known, strict=False)
    missing = [
        name for name in report.missing_keys if name not in tied and not name.startswith(_OPTIONAL)
    ]
    if missing:
        raise IncompatibleModelsError(
            f"the tensors do not make up a {type(model).__name__}: {len(missing)} are missing, "
            f"first '{missing[0]}'"
        )
    model.tie_weights()
    model.requires_grad_(False)
    return model.eval()


def random_tokens(config: Any, *, seed: int = 0, shape: Sequence[int] = (2, 16)) -> torch.Tensor:
    """Token ids drawn from the whole vocabulary, `shape`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, tuple(shape), generator=generator)


def model_output(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits, or the last hidden states of a model without a head, `[batch, tokens, ...]`."""
    import torch

    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    logits = getattr(output, "logits", None)
    found: torch.Tensor = output.last_hidden_state if logits is None else logits
    return found


def output_difference(
    config: Any,
    before: StateDict,
    after: StateDict,
    *,
    after_config: Any | None = None,
    order: torch.Tensor | None = None,
    seed: int = 0,
) -> float:
    """Largest change of an output between two state dicts, relative to the largest output.

    Args:
        config: Config of the model before.
        before: Its tensors.
        after: Tensors after a map.
        after_config: Config after it, where that differs (untied head).
        order: Permutation of the residual stream, which the output of a model without a head
            follows.
        seed: Seed of the token ids.

    Raises:
        IncompatibleModelsError: The tensors do not make up a model.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> tiny = tiny_model("bert")
        >>> output_difference(tiny.config, tiny.state_dict(), tiny.state_dict())
        0.0
    """
    ids = random_tokens(config, seed=seed)
    model: Any = build_model(config, before)
    expected = model_output(model, ids)
    if order is not None and model.get_output_embeddings() is None:
        expected = expected[..., order]
    return relative_change(expected, model_output(build_model(after_config or config, after), ids))


def relative_change(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Largest change, relative to the largest of what was expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
