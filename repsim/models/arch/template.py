"""The one block template: from the names of a family's parts to its weights and symmetries."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch.spaces import (
    ROLE_AXES,
    StoredWeight,
    SymmetrySpace,
    WeightSpaces,
    weight_key,
)
from repsim.models.arch.symmetries import (
    attention_spaces,
    expert_spaces,
    latent_attention_spaces,
    mixer_spaces,
    mlp_spaces,
    residual_spaces,
    shared_expert_spaces,
)

#: Role of a weight -> its axes as `torch` stores them: what a matrix gives, then what it takes.
_STORED = {
    "q": "(kv q dim) resid",
    **dict.fromkeys(("k", "v"), "(kv dim) resid"),
    "o": "resid (kv q dim)",
    **dict.fromkeys(("gate", "up"), "mlp resid"),
    "down": "resid mlp",
    "transform": "resid_out resid",
    **dict.fromkeys(("embed", "positions", "token_types", "pooler", "head"), "entry resid"),
    "q_norm": "(kv q dim)",
    "k_norm": "(kv dim)",
    "sinks": "(kv q)",
    "query_down": "query_latent resid",
    "key_value_down k_rope": "key_latent resid | rope resid",
    "q_nope q_rope": "kv nope query_latent + kv rope query_latent",
    "k_nope v_latent": "kv nope key_latent + kv dim key_latent",
    "query_norm": "query_latent",
    "key_value_norm": "key_latent",
    "router": "(group expert) resid",
    "router_shift": "(group expert)",
    **dict.fromkeys(("expert_gate", "expert_up"), "(group expert) unit resid"),
    "expert_down": "(group expert) resid unit",
    **dict.fromkeys(("shared_gate", "shared_up"), "shared resid"),
    "shared_down": "resid shared",
    "shared_router": "entry resid",
    **dict.fromkeys(("mix_in", "mix_gate"), "channel resid"),
    "conv": "channel 1 tap",
    "mix_step": "rank channel",
    **dict.fromkeys(("mix_b", "mix_c"), "state channel"),
    "step": "channel rank",
    "decay": "channel state",
    "skip": "channel",
    "mix_out": "resid channel",
}
_UNITS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "hidden_dim", "n_inner")
_ENTERING = ("embed", "positions", "token_types", "embed_norm")
_WRITERS = ("embed", "positions", "token_types", "o", "down", "expert_down", "shared_down",
            "mix_out")  # fmt: skip
#: Roles that read the norm before attention, and before the feed-forward part.
_READ_ATTN_NORM = ("q", "k", "v", "query_down", "key_value_down", "mix_in")
_READ_MLP_NORM = ("gate", "up", "router", "expert_gate", "expert_up", "shared_gate", "shared_up",
                  "shared_router")  # fmt: skip
#: Parameters that are no module's `weight`: their path is their name.
_BARE = ("sinks", "router_shift", "expert_gate", "expert_up", "expert_down", "decay", "skip")
#: Norms between a branch and the stream: their gains fold into nothing.
_ON_THE_STREAM = {"embed_norm", "attn_out_norm", "mlp_out_norm"}
#: What must be known of a block: of its attention or what stands for it, and of its MLP.
_NEEDED = (
    ({"q", "k", "v", "o"}, {"q_nope", "k_nope", "v_latent", "o"}, {"mix_in", "mix_out"}),
    ({"up", "down"}, {"expert_up", "expert_down"}, {"mix_in", "mix_out"}),
)


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
    layout: Mapping[str, str] = dataclasses.field(default_factory=dict)
    on_disk: Mapping[str, str] = dataclasses.field(default_factory=dict)
    conv1d: bool = False
    varies: Callable[[Any, int], Mapping[str, str]] = lambda config, layer: {}
    more_sizes: Callable[[Any], Mapping[str, int]] = lambda config: {}
    unalignable: Callable[[Any], str | None] = lambda config: None
    untouched: tuple[str, ...] = ()

    def why_unalignable(self, config: Any) -> str | None:
        """Why models of this config cannot be aligned; None if they can."""
        if reason := self.unalignable(config):
            return reason
        known = {role for roles in self.block for role in roles.split()}
        ways = [max(found, key=lambda way: len(way & known)) for found in _NEEDED]
        missing = set().union(*ways) - known | ({"embed"} - self.stream.keys())
        if missing:
            return f"it does not say where its weights for {', '.join(sorted(missing))} are"
        return None

    def why_unrotatable(self, config: Any) -> str | None:
        """Why the residual stream of models of this config cannot be rotated; None if it can."""
        if reason := self.why_unalignable(config):
            return reason
        blocks = (self.block_of(config, i) for i in range(self.n_layers(config)))
        roles = {role for block in blocks for role in block} | self.stream.keys()
        if self.post_norm or _ON_THE_STREAM & roles:
            return "gains of its norms stand on the stream, where nothing can take them over"
        return None if self.decoder else "its masked-language-model head is no plain reader"

    def block_of(self, config: Any, layer: int) -> dict[str, str]:
        """Role -> path inside one block of a model of this config, without what it lacks."""
        return {role: path for role, path in {**self.block, **self.varies(config, layer)}.items()
                if path}  # fmt: skip

    def spaces(self, config: Any) -> WeightSpaces:
        """The weights of a model and their symmetries; an error says why there are none."""
        if reason := self.why_unalignable(config):
            raise IncompatibleModelsError(
                f"models of architecture '{self.name}' cannot be aligned: {reason}",
                hint="merge them as they are",
            )
        sizes, layers = self.sizes(config), self.n_layers(config)
        spaces: list[SymmetrySpace] = []
        for i in range(layers):
            here = {role for roles in self.block_of(config, i) for role in roles.split()}
            spaces += self._block_spaces(i, here, sizes, self._rotary(config, sizes["dim"]))
        unrotatable = self.why_unrotatable(config) or ""
        spaces += residual_spaces(
            sizes["resid"], rotation=not unrotatable, fixes_mean=self.layer_norm
        )
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
            untouched=self._untouched(config),
            neighbours=self._rotary(config, sizes["dim"]) if self.rotary == "neighbours" else 0,
            unrotatable=unrotatable,
        )

    def _block_spaces(
        self, layer: int, roles: Collection[str], sizes: Mapping[str, int], rotary: int
    ) -> list[SymmetrySpace]:
        """Symmetries of one block, by what it consists of."""
        found: list[SymmetrySpace] = []
        if "q" in roles:
            found += attention_spaces(
                layer, kv=sizes["kv"], q=sizes["q"], dim=sizes["dim"], rotary=rotary,
                query_key_basis="q_norm" not in roles,
            )  # fmt: skip
        if "q_nope" in roles:
            names = ("dim", "nope", "query_latent", "key_latent")
            own = {name: sizes[name] for name in names}
            found += latent_attention_spaces(layer, heads=sizes["kv"], **own)
        if "mix_in" in roles:
            own = {f"{name}s": sizes[name] for name in ("channel", "state")}
            found += mixer_spaces(layer, rank=sizes["rank"], **own)
        if "up" in roles:
            found += mlp_spaces(layer, sizes["mlp"], gated="gate" in roles)
        if "expert_up" in roles:
            own = {f"{name}s": sizes[name] for name in ("group", "expert", "unit")}
            found += expert_spaces(layer, **own)
        if "shared_up" in roles:
            found += shared_expert_spaces(layer, sizes["shared"])
        return found

    def sizes(self, config: Any) -> dict[str, int]:
        """Lengths of the axes of the weights."""
        config = text_of(config)
        width = self.width(config)
        more = dict(self.more_sizes(config))
        heads = 1 if "channel" in more else self.n_heads(config)
        kv = more.pop("kv", 0) or getattr(config, "num_key_value_heads", None) or heads
        dim = getattr(config, "head_dim", None) or width // heads
        named = [getattr(config, name, None) for name in _UNITS]
        units = next((n for n in named if n), 4 * width)
        return {"kv": kv, "q": heads // kv, "dim": dim, "resid": width, "mlp": units, **more}

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
        start = self._start
        at_ends = {role: (path if path[0] == "/" else start + path)
                   for role, path in self.stream.items()}  # fmt: skip
        found: list[StoredWeight] = []
        for role in at_ends:
            if role in _ENTERING:
                found += self._stored(role, at_ends[role])
        for i in range(self.n_layers(config)):
            block = self.block_of(config, i)
            for roles, path in block.items():
                shared_gain = self.qk_norm == "head" and roles in ("q_norm", "k_norm")
                if roles not in ("attn", "mlp") and not shared_gain:
                    norm = self._read_norm(roles.split()[0], i, block)
                    found += self._stored(roles, f"{start}{self.blocks}.{i}.{path}", i, norm)
        for role in at_ends:
            if role not in _ENTERING:
                found += self._stored(role, at_ends[role])
        norm = "" if self.post_norm else "final_norm"
        if "transform_norm" in self.stream:
            norm = "transform_norm"
        for name in self.lm_heads:
            head = StoredWeight(f"/{name}.weight", "entry resid", ("head",), norm=norm)
            found.append(dataclasses.replace(head, optional=True))
        return found

    def _read_norm(self, role: str, layer: int, block: Collection[str]) -> str:
        """Key of the norm that a weight reads; of parallel parts both may read one norm."""
        if self.post_norm or "attn_norm" not in block:
            return ""
        if role in _READ_MLP_NORM and "mlp_norm" in block:
            return weight_key("mlp_norm", layer)
        reads = role in _READ_ATTN_NORM or role in _READ_MLP_NORM
        return weight_key("attn_norm", layer) if reads else ""

    def _stored(
        self, roles: str, path: str, layer: int | None = None, norm: str = ""
    ) -> list[StoredWeight]:
        """A weight, or several in one tensor, followed by its optional bias."""
        names = tuple(roles.split())
        first, optional = names[0], path[0] == "/" or names == ("pooler",)
        bare, inside = first in _BARE, f"{self._start}{self.blocks}.{layer}."
        weight = StoredWeight(
            path if bare else f"{path}.weight", self._pattern(roles, layer), names, layer, norm,
            writes=first in _WRITERS, optional=optional,
            parts=tuple(f"{inside}{self.on_disk[name]}.weight" for name in names
                        if name in self.on_disk),
        )  # fmt: skip
        biases = tuple(f"{role}_bias" for role in names)
        if not all(bias in ROLE_AXES for bias in biases):
            return [weight]
        bias = dataclasses.replace(
            weight, tensor=f"{path}_bias" if bare else f"{path}.bias",
            stored=_bias_pattern(weight.stored, ROLE_AXES[biases[0]]), roles=biases, norm="",
            optional=True, parts=(),
        )  # fmt: skip
        return [weight, bias]

    def _pattern(self, roles: str, layer: int | None) -> str:
        """Axes of a tensor as it is stored."""
        own = {**_STORED, **self.layout}
        if roles in own:
            found = own[roles]
        else:
            found = " | ".join(own.get(role, "resid") for role in roles.split())
        if self.conv1d and layer is not None:
            turned = [" ".join(reversed(_axes_of(part))) for part in found.split(" | ")]
            return " | ".join(turned)
        return found

    def _untouched(self, config: Any) -> tuple[str, ...]:
        """Buffers, biases of the head, and gains that all heads share."""
        found = [rf"/{re.escape(name)}\.bias" for name in self.lm_heads]
        found += [r".*rotary_emb\.inv_freq", *self.untouched]
        if self.qk_norm == "head":
            block = self.block_of(config, 0)
            paths = [re.escape(block[role]) for role in ("q_norm", "k_norm") if role in block]
            inside = rf"{re.escape(self._start + self.blocks)}\.\d+\."
            found += [rf"{inside}{path}\.(weight|bias)" for path in paths]
        return tuple(found)


def _axes_of(stored: str) -> list[str]:
    """Axes of a tensor as it is stored, those that lie in one axis together in brackets."""
    return re.findall(r"\([^)]*\)|\S+", stored)


def _bias_pattern(stored: str, axes: str) -> str:
    """Axes of the bias beside a weight: those that the weight gives."""
    given = {*axes.split(), "part"}

    def kept(part: str) -> str:
        return " ".join(axis for axis in _axes_of(part) if given & set(axis.strip("()").split()))

    for joint in (" | ", " + "):
        if joint in stored:
            return joint.join(kept(part) for part in stored.split(joint))
    return kept(stored)


def text_of(config: Any) -> Any:
    """The config of the part that reads text: of models that also see, one inside the other."""
    inner = getattr(config, "text_config", None)
    if inner is None:
        return config
    return types.SimpleNamespace(**inner) if isinstance(inner, Mapping) else inner


def config_value(config: Any, *names: str) -> int:
    """The first of some attributes that a config has; families name the same thing differently."""
    for name in names:
        value = getattr(text_of(config), name, None)
        if value is not None:
            return int(value)
    raise IncompatibleModelsError(f"the model's config states none of {', '.join(names)}")
