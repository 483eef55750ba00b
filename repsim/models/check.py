"""Try a model out: does everything hold that similarity relies on?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repsim.core.errors import IncompatibleModelsError, RepsimError
from repsim.models.arch import ArchSpec, HookPoint
from repsim.models.arch.generic import GenericSpec
from repsim.models.hooks import hooked
from repsim.models.inspect import ModelLike
from repsim.models.load import LoadedModel, load_model

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Two texts of different length, so that one of them is padded.
_SAMPLE = ("A short sentence.", "A somewhat longer sentence, with ßpécial characters: 你好.")


class Check(NamedTuple):
    """Outcome of one check."""

    check: str
    ok: bool
    message: str
    exit_code: int = 4  # where it failed


def check_model(
    name: ModelLike,
    *,
    generic: bool = False,
    revision: str | None = None,
    allow_network: bool = False,
) -> list[Check]:
    """Load a model and test that it can be measured. What fails is reported, not raised.

    Args:
        name: As in `load_model`.
        generic: Whether families without a spec are hooked by guesswork.
        revision: Revision on the hub.
        allow_network: Whether something that is not here may be downloaded.

    Returns:
        The checks in order: load (files, spec, tokenizer, weights complete), finite weights, text
        encoded without loss, hook points found, `resid` equal to the model's own `hidden_states`.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = write_tiny_model("gpt2", tempfile.mkdtemp() + "/tiny")
        >>> [c.check for c in check_model(folder)], all(c.ok for c in check_model(folder))
        (['load', 'weights', 'tokenizer', 'hook points', 'resid'], True)
    """
    try:
        loaded = load_model(name, generic=generic, revision=revision, allow_network=allow_network)
    except RepsimError as error:
        return [Check("load", False, str(error), error.exit_code)]
    ref = loaded.ref
    size = f"{ref.layers} x {ref.width}, {ref.parameters / 1e6:.1f}M parameters"
    checks = [Check("load", True, f"architecture '{ref.architecture}', {size}")]
    parts: dict[str, Callable[[LoadedModel], tuple[bool, str]]] = {
        "weights": _weights_are_sound,
        "tokenizer": _text_is_encoded,
        "hook points": _points_are_found,
        "resid": _resid_is_hidden_states,
    }
    for what, test in parts.items():
        if what == "resid" and not all(check.ok for check in checks if check.check == "tokenizer"):
            checks.append(Check(what, False, "not tried, since the tokenizer failed"))
            continue
        try:
            checks.append(Check(what, *test(loaded)))
        except RepsimError as error:
            checks.append(Check(what, False, str(error), error.exit_code))
    return checks


def _weights_are_sound(loaded: LoadedModel) -> tuple[bool, str]:
    """Finite, and not all zero; single blocks that add nothing may have matrices of zeros."""
    import torch

    named = list(loaded.model.named_parameters())
    if bad := [name for name, p in named if not torch.isfinite(p).all()]:
        return False, f"NaN or infinity in {len(bad)} tensor(s), first {bad[0]}"
    matrices = [(name, p) for name, p in named if p.ndim >= 2]
    zero = [name for name, p in matrices if not p.any()]
    embedding = getattr(loaded.model, "get_input_embeddings", lambda: None)()
    blank = embedding is not None and not embedding.weight.any()
    if zero and (blank or len(zero) > len(matrices) / 2):
        return False, f"{len(zero)} of {len(matrices)} matrices are all zero, first {zero[0]}"
    return True, "all finite" + (f"; {len(zero)} matrices are all zero" if zero else "")


def _text_is_encoded(loaded: LoadedModel) -> tuple[bool, str]:
    ids = loaded.tokenizer(list(_SAMPLE)).input_ids
    rows = getattr(loaded.model.config, "vocab_size", math.inf)
    top = max(max(row) for row in ids)
    if top >= rows:
        return False, f"token id {top} is outside the vocabulary of {rows}"
    unknown = loaded.tokenizer.unk_token_id
    share = sum(row.count(unknown) for row in ids) / sum(map(len, ids))
    if share > 0.5:
        return False, f"{share:.0%} of the tokens of two plain sentences are unknown"
    return True, f"{len(loaded.tokenizer)} tokens; two sentences in {sum(map(len, ids))}"


def _points_are_found(loaded: LoadedModel) -> tuple[bool, str]:
    spec = loaded.spec
    hooks = spec.hook_points(loaded.model, spec.points)
    found, stated = sum(hook.point == "resid" for hook in hooks) - 1, loaded.ref.layers
    if found != stated:
        return False, f"{found} blocks found, config.json states {stated}"
    part = f" (read is {spec.reads})" if spec.reads else ""
    return True, f"{', '.join(spec.points)} in {found} blocks{part}"


def _resid_is_hidden_states(loaded: LoadedModel) -> tuple[bool, str]:
    import torch

    spec, last = loaded.spec, loaded.ref.layers
    batch = loaded.tokenizer(list(_SAMPLE), return_tensors="pt", padding=True)
    streams, states = read_streams(spec, loaded.model, batch.input_ids, batch.attention_mask)
    if len(states) != last + 1:
        return False, f"the model reports {len(states)} hidden states for {last} blocks"
    for layer, state in enumerate(states):
        if not torch.isfinite(state).all():
            return False, f"layer {layer} holds NaN or infinity"
        final = layer == last
        if final and isinstance(spec, GenericSpec):
            return True, f"equal in layers 0 to {last - 1}; what follows the last one is not known"
        read = streams["resid", min(layer + spec.first_state, last)]
        if final:
            read = with_final_norm(spec, loaded.model, read)
        if not torch.equal(read, state):
            return False, f"layer {layer} differs from hidden_states"
    return True, f"equal to hidden_states in all {len(states)} layers"


def read_streams(
    spec: ArchSpec,
    model: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    points: Sequence[str] = ("resid",),
) -> tuple[dict[tuple[str, int], torch.Tensor], tuple[torch.Tensor, ...]]:
    """Run one batch; return what the hooks see beside what the model itself reports."""
    import torch

    body = spec.body(model)
    seen: dict[tuple[str, int], torch.Tensor] = {}

    def take(hook: HookPoint, value: torch.Tensor) -> None:
        seen[hook.point, hook.layer] = value.clone()  # some blocks add to it in place

    with hooked(body, spec.hook_points(model, points), take), torch.no_grad():
        output = body(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
    states = getattr(output, "hidden_states", None)
    if not states:
        raise IncompatibleModelsError(f"{type(body).__name__} reports no hidden_states")
    return seen, tuple(states)


def with_final_norm(spec: ArchSpec, model: nn.Module, last: torch.Tensor) -> torch.Tensor:
    """The last `resid` as `hidden_states` reports it: behind the final norm, where there is one."""
    import torch

    norm = spec.final_norm(model)
    if norm is None:
        return last
    with torch.no_grad():
        normed: torch.Tensor = norm(last)
    return normed
