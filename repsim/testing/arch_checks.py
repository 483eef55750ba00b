"""Contract of an `ArchSpec`: what must hold for similarity to mean what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.models.arch import POINTS, ArchSpec
from repsim.models.arch.template import text_of
from repsim.models.check import read_streams, with_final_norm

if TYPE_CHECKING:
    import torch

ArchCheck = Callable[[ArchSpec, Any], None]


def check_arch(spec: ArchSpec, model: Any) -> None:
    """Check a spec on a model of its family, with or without a head; AssertionError says how.

    Example:
        >>> from repsim.models.arch import ARCHITECTURES
        >>> from repsim.testing.tiny_models import tiny_model
        >>> check_arch(ARCHITECTURES["gpt2"], tiny_model("gpt2"))
    """
    for check in ARCH_CHECKS.values():
        check(spec, model)


def finds_all_points(spec: ArchSpec, model: Any) -> None:
    """Each point is found once per layer, and the config states the same number of blocks."""
    layers = spec.n_layers(model.config)
    for point in spec.points:
        found = [hook.layer for hook in spec.hook_points(model, [point])]
        expected = {"embed": [0], "resid": list(range(layers + 1))}
        assert found == expected.get(point, list(range(1, layers + 1))), (
            f"{spec.name}: '{point}' was found in layers {found}"
        )


def resid_is_hidden_states(spec: ArchSpec, model: Any) -> None:
    """`resid` is the model's own `hidden_states`, bit for bit; the last behind the final norm."""
    import torch

    streams, states = _run(spec, model, ("resid",))
    assert len(states) == spec.n_layers(model.config) + 1
    for layer, state in enumerate(states):
        read = streams["resid", min(layer + spec.first_state, len(states) - 1)]
        if layer == len(states) - 1:
            read = with_final_norm(spec, model, read)
        assert torch.equal(read, state), f"{spec.name}: resid {layer} is not hidden_states[{layer}]"


def embed_enters_the_first_block(spec: ArchSpec, model: Any) -> None:
    """`embed` is layer 0 of `resid`."""
    import torch

    streams, _ = _run(spec, model, ("embed", "resid"))
    assert torch.equal(streams["embed", 0], streams["resid", 0])


def parts_add_up(spec: ArchSpec, model: Any) -> None:
    """`resid[i-1] + attn[i] + mlp[i] = resid[i]` where the spec says so, and nowhere else."""
    import torch

    parts = _branches(spec)
    if not parts:
        return
    streams, _ = _run(spec, model, ("resid", *parts))
    for i in range(1, spec.n_layers(model.config) + 1):
        total = sum((streams[part, i] for part in parts), streams["resid", i - 1])
        equal = torch.allclose(total, streams["resid", i], rtol=1e-5, atol=1e-5)
        assert equal == spec.additive(model.config), (
            f"{spec.name}: attn and mlp of block {i} {'do' if equal else 'do not'} add up to resid"
        )


def _branches(spec: ArchSpec) -> tuple[str, ...]:
    """The branches of a block that the family offers: both, or the one that a mixer has."""
    return tuple(point for point in ("attn", "mlp") if point in spec.points)


def shapes_are_stated(spec: ArchSpec, model: Any) -> None:
    """All activations are `[batch, tokens, width]`, and `heads` divides into the config's heads."""
    streams, _ = _run(spec, model, spec.points)
    ids, _ = _batch(model)
    for (point, layer), value in streams.items():
        assert value.shape[:2] == ids.shape, f"{spec.name}: {point} {layer} is {value.shape}"
        if point == "heads":
            assert value.shape[2] % spec.n_heads(model.config) == 0
        elif point != "mlp_hidden":
            assert value.shape[2] == spec.width(model.config), f"{spec.name}: {point} {layer}"


def parts_are_what_the_block_uses(spec: ArchSpec, model: Any) -> None:
    """Silencing the module of `attn` or `mlp` silences that part, so it is read where it counts."""
    import torch

    if not _branches(spec) or not spec.additive(model.config):
        return
    body = spec.body(model)
    handles = [
        body.get_submodule(hook.module).register_forward_hook(_silence)
        for hook in spec.hook_points(model, _branches(spec))
    ]
    try:
        streams, _ = _run(spec, model, ("resid",))
    finally:
        for handle in handles:
            handle.remove()
    for i in range(1, spec.n_layers(model.config) + 1):
        assert torch.equal(streams["resid", i], streams["resid", 0]), (
            f"{spec.name}: block {i} adds something that neither attn nor mlp reads"
        )


def hooks_change_nothing(spec: ArchSpec, model: Any) -> None:
    """The model's output is the same bits with hooks and without."""
    import torch

    _, hooked = _run(spec, model, spec.points)
    _, plain = _run(spec, model, ())
    assert all(torch.equal(a, b) for a, b in zip(hooked, plain, strict=True))


def refuses_unknown_points(spec: ArchSpec, model: Any) -> None:
    """A point that does not exist, or that the family lacks, is refused by name."""
    for point in {"neurons", *POINTS} - set(spec.points):
        message = ""
        try:
            spec.hook_points(model, [point])
        except UsageError as error:
            message = str(error)
        assert point in message, f"{spec.name} does not refuse the hook point '{point}' by name"


def _silence(module: Any, args: Any, output: Any) -> Any:
    import torch

    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def _batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sequences of 9 and 6 tokens, padded on the right with the config's padding token."""
    import torch

    generator = torch.Generator().manual_seed(0)
    config = text_of(model.config)
    ids = torch.randint(4, config.vocab_size, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, 6:] = config.pad_token_id or 0
    mask[1, 6:] = 0
    return ids, mask


def _run(
    spec: ArchSpec, model: Any, points: tuple[str, ...]
) -> tuple[dict[tuple[str, int], torch.Tensor], tuple[torch.Tensor, ...]]:
    return read_streams(spec, model, *_batch(model), points)


#: Name -> check, for parametrised tests.
ARCH_CHECKS: dict[str, ArchCheck] = {
    check.__name__: check
    for check in (
        finds_all_points,
        resid_is_hidden_states,
        embed_enters_the_first_block,
        parts_add_up,
        shapes_are_stated,
        parts_are_what_the_block_uses,
        hooks_change_nothing,
        refuses_unknown_points,
    )
}
