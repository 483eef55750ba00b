"""Does a mapped model still compute what it computed?"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.align.blocks import ENTRIES, give_back
from repsim.merging.align.weights import Names, StateDict, as_built, has_body_prefix
from repsim.merging.checkpoint import Checkpoint, TensorSource
from repsim.merging.checkpoint import StateDict as InMemory
from repsim.models.arch import spec_for
from repsim.models.inspect import ModelLike, locate
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
    spaces = spec_for(config.model_type).spaces(config)
    model = _without_weights(config, state)
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


def _without_weights(config: Any, names: Names) -> Any:
    """The model of a config, with its head if there are tensors of one; weights are random."""
    import torch
    import transformers

    spec = spec_for(config.model_type)
    kind = "AutoModel"
    if has_body_prefix(names, spec.spaces(config)):
        kind = "AutoModelForCausalLM" if spec.decoder else "AutoModelForMaskedLM"
    plain = copy.deepcopy(config)
    if not spec.decoder:
        plain.is_decoder = False
    # What from_config draws is overwritten; the caller's stream of random numbers is left alone.
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        return getattr(transformers, kind).from_config(plain, dtype=torch.float32)


def is_named(model: StateDict | TensorSource | ModelLike) -> bool:
    """Whether something names (or is) a model, and is not its tensors."""
    return not isinstance(model, Mapping) and not hasattr(model, "headers")


def as_source(model: StateDict | TensorSource | ModelLike, name: str = "model") -> TensorSource:
    """The tensors of a state dict or of a model that is named; a source as it is."""
    if is_named(model):
        return Checkpoint(locate(model).folder)
    source: TensorSource = InMemory(name, model) if isinstance(model, Mapping) else model
    return source


def open_model(config: Any, source: TensorSource) -> nn.Module:
    """A model in float32 whose blocks read weights when they run; else built whole."""
    with _on_meta():
        model = _without_weights(config, source.headers)
    sources = _sources_of(model, source)
    if sources is None:
        return build_model(config, {name: source.read(name) for name in source.headers})
    give_back()
    vocabulary = _of_vocabulary(model)
    for module, owners in _units(model, ""):
        own = [(owner, key, sources[name]) for owner, key, name in owners
               if owner not in vocabulary]  # fmt: skip
        if own:
            module.forward = functools.partial(_with_weights, module.forward, own, source)
    for name, module in model.named_modules():
        if run := vocabulary.get(module):
            names = [sources.get(f"{name}.{key}".lstrip("."), "") for key in ("weight", "bias")]
            module.forward = functools.partial(run, module, module.forward, source, names)
    model.requires_grad_(False)
    found: nn.Module = model.eval()
    return found


def _units(module: Any, name: str) -> Iterator[tuple[Any, list[tuple[Any, str, str]]]]:
    """Modules that run at a time, blocks or smaller, with owner, key and name of each parameter."""
    from torch import nn

    def parameters(part: Any, prefix: str) -> list[tuple[Any, str, str]]:
        return [(part, key, f"{prefix}{key}") for key, p in part._parameters.items()
                if p is not None]  # fmt: skip

    within = f"{name}." if name else ""
    of_a_list = name.rpartition(".")[2].isdigit()
    if of_a_list or not any(isinstance(part, nn.ModuleList) for part in module.modules()):
        parts = ((part, f"{within}{inner}." if inner else within)
                 for inner, part in module.named_modules())  # fmt: skip
        yield module, [found for part, prefix in parts for found in parameters(part, prefix)]
        return
    yield module, parameters(module, within)
    for key, child in module.named_children():
        yield from _units(child, f"{within}{key}")


def _sources_of(model: Any, source: TensorSource) -> dict[str, str] | None:
    """Parameter -> tensor that it is read from; None if one of them has none."""
    tied = dict(getattr(model, "all_tied_weights_keys", {}) or {})
    found = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        stored = name if name in source.headers else tied.get(name, "")
        if stored not in source.headers and not name.startswith(_OPTIONAL):
            return None
        found[name] = stored
    return found


@contextlib.contextmanager
def _on_meta() -> Iterator[None]:
    """Parameters that are made here take no memory; buffers, which are computed, do."""
    from torch import nn

    register = nn.Module.register_parameter

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            empty = nn.Parameter(parameter.to("meta"), requires_grad=False)
            module._parameters[name] = empty

    nn.Module.register_parameter = without_memory  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _of_vocabulary(model: Any) -> dict[Any, Callable[..., Any]]:
    """Plain embeddings and heads, of which some rows are read at a time, and what runs them."""
    from torch import nn

    found: dict[Any, Callable[..., Any]] = {}
    if isinstance(embedding := model.get_input_embeddings(), nn.Embedding):
        found[embedding] = _look_up
    if type(head := model.get_output_embeddings()) is nn.Linear:
        found[head] = _by_rows
    return found


def _look_up(
    module: Any, forward: Callable[..., Any], source: TensorSource, names: Sequence[str],
    ids: torch.Tensor,
) -> Any:  # fmt: skip
    """Run an embedding with the rows that are asked for, and no others."""
    import torch
    from torch import nn

    rows, places = ids.unique(return_inverse=True)
    read = functools.partial(source.read, names[0])
    table = torch.cat([read(slice(row, row + 1)).float() for row in rows.tolist()])
    empty, padding = module.weight, module.padding_idx
    try:
        module.weight, module.padding_idx = nn.Parameter(table, requires_grad=False), None
        return forward(places)
    finally:
        module.weight, module.padding_idx = empty, padding


def _by_rows(
    module: Any, forward: Callable[..., Any], source: TensorSource, names: Sequence[str],
    x: torch.Tensor,
) -> Any:  # fmt: skip
    """Run a head some rows of the vocabulary at a time."""
    import torch

    weight, bias = names
    height, width = source.headers[weight].shape
    step = max(1, ENTRIES // width)
    parts = [x @ source.read(weight, slice(start, start + step)).float().mT
             for start in range(0, height, step)]  # fmt: skip
    found = torch.cat(parts, dim=-1)
    return found + source.read(bias).float() if bias else found


def _with_weights(
    forward: Callable[..., Any], names: Sequence[tuple[Any, str, str]], source: TensorSource,
    *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    """Run a module with weights that are there as long as it runs."""
    from torch import nn

    empty = [(owner, key, owner._parameters[key]) for owner, key, _ in names]
    try:
        for owner, key, name in names:
            if name:
                weight = source.read(name).float()
                owner._parameters[key] = nn.Parameter(weight, requires_grad=False)
        return forward(*args, **kwargs)
    finally:
        for owner, key, nothing in empty:
            owner._parameters[key] = nothing


def random_tokens(config: Any, *, seed: int = 0) -> torch.Tensor:
    """Token ids `[2, 16]` drawn from the whole vocabulary."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (2, 16), generator=generator)


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
    before: StateDict | TensorSource,
    after: StateDict | TensorSource,
    *,
    after_config: Any | None = None,
    order: torch.Tensor | None = None,
    seed: int = 0,
) -> float:
    """Largest change of an output between two state dicts, relative to the largest output.

    Args:
        config: Config of the model before.
        before: Its tensors, of which one module's are in memory at a time.
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
    model: Any = open_model(config, as_source(before))
    expected = model_output(model, ids)
    if order is not None and model.get_output_embeddings() is None:
        expected = expected[..., order]
    changed = open_model(after_config or config, as_source(after))
    return relative_change(expected, model_output(changed, ids))


def relative_change(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Largest change, relative to the largest of what was expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
