"""LoRA adapters of `peft`: a base and what is added to some of its weights.

The weight of an adapted module is W + s B A, s = alpha / r, or alpha / sqrt(r) for rsLoRA; with
DoRA its rows are scaled to learnt lengths. Computed when read, one tensor at a time, in float32.

LoRA: Hu et al. 2022, arXiv:2106.09685. rsLoRA: Kalajdzievski 2023, arXiv:2312.03732. DoRA: Liu et
al. 2024, arXiv:2402.09353.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.core.files import read_json, write_json
from repsim.models.arch import spec_for
from repsim.models.headers import SINGLE, TensorHeader, read_headers
from repsim.models.stored import StoredWeights, Weights
from repsim.models.views import copy_tokenizer

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
#: Settings that change the weights in a way that is not written here, when they are given.
_OTHER_WAYS = (
    "target_parameters", "trainable_token_indices", "layer_replication", "lora_bias", "use_qalora",
    "use_bdlora", "kasa_config", "arrow_config", "monteclora_config", "alora_invocation_tokens",
)  # fmt: skip
#: Ways to start an adapter that change the base as well.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MERGE = "merge it where you trained it: PeftModel.merge_and_unload().save_pretrained(folder)"
_PARTS = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(embedding_)?[AB]|lora_magnitude_vector)(\.weight)?"
)


@dataclasses.dataclass(frozen=True)
class Base:
    """The model that an adapter is put on: its folder (or view), and its weights."""

    folder: Path
    weights: Weights


@dataclasses.dataclass(frozen=True)
class Change:
    """How one tensor of the result comes from the base and the adapter."""

    source: str  # Tensor of the base that it starts from
    own: str = ""  # Tensor of the adapter that takes the place of `source`, or nothing
    a: str = ""  # Tensor A of the adapter, or nothing
    b: str = ""  # Tensor B of the adapter
    lengths: str = ""  # The learnt lengths of DoRA, or nothing
    scale: float = 1.0  # s of s B A
    turned: bool = False  # Whether the weight is stored as [in, out], as embeddings are


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / SINGLE).is_file()


def stated_base(folder: Path) -> tuple[str, str | None]:
    """The base that an adapter names, and its revision; paths start at its folder."""
    config = _settings(folder)
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"the adapter '{folder}' names no base model", hint=f"give both: BASE+{folder}"
        )
    beside = folder.resolve() / name
    revision = config.get("revision")
    found = str(beside) if not Path(name).is_absolute() and beside.exists() else name
    return found, revision if isinstance(revision, str) else None


def _settings(folder: Path) -> dict[str, Any]:
    """The adapter's config, refused where it does what is not written here."""
    path = folder / CONFIG
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"'{path}' is not a JSON object", hint="copy or download it again")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise IncompatibleModelsError(
            f"'{folder}' is an adapter of type {kind}, and only LoRA is read here", hint=_MERGE
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise IncompatibleModelsError(
            f"the adapter '{folder}' was started by {start}, which changes the base's weights too",
            hint=f"save it as a plain LoRA (path_initial_model_for_weight_conversion), or {_MERGE}",
        )
    if ways := [key for key in _OTHER_WAYS if config.get(key)]:
        raise IncompatibleModelsError(
            f"the adapter '{folder}' uses {ways[0]}, which is not read here", hint=_MERGE
        )
    return config


def adapter_files(folder: Path) -> list[Path]:
    """The weight file of an adapter."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / "adapter_model.bin").is_file():
        raise InputError(
            f"the adapter '{folder}' holds its weights only as adapter_model.bin, and pickled "
            "weights are not loaded, for they can run code",
            hint="load and save it once with peft where you trust it",
        )
    raise InputError(f"the adapter '{folder}' has no {WEIGHTS}", hint="copy or download it again")


def write_adapter_view(adapter: Path, base: Base, folder: Path) -> dict[str, Any]:
    """Write config and tokenizer of a base with an adapter; give the document of the view."""
    settings = _settings(adapter)
    config = read_json(base.folder / "config.json")
    stored = read_headers(adapter_files(adapter))
    ends = _ends(config, base)
    changes = {
        target: _change(adapter, target, parts, settings, base, stored, ends)
        for target, parts in _grouped(adapter, base, stored, ends).items()
    }
    if _ties(config):
        changes, config["tie_word_embeddings"] = _tie(changes, settings, ends)
    if (embedding := changes.get(ends.embedding)) and embedding.own:
        config["vocab_size"] = stored[embedding.own].shape[0]
    write_json(folder / "config.json", config)
    own = any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    copy_tokenizer(adapter if own else base.folder, folder)
    return {
        "base": str(base.folder), "adapter": str(adapter_files(adapter)[0]),
        "changes": {target: dataclasses.asdict(change) for target, change in changes.items()},
    }  # fmt: skip


class _Ends(NamedTuple):
    """Tensors of the embedding and of the head, which has a name even where the two are one."""

    embedding: str
    head: str


def _ends(config: Mapping[str, Any], base: Base) -> _Ends:
    spec = spec_for(str(config["model_type"]), generic=True)
    path = getattr(spec, "stream", {}).get("embed", "embed_tokens").strip("/") + ".weight"
    names = [f"{name}.weight" for name in getattr(spec, "lm_heads", ("lm_head",))]
    own = base.weights.headers
    return _Ends(
        next((name for name in own if f".{name}".endswith(f".{path}")), path),
        next((name for name in names if name in own), names[0]),
    )


def _ties(config: Mapping[str, Any]) -> bool:
    """Whether a model's head is its embedding."""
    from transformers import AutoConfig

    stated = config.get("tie_word_embeddings")
    if stated is None:
        stated = getattr(AutoConfig.for_model(config["model_type"]), "tie_word_embeddings", False)
    return bool(stated)


def _grouped(
    folder: Path, base: Base, stored: Mapping[str, TensorHeader], ends: _Ends
) -> dict[str, dict[str, str]]:
    """Tensor of the model -> part -> tensor of the adapter."""
    found: dict[str, dict[str, str]] = {}
    for name in stored:
        parts = _PARTS.fullmatch(name)
        module = f"{parts['module']}.weight" if parts else name
        plain = module.removeprefix(_PREFIX).replace(".base_layer.", ".")
        target = _target(folder, plain, base.weights.headers, ends)
        part = parts["part"] if parts else "own"
        found.setdefault(target, {})[part.replace("lora_", "")] = name
    return found


def _target(folder: Path, name: str, headers: Mapping[str, TensorHeader], ends: _Ends) -> str:
    """The tensor of the model that a name in the adapter means, whatever precedes both."""
    if name in headers or name == ends.head:
        return name
    alike = [n for n in headers if n.endswith(f".{name}") or name.endswith(f".{n}")]
    if len(alike) != 1:
        raise InputError(
            f"the adapter '{folder}' is not of this base, which has no tensor {name}",
            hint="name the model that it was trained on: BASE+ADAPTER",
        )
    return alike[0]


def _change(
    folder: Path, target: str, parts: Mapping[str, str], settings: Mapping[str, Any], base: Base,
    stored: Mapping[str, TensorHeader], ends: _Ends,
) -> Change:  # fmt: skip
    """What the adapter does to one tensor, refused where the two do not fit each other."""
    headers = base.weights.headers
    source = target if target in headers else ends.embedding
    if source not in headers:
        raise InputError(f"the adapter '{folder}' is not of this base, which has no {target}")
    found = Change(source, own=parts.get("own", ""))
    if not parts.keys() - {"own"}:
        return found
    a, b = (parts.get(k) or parts.get(f"embedding_{k}") for k in "AB")
    if a is None or b is None:
        raise InputError(
            f"the adapter '{folder}' lacks half of what it adds to {target}",
            hint="copy or download it again",
        )
    wide, high = stored[a].shape, stored[b].shape
    shape = stored[found.own].shape if found.own else headers[source].shape
    if (
        [len(wide), len(high), len(shape)] != [2, 2, 2]
        or wide[0] != high[1]
        or (sorted((high[0], wide[1])) != sorted(shape))
    ):
        raise InputError(
            f"the adapter '{folder}' is not of this base: it adds {high} x {wide} to {target}, "
            f"which is {shape}",
            hint="name the model that it was trained on: BASE+ADAPTER",
        )
    embedding, lengths = "embedding_A" in parts, parts.get("magnitude_vector", "")
    if embedding and lengths:
        raise IncompatibleModelsError(
            f"the adapter '{folder}' uses DoRA on an embedding, which is not read here", hint=_MERGE
        )
    # The setting stands for all modules, though only some may be stored as [in, out].
    square = high[0] == wide[1]
    turned = bool(settings.get("fan_in_fan_out")) if square else shape != (high[0], wide[1])
    module = a.removeprefix(_PREFIX).partition(".lora_")[0]
    return dataclasses.replace(
        found, a=a, b=b, lengths=lengths, turned=turned or embedding,
        scale=_scale(settings, module, wide[0]),
    )  # fmt: skip


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """S of s B A for one module, whose rank is that of its A."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):  # the first one that fits, as in peft
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _tie(
    changes: Mapping[str, Change], settings: Mapping[str, Any], ends: _Ends
) -> tuple[dict[str, Change], bool]:
    """Changes to a base whose head is its embedding, and whether both stay one, as in `peft`."""
    saved = tuple(settings.get("modules_to_save") or ())
    apart = {
        target for target, change in changes.items()
        if target in ends and (change.a or target.removesuffix(".weight").endswith(saved))
    }  # fmt: skip
    if settings.get("ensure_weight_tying"):
        apart = set()
    found = {t: change for t, change in changes.items() if t != ends.head or t in apart}
    if ends.embedding in apart and ends.head not in apart:
        embedding = changes[ends.embedding]
        found[ends.head] = Change(embedding.source, own=embedding.own if embedding.a else "")
    return found, not apart


class AdaptedWeights:
    """The weights of a base with an adapter on it."""

    def __init__(
        self, document: Mapping[str, Any], open_weights: Callable[[Path], Weights]
    ) -> None:
        self.base = open_weights(Path(document["base"]))
        self._adapter = StoredWeights([Path(document["adapter"])])
        self.files = [Path(file) for file in document["files"]]
        self.changes = {name: Change(**told) for name, told in document["changes"].items()}
        self.headers: dict[str, TensorHeader] = dict(self.base.headers)
        for name, change in self.changes.items():
            start = self._adapter.headers[change.own] if change.own else None
            start = start or self.base.headers[change.source]
            wide = change.a and start.dtype != "F64"
            self.headers[name] = TensorHeader("F32", start.shape) if wide else start

    def update(self, tensor: str) -> torch.Tensor | None:
        """The task vector s B A of one tensor, float32, without DoRA's lengths; None if none."""
        change = self.changes.get(tensor)
        if change is None or not change.a:
            return None
        a, b = (self._adapter.read(name).float() for name in (change.a, change.b))
        found = change.scale * (b @ a)
        return found.T if change.turned else found

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor with what the adapter does to it."""
        change = self.changes.get(tensor)
        if change is None:
            return self.base.read(tensor)
        start = self._adapter.read(change.own) if change.own else self.base.read(change.source)
        added = self.update(tensor)
        if added is None:
            return start
        found = (start if self.headers[tensor].dtype == "F64" else start.float()) + added
        if change.lengths:
            # The rows that DoRA scales are those of a matrix stored as [out, in].
            rows = found.T if change.turned else found
            lengths = self._adapter.read(change.lengths).to(found.dtype)
            rows = rows * (lengths / rows.norm(dim=1))[:, None]
            found = rows.T if change.turned else rows
        return found.contiguous()
