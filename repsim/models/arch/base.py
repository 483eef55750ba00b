"""Where the activations of a model family are read.

A family is described by the dotted paths of its parts inside one block; everything else follows
from them. Paths are relative to the *body*: the stack of blocks without a language-model head (of
an encoder-decoder, the encoder), which is what extraction runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from repsim.core.errors import IncompatibleModelsError, UsageError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim.models.arch.spaces import WeightSpaces

Side = Literal["input", "output"]

#: Hook point -> what is read there.
POINTS: dict[str, str] = {
    "embed": "what enters the first block (`resid` at layer 0)",
    "resid": "residual stream: layer 0 enters the first block, layer i leaves block i",
    "attn": "what attention adds to the residual stream, layers 1..L",
    "mlp": "what the feed-forward part adds to the residual stream, layers 1..L",
    "heads": "output of the attention heads, side by side, before they are mixed, layers 1..L",
    "mlp_hidden": "hidden units of the feed-forward part after the non-linearity, layers 1..L",
}


@dataclasses.dataclass(frozen=True)
class HookPoint:
    """Where one activation is read.

    Attributes:
        point: A key of `POINTS`.
        layer: Layer on the axis of `resid`: 0 = what enters block 1, i = block i.
        module: Dotted path inside the body.
        side: Whether the module's first input or its (first) output is read.

    Example:
        >>> HookPoint("resid", 2, "layers.1", "output").layer
        2
    """

    point: str
    layer: int
    module: str
    side: Side


@dataclasses.dataclass(frozen=True)
class ArchSpec:
    """Description of one model family.

    Attributes:
        name: Name of the family, as in `ModelRef.architecture`.
        model_types: Values of `model_type` in config.json that it describes.
        decoder: Whether tokens see only what stands before them.
        blocks: Path of the list of blocks.
        attn: Path inside a block of the module whose output attention adds to the residual stream;
            None where the family offers no such point.
        heads: Path of the projection whose input holds the heads' outputs, `[heads * head_dim]`.
        mlp: Path of the module whose output the feed-forward part adds to the residual stream.
        mlp_hidden: Path of the projection whose input holds the hidden units.
        norm: Path of the norm after the last block, None if there is none.
        body_path: Path from the base model to the body; empty if they are the same.
        auto_class: The `transformers` class that loads the base model.
        additive_when: Says from the config whether `resid[i] = resid[i-1] + attn[i] + mlp[i]`. It
            does not hold where a block ends in a norm.
        refuses: Says from the config why `attn`, `mlp`, `heads` and `mlp_hidden` cannot be read, or
            None.
        weight_spaces: Says from the config what the axes of the weights mean and which symmetries
            act on them; None where that is not declared.

    Example:
        >>> from repsim.models.arch import ARCHITECTURES
        >>> ARCHITECTURES["llama"].blocks
        'layers'
    """

    name: str
    model_types: tuple[str, ...]
    decoder: bool
    blocks: str
    attn: str | None = None
    heads: str | None = None
    mlp: str | None = None
    mlp_hidden: str | None = None
    norm: str | None = None
    body_path: str = ""
    auto_class: str = "AutoModel"
    additive_when: Callable[[Any], bool] = lambda config: True
    refuses: Callable[[Any], str | None] = lambda config: None
    weight_spaces: Callable[[Any], WeightSpaces] | None = None

    @property
    def points(self) -> tuple[str, ...]:
        """Hook points that the family offers."""
        parts = {
            "attn": self.attn,
            "mlp": self.mlp,
            "heads": self.heads,
            "mlp_hidden": self.mlp_hidden,
        }
        return ("embed", "resid", *(point for point, path in parts.items() if path))

    def body(self, model: nn.Module) -> nn.Module:
        """The stack of blocks that extraction calls, found inside `model` (with or without a head).

        Raises:
            IncompatibleModelsError: The model has no such part.
        """
        base = model
        if not self._has(base, f"{self.body_path}.{self.blocks}".lstrip(".")):
            base = getattr(model, "base_model", model)
        return _submodule(base, self.body_path, self.name)

    def block_path(self, model: nn.Module) -> str:
        """Path of the list of blocks inside the body."""
        return self.blocks

    def hook_points(self, model: nn.Module, points: Sequence[str] = ("resid",)) -> list[HookPoint]:
        """Hook points of the kinds asked for, by kind in the order given and then by layer.

        Args:
            model: The model, with or without a head.
            points: Keys of `POINTS`.

        Raises:
            UsageError: A point that does not exist, or that the family does not offer.
            IncompatibleModelsError: The model is not built as the family says.
        """
        self._check_points(model, points)
        body, path = self.body(model), self.block_path(model)
        n_blocks = len(list(_submodule(body, path, self.name).children()))
        found: list[HookPoint] = []
        for point in points:
            if point in ("embed", "resid"):
                found.append(HookPoint(point, 0, f"{path}.0", "input"))
            if point == "resid":
                found += [HookPoint(point, i + 1, f"{path}.{i}", "output") for i in range(n_blocks)]
            elif point != "embed":
                part, side = self._part(point)
                found += [
                    HookPoint(point, i + 1, f"{path}.{i}.{part}", side) for i in range(n_blocks)
                ]
        for hook in found:
            _submodule(body, hook.module, self.name)
        return found

    def _part(self, point: str) -> tuple[str, Side]:
        if point in ("attn", "mlp"):
            return str(getattr(self, point)), "output"
        return str(getattr(self, point)), "input"

    def _check_points(self, model: nn.Module, points: Sequence[str]) -> None:
        for point in points:
            if point not in POINTS:
                raise unknown_name("hook point", point, POINTS)
            if point not in self.points:
                raise UsageError(
                    f"architecture '{self.name}' offers no hook point '{point}'",
                    hint=f"it offers: {', '.join(self.points)}",
                )
        reason = self.refuses(model.config)
        if reason and set(points) - {"embed", "resid"}:
            raise IncompatibleModelsError(reason, hint="read 'resid' only")

    def _has(self, model: nn.Module, path: str) -> bool:
        try:
            model.get_submodule(path)
        except AttributeError:
            return False
        return True

    def final_norm(self, model: nn.Module) -> nn.Module | None:
        """What is applied to the last `resid` to give `hidden_states[-1]`; None if nothing is."""
        if self.norm is None:
            return None
        return _submodule(self.body(model), self.norm, self.name)

    def additive(self, config: Any) -> bool:
        """Whether `resid[i] = resid[i-1] + attn[i] + mlp[i]` up to rounding."""
        return self.additive_when(config)

    def spaces(self, config: Any) -> WeightSpaces:
        """The weights of a model of this family, and the symmetries among them.

        Raises:
            IncompatibleModelsError: The family declares none.
        """
        if self.weight_spaces is None:
            raise IncompatibleModelsError(
                f"architecture '{self.name}' declares no symmetries of its weights, so its models "
                "cannot be aligned",
                hint="merge them as they are, or write `weight_spaces` for its ArchSpec",
            )
        return self.weight_spaces(config)

    def n_layers(self, config: Any) -> int:
        """Number of blocks, L; the layer axis runs from 0 to L."""
        return config_value(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")

    def width(self, config: Any) -> int:
        """Size of the residual stream."""
        return config_value(config, "hidden_size", "n_embd", "d_model", "dim")

    def n_heads(self, config: Any) -> int:
        """Number of attention heads (query heads where keys are shared)."""
        return config_value(config, "num_attention_heads", "n_head", "num_heads", "n_heads")


def config_value(config: Any, *names: str) -> int:
    """The first of some attributes that a config has; families name the same thing differently.

    Raises:
        IncompatibleModelsError: None of them is there.

    Example:
        >>> from types import SimpleNamespace
        >>> config_value(SimpleNamespace(n_embd=8), "hidden_size", "n_embd")
        8
    """
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    raise IncompatibleModelsError(f"the model's config states none of {', '.join(names)}")


def read_activation(value: Any, batch: int) -> torch.Tensor:
    """Bring what a hook saw to `[batch, tokens, width]`.

    Blocks return a tensor or a tuple that starts with it, and some families run their feed-forward
    part on `[batch * tokens, width]`.

    Args:
        value: A module's output, or its tuple of positional inputs.
        batch: Number of sequences in the batch.

    Example:
        >>> import torch
        >>> tuple(read_activation((torch.zeros(6, 4), None), batch=2).shape)
        (2, 3, 4)
    """
    tensor = value[0] if isinstance(value, (tuple, list)) else value
    if tensor.ndim == 2:
        return rearrange(tensor, "(b t) d -> b t d", b=batch)
    return tensor


def _submodule(model: nn.Module, path: str, family: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise IncompatibleModelsError(
            f"{type(model).__name__} has no part '{path}', so it is not built as architecture "
            f"'{family}' is in this version of transformers"
        ) from None
