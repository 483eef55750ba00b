"""What is known of a model family: where activations are read, and where its weights lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from repsim.core.errors import IncompatibleModelsError, UsageError, unknown_name
from repsim.models.arch.template import Template

if TYPE_CHECKING:
    import torch
    from torch import nn

Side = Literal["input", "output"]

#: Hook point -> what is read there.
POINTS: dict[str, str] = {
    "embed": "what enters the first block (`resid` at layer 0)",
    "resid": "residual stream: layer 0 enters the first block, layer i leaves block i",
    "attn": "what attention (or a state-space mixer) adds to the residual stream, layers 1..L",
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArchSpec(Template):
    """Description of one model family, as data: the names of its parts and how a block is built.

    Everything else is derived: the hook points, the hidden units, and (for alignment) what the axes
    of every weight mean and which permutations and rotations leave the model's function unchanged.
    `repsim.testing.check_arch` and `check_symmetries` prove a spec on a tiny model.

    Roles are the keys of `repsim.models.arch.spaces.ROLE_AXES`, which says what they are. In a
    block there are `attn_norm`, `q`, `k`, `v`, `o`, `mlp_norm`, `gate` (of a gated MLP), `up`,
    `down`, and roles of latent attention, of experts and of mixers. One tensor that holds several
    has a key such as "q k v". Without `mlp_norm`, attention and MLP read one norm. Only `o` and
    `down` are needed for hook points; `attn` and `mlp` name another module to read a branch at.
    Around the blocks there are `embed`, `positions`, `token_types`, `embed_norm`, `final_norm`, and
    of encoders `transform`, `transform_norm` and `pooler`.

    Attributes:
        name: Name of the family, as in `ModelRef.architecture`.
        model_types: Values of `model_type` in config.json that it describes.
        decoder: Whether tokens see only what stands before them.
        blocks: Path of the list of blocks, inside the body.
        block: Role -> path of the module inside a block.
        stream: Role -> path of the module inside the body; with a leading "/", inside the model
            with its head.
        prefix: Name of the base model inside the model with its head.
        body_path: Path from the base model to the body; empty if they are the same.
        lm_heads: Names that the head may have, inside the model with its head.
        auto_class: The `transformers` class that loads the base model.
        rotary: Whether positions are rotary, and which dimensions of a head make a pair: i and
            i + n/2 ("halves"), or 2 i and 2 i + 1 ("neighbours").
        layer_norm: Whether norms subtract the mean.
        post_norm: Whether norms stand on the residual stream itself, after each sum.
        gain_offset: What a norm adds to its stored gain.
        qk_norm: Whether gains of `q_norm` and `k_norm` are shared by each "head", or differ in
            "all" of them.
        layout: Key of `block` -> axes of the tensor as stored, where it is not stored like others;
            see `StoredWeight`. Tensors with several weights hold them one behind the other.
        on_disk: Role -> path inside a block under which published checkpoints store it, where that
            is another; a "*" is the number of an expert.
        conv1d: Whether matrices in blocks are stored `[in, out]`.
        varies: Says from the config and the number of a block which roles have another path there,
            and ("") which are not there.
        more_sizes: Says from the config how long the axes are that only some families have.
        unalignable: Says from the config why its weights have no symmetries that can be used, or
            None.
        untouched: Regular expressions of tensors that no symmetry acts on.
        additive_when: Says from the config whether `resid[i] = resid[i-1] + attn[i] + mlp[i]`, up
            to rounding. It never holds with `post_norm`.
        first_state: Layer of `resid` that the model's own `hidden_states` start with.
        reads: What a reader should know of which part is read; empty if it is the whole model.
        refuses: Says from the config why `attn`, `mlp`, `heads` and `mlp_hidden` cannot be read, or
            None.

    Example:
        >>> from repsim.models.arch import ARCHITECTURES
        >>> from repsim.testing.tiny_models import tiny_config
        >>> llama = ARCHITECTURES["llama"]
        >>> llama.points
        ('embed', 'resid', 'attn', 'mlp', 'heads', 'mlp_hidden')
        >>> spaces = llama.spaces(tiny_config("llama"))
        >>> [space.key for space in spaces.spaces if space.layer in (0, None)][:4]
        ['0.kv_groups', '0.query_heads', '0.value_basis', '0.query_key_basis']
    """

    model_types: tuple[str, ...]
    auto_class: str = "AutoModel"
    additive_when: Callable[[Any], bool] = lambda config: True
    first_state: int = 0
    reads: str = ""
    refuses: Callable[[Any], str | None] = lambda config: None

    def like(
        self, name: str, *aliases: str, block: Mapping[str, str] | None = None,
        without: Collection[str] = (), **changes: Any,
    ) -> ArchSpec:  # fmt: skip
        """A family that differs in some fields; `block` adds roles, `without` takes some out."""
        kept = {role: path for role, path in self.block.items() if role not in without}
        return dataclasses.replace(
            self, name=name, model_types=(name, *aliases), block={**kept, **(block or {})},
            **changes,
        )  # fmt: skip

    @property
    def points(self) -> tuple[str, ...]:
        """Hook points that the family offers."""
        return ("embed", "resid", *self._parts())

    def _parts(self) -> dict[str, tuple[str, Side]]:
        """Hook point inside a block -> path and side, as far as the family has it."""
        block = dict(self.block)
        if any("expert_up" in roles.split() for roles in block):
            block.pop("down", None)  # which experts a token reads, and in which order, differs
        ways: dict[str, tuple[tuple[str, ...], Side]] = {
            "attn": (("attn", "attn_out_norm", "o"), "output"),
            "mlp": (("mlp", "mlp_out_norm", "down"), "output"),
            "heads": (("o",), "input"),
            "mlp_hidden": (("down",), "input"),
        }
        return {
            point: (next(block[role] for role in roles if role in block), side)
            for point, (roles, side) in ways.items()
            if any(role in block for role in roles)
        }

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
                part, side = self._parts()[point]
                found += [
                    HookPoint(point, i + 1, f"{path}.{i}.{part}", side) for i in range(n_blocks)
                ]
        for hook in found:
            _submodule(body, hook.module, self.name)
        return found

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
        path = self.stream.get("final_norm", "/")
        return None if path[0] == "/" else _submodule(self.body(model), path, self.name)

    def additive(self, config: Any) -> bool:
        """Whether `resid[i] = resid[i-1] + attn[i] + mlp[i]` up to rounding."""
        return not self.post_norm and self.additive_when(config)


def read_activation(value: Any, batch: int) -> torch.Tensor:
    """Bring what a hook saw to `[batch, tokens, width]`."""
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
