"""A model read from inside, and left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch import HookPoint, read_activation

if TYPE_CHECKING:
    import torch
    from torch import nn

Take = Callable[[HookPoint, "torch.Tensor"], None]


@contextlib.contextmanager
def hooked(body: nn.Module, points: Sequence[HookPoint], take: Take) -> Iterator[None]:
    """Call `take(hook point, [batch, tokens, width])` at each point of every forward pass."""
    batch = 0

    def on_body(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Families differ in where they flatten sentences; the batch size tells them apart.
        nonlocal batch
        ids = kwargs.get("input_ids", args[0] if args else None)
        batch = 0 if ids is None else len(ids)

    def reader(point: HookPoint) -> Callable[..., None]:
        def read(value: Any) -> None:
            tensor = read_activation(value, batch)
            if tensor.ndim != 3 or tensor.shape[0] != batch:
                raise IncompatibleModelsError(
                    f"'{point.module}' gives {tuple(tensor.shape)} where [{batch}, tokens, width] "
                    f"was expected for hook point '{point.point}'"
                )
            take(point, tensor)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(args if args else kwargs["hidden_states"])

        def after(module: nn.Module, args: Any, output: Any) -> None:
            read(output)

        return before if point.side == "input" else after

    with contextlib.ExitStack() as stack:
        stack.callback(body.register_forward_pre_hook(on_body, with_kwargs=True).remove)
        for point in points:
            module, read = body.get_submodule(point.module), reader(point)
            if point.side == "input":
                handle = module.register_forward_pre_hook(read, with_kwargs=True)
            else:
                handle = module.register_forward_hook(read)
            stack.callback(handle.remove)
        yield


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) within the block; afterwards each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
