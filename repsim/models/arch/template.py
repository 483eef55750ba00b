"""The one block template: from the names of a family's parts to its weights and symmetries."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch.spaces import (
    GAINS,
    ROLE_AXES,
    StoredWeight,
    SymmetrySpace,
    WeightSpaces,
    attention_spaces,
    mlp_spaces,
    residual_spaces,
    weight_key,
)

#: Role of a matrix -> axes that it gives and axes that it takes, as a `Linear` stores them.
_MATRICES = {
    "q": ("(kv q dim)", "resid"),
    "k": ("(kv dim)", "resid"),
    "v": ("(kv dim)", "resid"),
    "o": ("resid", "(kv q dim)"),
    "gate": ("mlp", "resid"),
    "up": ("mlp", "resid"),
    "down": ("resid", "mlp"),
    "transform": ("resid_out", "resid"),
    **dict.fromkeys(("embed", "positions", "token_types", "pooler", "head"), ("entry", "resid")),
}
_GAIN_AXES = {"q_norm": "(kv q dim)", "k_norm": "(kv dim)"}
_ENTERING = ("embed", "positions", "token_types", "embed_norm")
_WRITERS = ("embed", "positions", "token_types", "o", "down")
#: Norms between a branch and the stream: their gains fold into nothing.
_ON_THE_STREAM = {"embed_norm", "attn_out_norm", "mlp_out_norm"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """Where the weights of a family lie; see `ArchSpec`, which documents the fields."""

    name: str
    stream: Mapping[str, str] = dataclasses.field(default_factory=dict)
    block: Mapping[str, str] = dataclasses.field(default_factory=dict)
    blocks: str = ""
    body_path: str = ""
    prefix: str = ""
    lm_heads: tuple[str, ...] = ("lm_head",)
    decoder: bool = True
    rotary: Literal["", "halves", "neighbours"] = ""
    layer_norm: bool = False
    post_norm: bool = False
    gain_offset: float = 0.0
    qk_norm: Literal["", "head", "all"] = ""
    fused: Literal["stacked", "by_head"] = "stacked"
    conv1d: bool = False
    absent: Callable[[Any], Collection[str]] = lambda config: ()
    unalignable: Callable[[Any], str | None] = lambda config: None
    untouched: tuple[str, ...] = ()

    def why_unalignable(self, config: Any) -> str | None:
        """Why models of this config cannot be aligned; None if they can."""
        if reason := self.unalignable(config):
            return reason
        roles = {role for roles in self.block for role in roles.split()} | set(self.stream)
        if missing := {"embed", "q", "k", "v", "o", "up", "down"} - roles:
            return f"it does not say where its weights for {', '.join(sorted(missing))} are"
        return None

    def spaces(self, config: Any) -> WeightSpaces:
        """The weights of a model of this family, and the symmetries among them.

        Raises:
            IncompatibleModelsError: The family cannot be aligned; says why.
        """
        if reason := self.why_unalignable(config):
            raise IncompatibleModelsError(
                f"models of architecture '{self.name}' cannot be aligned: {reason}",
                hint="merge them as they are",
            )
        sizes, layers = self.sizes(config), self.n_layers(config)
        kv, q, dim = sizes["kv"], sizes["q"], sizes["dim"]
        spaces: list[SymmetrySpace] = []
        gated = any("gate" in roles.split() for roles in self.block)
        for i in range(layers):
            spaces += attention_spaces(
                i, kv=kv, q=q, dim=dim, rotary=self._rotary(config, dim),
                query_key_basis=not self.qk_norm,
            )  # fmt: skip
            spaces += mlp_spaces(i, sizes["mlp"], gated=gated)
        on_stream = self.post_norm or _ON_THE_STREAM & ({*self.block} | {*self.stream})
        rotation = self.decoder and not on_stream
        spaces += residual_spaces(sizes["resid"], rotation=rotation, fixes_mean=self.layer_norm)
        return WeightSpaces(
            family=self.name,
            body=self.prefix,
            weights=tuple(self.stored_weights(config)),
            spaces=tuple(spaces),
            sizes=sizes,
            layers=layers,
            tied=bool(getattr(config, "tie_word_embeddings", False)),
            centred=self.layer_norm,
            gain_offset=self.gain_offset,
            untouched=self._untouched(),
        )

    def sizes(self, config: Any) -> dict[str, int]:
        """Lengths of the axes of the weights."""
        heads, width = self.n_heads(config), self.width(config)
        kv = getattr(config, "num_key_value_heads", None) or heads
        dim = getattr(config, "head_dim", None) or width // heads
        named = [getattr(config, n, None) for n in ("intermediate_size", "ffn_dim", "hidden_dim")]
        units = next((n for n in named if n), getattr(config, "n_inner", None) or 4 * width)
        return {
            "part": 3,
            "two": 2,
            "kv": kv,
            "q": heads // kv,
            "dim": dim,
            "resid": width,
            "mlp": units,
        }

    def n_layers(self, config: Any) -> int:
        """Number of blocks, L; the layer axis runs from 0 to L."""
        return config_value(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")

    def width(self, config: Any) -> int:
        """Size of the residual stream."""
        return config_value(config, "hidden_size", "n_embd", "d_model", "dim")

    def n_heads(self, config: Any) -> int:
        """Number of attention heads (query heads where keys are shared)."""
        return config_value(config, "num_attention_heads", "n_head", "num_heads", "n_heads")

    @property
    def _start(self) -> str:
        return f"{self.body_path}." if self.body_path else ""

    def _rotary(self, config: Any, dim: int) -> int:
        rope = getattr(config, "rope_parameters", None) or {}
        return int(dim * rope.get("partial_rotary_factor", 1.0)) if self.rotary else 0

    def stored_weights(self, config: Any) -> list[StoredWeight]:
        """The tensors of a model, in the order of the forward pass."""
        layers = self.n_layers(config)
        left_out = set(self.absent(config))
        block = {role: path for role, path in self.block.items() if role not in left_out}
        start = self._start
        at_ends = {role: (path if path[0] == "/" else start + path)
                   for role, path in self.stream.items()}  # fmt: skip
        found: list[StoredWeight] = []
        for role in at_ends:
            if role in _ENTERING:
                found += self._stored(role, at_ends[role])
        for i in range(layers):
            for roles, path in block.items():
                if roles in ("attn", "mlp") or (self.qk_norm == "head" and roles in _GAIN_AXES):
                    continue
                norm = self._read_norm(roles.split()[0], i, block)
                found += self._stored(roles, f"{start}{self.blocks}.{i}.{path}", i, norm)
        for role in at_ends:
            if role not in _ENTERING:
                found += self._stored(role, at_ends[role])
        norm = "" if self.post_norm else "final_norm"
        for name in self.lm_heads:
            head = StoredWeight(f"/{name}.weight", "entry resid", ("head",), norm=norm)
            found.append(dataclasses.replace(head, optional=True))
        return found

    def _read_norm(self, role: str, layer: int, block: Collection[str]) -> str:
        """Key of the norm that a weight reads; of parallel parts both may read one norm."""
        if self.post_norm or "attn_norm" not in block or role not in ("q", "k", "v", "gate", "up"):
            return ""
        own = "mlp_norm" if role in ("gate", "up") and "mlp_norm" in block else "attn_norm"
        return weight_key(own, layer)

    def _stored(
        self, roles: str, path: str, layer: int | None = None, norm: str = ""
    ) -> list[StoredWeight]:
        """A weight, or several in one tensor, followed by its optional bias."""
        names = tuple(roles.split())
        first, optional = names[0], path[0] == "/" or names == ("pooler",)
        weight = StoredWeight(
            f"{path}.weight", self._pattern(names, layer), names, layer, norm,
            writes=first in _WRITERS, optional=optional,
        )  # fmt: skip
        biases = tuple(f"{role}_bias" for role in names)
        if not all(bias in ROLE_AXES for bias in biases):
            return [weight]
        if first in GAINS or first == "transform":
            stored = "resid"
        elif self.fused == "by_head" and len(names) > 1:
            stored = "(kv q part dim)"
        else:
            stored = " | ".join(self._given(role) for role in names)
        bias = dataclasses.replace(
            weight, tensor=f"{path}.bias", stored=stored, roles=biases, norm="", optional=True
        )
        return [weight, bias]

    def _pattern(self, roles: tuple[str, ...], layer: int | None) -> str:
        if roles[0] in GAINS:
            return _GAIN_AXES.get(roles[0], "resid")
        if self.fused == "by_head" and len(roles) > 1:
            return "(kv q part dim) resid"
        axes = ((self._given(role), _MATRICES[role][1]) for role in roles)
        turned = self.conv1d and layer is not None
        return " | ".join(f"{taken} {given}" if turned else f"{given} {taken}"
                          for given, taken in axes)  # fmt: skip

    def _given(self, role: str) -> str:
        """Axes that a matrix gives, as stored: pairs of rotary dimensions may be neighbours."""
        given = _MATRICES[role][0]
        neighbours = self.rotary == "neighbours" and role in ("q", "k")
        return given.replace("dim", "pair two") if neighbours else given

    def _untouched(self) -> tuple[str, ...]:
        """Buffers, biases of the head, and gains that all heads share."""
        found = [rf"/{re.escape(name)}\.bias" for name in self.lm_heads]
        found += [r".*rotary_emb\.inv_freq", *self.untouched]
        if self.qk_norm == "head":
            paths = [re.escape(self.block[role]) for role in ("q_norm", "k_norm")]
            found += [rf"{re.escape(self._start + self.blocks)}\.\d+\.{p}\.weight" for p in paths]
        return tuple(found)


def config_value(config: Any, *names: str) -> int:
    """The first of some attributes that a config has; families name the same thing differently."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    raise IncompatibleModelsError(f"the model's config states none of {', '.join(names)}")
