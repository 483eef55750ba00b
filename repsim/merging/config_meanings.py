"""What the config of a model means, however its family writes it: models are compared by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import IncompatibleModelsError, RepsimError
from repsim.core.files import read_json
from repsim.models.arch import spec_for
from repsim.models.consistency import shortest, stated
from repsim.models.inspect import read_config

GENERATION_FILE = "generation_config.json"
#: Ids of special tokens: compared with their tokens, see `generation_settings`.
TOKEN_IDS = tuple(f"{name}_token_id" for name in ("bos", "eos", "pad"))
#: What differs between models without meaning anything for a merge.
_IGNORED = frozenset({
    "_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype", "architectures",
    *TOKEN_IDS, "sep_token_id", "cls_token_id", "unk_token_id",
    "initializer_range", "output_attentions", "output_hidden_states", "return_dict",
    "gradient_checkpointing", "pretraining_tp", "attn_implementation", "_attn_implementation",
})  # fmt: skip
#: Keys that state sizes in one family or another; what they come to is asked of the family's spec.
_SIZES = frozenset({
    "model_type", "hidden_size", "n_embd", "d_model", "dim", "num_hidden_layers", "n_layer",
    "num_layers", "n_layers", "num_attention_heads", "n_head", "num_heads", "n_heads",
    "num_key_value_heads", "num_kv_heads", "head_dim", "d_kv", "intermediate_size", "n_inner",
    "ffn_dim", "ffn_hidden_size", "d_ff", "hidden_dim", "vocab_size", "tie_word_embeddings",
})  # fmt: skip
#: The first of these that is stated is the one that `transformers` reads.
_ACTIVATIONS = ("feed_forward_proj", "hidden_activation", "hidden_act", "activation_function",
                "activation")  # fmt: skip
#: Names of one function: sigmoid- and tanh-forms have several.
_SAME_ACTIVATION = {
    "swish": "silu", "gelu_python": "gelu",
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate"), "gelu_pytorch_tanh"),
}  # fmt: skip
_EPS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps")
_BIASES = ("attention_bias", "mlp_bias", "use_bias", "bias", "use_qkv_bias")
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "rotary_emb_base", "rotary_pct",
         "partial_rotary_factor")  # fmt: skip
#: What follows from another aspect where it is not stated itself.
_FOLLOWS = {"key-value heads": ("heads",), "head size": ("heads", "width")}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What models must agree on, rotary positions in one form, and other keys that may matter."""

    aspects: Mapping[str, Any]
    rotary: Mapping[str, Any]
    rest: Mapping[str, Any]

    def differences(self, other: Meaning) -> dict[str, tuple[Any, Any]]:
        """Aspects that differ, without those that differ only because another one does."""
        found = {
            name: (value, other.aspects[name])
            for name, value in self.aspects.items()
            if value != other.aspects[name]
        }
        return {
            name: values
            for name, values in found.items()
            if not any(source in found for source in _FOLLOWS.get(name, ()))
        }


def read_configs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The configs of models; where they differ, with the defaults of their family filled in."""
    raw = []
    for folder in folders:
        document = read_json(folder / "config.json")
        if not isinstance(document, dict):
            raise IncompatibleModelsError(f"'{folder / 'config.json'}' is not a mapping")
        raw.append(document)
    keys = [frozenset(document) - _IGNORED for document in raw]
    if len(set(keys)) == 1 or len({document.get("model_type") for document in raw}) > 1:
        return raw
    try:
        return [read_config(folder, generic=True)[0].to_dict() for folder in folders]
    except RepsimError:  # a family that transformers does not know: what is stated has to do
        return raw


def meaning_of(document: Mapping[str, Any]) -> Meaning:
    """What a config.json comes to; of a model that also sees, with that of the part that reads."""
    inner = document.get("text_config")
    if isinstance(inner, Mapping):
        document = {**inner, **{k: v for k, v in document.items() if k != "text_config"}}
    config = stated(document)
    spec = spec_for(str(document.get("model_type")), generic=True)
    sizes = _known(spec.sizes, config) or {}
    act = next((document[key] for key in _ACTIVATIONS if document.get(key) is not None), None)
    eps = next((document[key] for key in _EPS if document.get(key) is not None), None)
    biases = {key: bool(document[key]) for key in _BIASES if document.get(key) is not None}
    aspects = {
        "architecture": document.get("model_type"),
        "width": _known(spec.width, config),
        "layers": _known(spec.n_layers, config),
        "heads": _known(spec.n_heads, config),
        "key-value heads": sizes.get("kv"),
        "head size": sizes.get("dim"),
        "hidden units": sizes.get("mlp"),
        "activation": _SAME_ACTIVATION.get(str(act), act),
        "norm eps": shortest(eps) if isinstance(eps, float) else eps,
        "biases": ", ".join(f"{key} {'on' if on else 'off'}" for key, on in biases.items()) or None,
    }
    told = {*_SIZES, *_ACTIVATIONS, *_EPS, *_BIASES, *_ROPE, *_IGNORED}
    return Meaning(aspects, _rotary(document), {k: v for k, v in document.items() if k not in told})


def _known(ask: Callable[[Any], Any], config: Any) -> Any:
    """What a spec makes of a config; None where the config does not state it."""
    try:
        return ask(config)
    except (IncompatibleModelsError, TypeError, ZeroDivisionError):
        return None


def _rotary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about rotary positions in one form, for it is written in several."""
    found = {"rope_type": "default"}
    for key in _ROPE:
        value = document.get(key)
        if isinstance(value, Mapping):
            found |= {("rope_type" if k == "type" else k): v for k, v in value.items()}
        elif value is not None:
            found["rope_theta" if key == "rotary_emb_base" else key] = value
    return found


def generation_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """How text is generated: the special tokens that count, then all else that is stated."""
    path = folder / GENERATION_FILE
    document = read_json(path) if path.is_file() else {}
    stated_there = document if isinstance(document, dict) else {}
    found: dict[str, Any] = {}
    for key in TOKEN_IDS:
        value = stated_there.get(key, config.get(key))
        found[key] = value[0] if isinstance(value, list) and len(value) == 1 else value
    rest = {k: v for k, v in stated_there.items() if k not in (*TOKEN_IDS, "transformers_version")}
    return {**found, **{k: v for k, v in sorted(rest.items()) if not k.startswith("_")}}
