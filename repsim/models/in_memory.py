"""Models that are loaded already: an `nn.Module` goes wherever a path goes.

It gets a view (see `views`): config, tokenizer, and a hash of its weights as they are now. A verb
that runs it gets a twin that shares its weights, so that the user's own model is not touched.
"""

from __future__ import annotations

import atexit
import copy
import dataclasses
import functools
import itertools
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.files import file_mark, hash_json, read_json, write_json, write_text
from repsim.core.model_ref import ModelRef
from repsim.models.headers import TensorHeader
from repsim.models.identity import tokenizer_in_memory, weight_versions, weights_in_memory
from repsim.models.views import VIEW, read_view

if TYPE_CHECKING:
    import torch
    from torch import nn

KIND = "memory"
#: Type of torch -> type in a header of safetensors.
_TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_WITHOUT = "repsim.compare_modules reads any nn.Module at modules that you name"


@dataclasses.dataclass(frozen=True)
class _Held:
    """A model of this process: what a view in memory stands for."""

    model: weakref.ReferenceType[nn.Module]
    tokenizer: Any
    versions: tuple[tuple[int, int], ...]


#: Key of a view -> its model. Models are not kept alive by it.
_HELD: dict[str, _Held] = {}
_NUMBERS = itertools.count(1)


class Given(NamedTuple):
    """A model in memory as the user gave it: alone, with its tokenizer, or as loaded here."""

    model: nn.Module
    tokenizer: Any = None
    ref: ModelRef | None = None


def given_model(value: Any) -> Given | None:
    """A module, `(module, tokenizer)`, or what was loaded here; None for anything else."""
    if isinstance(value, str | Path | ModelRef | Mapping):
        return None
    from torch import nn

    if isinstance(value, nn.Module):
        return Given(value)
    if isinstance(getattr(value, "model", None), nn.Module) and hasattr(value, "ref"):
        return Given(value.model, value.tokenizer, value.ref)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], nn.Module):
        # Two models side by side are no model and its tokenizer.
        other = isinstance(value[1], nn.Module | tuple | str | Path | ModelRef | Mapping)
        return None if other else Given(*value)
    return None


def ref_in_memory(value: Any, label: str | None = None, tokenizer: Any = None) -> ModelRef | None:
    """A reference to a model in memory as it is now; None for anything else."""
    if (given := given_model(value)) is None:
        return None
    if given.tokenizer is None:
        given = given._replace(tokenizer=tokenizer)
    folder, name = _view(given, label)
    known = given.ref or ModelRef(name, "")
    return dataclasses.replace(known, name=name, path=str(folder), revision=None, weights_hash="")


def _view(given: Given, label: str | None) -> tuple[Path, str]:
    """The folder that stands for a model in memory, and its name. Its weights are hashed."""
    model: Any = _unwrapped(given.model)
    name = label or (given.ref.name if given.ref else None) or _own_name(model)
    _check(model, given.tokenizer, name)
    weights = weights_in_memory(model)
    if not weights:
        raise InputError(
            f"model '{name}' has weights that are not in memory (meta, or offloaded)",
            hint="load it whole, or name its folder",
        )
    config = model.config.to_dict()
    tokens = tokenizer_in_memory(given.tokenizer) if given.tokenizer is not None else ""
    key = hash_json([id(model), weights, repr(config), tokens, name])[:32]
    folder = _scratch() / key / name.replace("/", "_")
    for dead in [known for known, held in _HELD.items() if held.model() is None]:
        del _HELD[dead]
        shutil.rmtree(_scratch() / dead, ignore_errors=True)
    tokenizer = copy.deepcopy(given.tokenizer)
    _HELD[key] = _Held(weakref.ref(model), tokenizer, weight_versions(model))
    if not folder.exists():
        _write(folder, model, tokenizer, {"key": key, "weights": weights, "tokenizer": tokens})
    return folder, name


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model behind `torch.compile` and data parallelism."""
    from torch import nn

    model = getattr(model, "_orig_mod", model)
    parallel = nn.DataParallel | nn.parallel.DistributedDataParallel
    return model.module if isinstance(model, parallel) else model


def _own_name(model: Any) -> str:
    """Last part of what it was loaded from, else its class."""
    stated = str(getattr(model, "name_or_path", "") or "").rstrip("/")
    return stated.rpartition("/")[2] or type(model).__name__


def _check(model: Any, tokenizer: Any, name: str) -> None:
    if hasattr(model, "peft_config"):
        raise IncompatibleModelsError(
            f"model '{name}' is wrapped in an adapter",
            hint="give model.merge_and_unload(), or name BASE+ADAPTER, two folders",
        )
    if not isinstance(getattr(getattr(model, "config", None), "model_type", None), str):
        raise IncompatibleModelsError(
            f"{type(model).__name__} '{name}' has no config of transformers, so that its layers "
            "are not known",
            hint=_WITHOUT,
        )
    if tokenizer is not None and not hasattr(tokenizer, "save_pretrained"):
        raise UsageError(
            f"the tokenizer of model '{name}' is {type(tokenizer).__name__}, none of transformers",
            hint="wrap it: transformers.PreTrainedTokenizerFast(tokenizer_object=...)",
        )


@functools.cache
def _scratch() -> Path:
    """A folder of this process, which goes with it."""
    found = Path(tempfile.mkdtemp(prefix="repsim-models-"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    return found


def _write(folder: Path, model: Any, tokenizer: Any, told: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], _float_type(model)
    config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        stored = folder / "tokenizer.json"
        if stored.is_file():  # what the last call asked for is no part of it
            write_json(stored, read_json(stored) | {"padding": None, "truncation": None})
    identity = folder / "weights_in_memory"
    write_text(identity, told["weights"])
    document = {"kind": KIND, "files": [str(identity)], "marks": [file_mark(identity)], **told}
    write_json(folder / VIEW, document)


def _float_type(model: nn.Module) -> Any:
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return types[0] if types else None


def _held(folder: Path) -> _Held | None:
    """What a folder stands for, if it is a view of a model in memory."""
    document = read_view(folder)
    return _of(document) if document and document["kind"] == KIND else None


def _of(document: Mapping[str, Any]) -> _Held:
    name = Path(document["files"][0]).parent.name
    held = _HELD.get(document["key"])
    model = held.model() if held else None
    if held is None or model is None:
        raise InputError(
            f"model '{name}' was in memory and is gone, or is in another process",
            hint="keep it and pass it again, or save it: model.save_pretrained(folder)",
        )
    if held.versions != weight_versions(model):
        raise InputError(
            f"model '{name}' has been changed in memory since it was inspected",
            hint="pass the model itself again, not what was made of it",
        )
    return held


def is_in_memory(folder: Path) -> bool:
    """Whether a folder stands for a model of this process."""
    return held_tokenizer_hash(folder) is not None


class MemoryWeights:
    """The weights of a model in memory under the names of its state dict; a shared head once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.files = [Path(file) for file in document["files"]]
        model = _of(document).model()
        assert model is not None
        self._tensors = _once(model)
        self.headers = {
            name: TensorHeader(_header_type(name, tensor), tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def read(self, tensor: str) -> torch.Tensor:
        """A copy of a tensor on the CPU: what is done with it does not reach the model."""
        return self._tensors[tensor].detach().cpu().contiguous().clone()


def _once(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of a state dict; those that are tied to another are left out, as on a disk."""
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    state = model.state_dict()
    return {
        name: tensor for name, tensor in state.items()
        if not (tied.get(name) in state and state[tied[name]].data_ptr() == tensor.data_ptr())
    }  # fmt: skip


def _header_type(name: str, tensor: torch.Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        raise IncompatibleModelsError(f"tensor '{name}' is of type {kind}, which is not known")
    return _TYPES[kind]


def twin_of(folder: Path, auto_class: str) -> nn.Module | None:
    """A model of the same weights and of its own modules, for inference; None for files."""
    held = _held(folder)
    model: Any = held.model() if held else None
    if model is None:
        return None
    if auto_class != "AutoModelForCausalLM":
        model = model.base_model
    elif getattr(model, "get_output_embeddings", lambda: None)() is None:
        raise IncompatibleModelsError(
            f"model '{folder.name}' ({type(model).__name__}) was given without the head that "
            "predicts the next token",
            hint="give the model with its head, as AutoModelForCausalLM loads it",
        )
    return shared_twin(model).eval().requires_grad_(False)


def shared_twin(model: nn.Module) -> nn.Module:
    """A copy of a module's structure over the same tensors; no number is copied."""
    from torch import nn

    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(model, memo)


def held_tokenizer(folder: Path) -> Any:
    """A copy of the tokenizer that came with a model in memory; None for a folder of files."""
    if (held := _held(folder)) is None:
        return None
    if held.tokenizer is None:
        raise InputError(
            f"model '{folder.name}' in memory came without its tokenizer",
            hint="give both: (model, tokenizer); where all models share one, tokenizer=",
        )
    return copy.deepcopy(held.tokenizer)


def held_tokenizer_hash(folder: Path) -> str | None:
    """Hash of that tokenizer, empty if it came without one; None for a folder of files."""
    document = read_view(folder)
    return str(document["tokenizer"]) if document and document["kind"] == KIND else None


def named_models(
    models: Sequence[Any] | Mapping[str, Any],
    names: Sequence[str] | None = None,
    *,
    tokenizer: Any = None,
) -> list[str | Path | ModelRef]:
    """Models as every verb takes them, under the names that they are to have.

    Args:
        models: Paths, hub ids, `ModelRef`s, modules, or `(module, tokenizer)`; in a mapping, by
            name.
        names: A name for each.
        tokenizer: Of modules that come without one: one for all, or one for each model.

    Raises:
        UsageError: Another number of names or tokenizers than of models.
    """
    if isinstance(models, Mapping):
        names, models = list(models), list(models.values())
    if isinstance(models, str | Path | ModelRef) or given_model(models) is not None:
        raise UsageError("one model stands where a list of them is meant", hint="[model]")
    for what, given in (("names", names), ("tokenizers", tokenizer)):
        if isinstance(given, list | tuple) and len(given) != len(models):
            raise UsageError(f"{len(given)} {what} for {len(models)} models")
    tokenizers = tokenizer if isinstance(tokenizer, list | tuple) else [tokenizer] * len(models)
    labels: list[str | None] = list(names) if names is not None else _labels(models)
    found: list[str | Path | ModelRef] = []
    for model, label, own in zip(models, labels, tokenizers, strict=True):
        if (ref := ref_in_memory(model, label, own)) is not None:
            found.append(ref)
        elif label is None:
            found.append(model)
        elif isinstance(model, ModelRef):
            found.append(dataclasses.replace(model, name=label))
        else:
            found.append(ModelRef(label, str(model)))
    return found


def _labels(models: Sequence[Any]) -> list[str | None]:
    """Names for modules, numbered where they are not unique; None for what has a name."""
    given = [given_model(model) for model in models]
    names = [
        None if g is None else g.ref.name if g.ref else _own_name(_unwrapped(g.model))
        for g in given
    ]
    return [
        f"{name} ({place})" if name is not None and names.count(name) > 1 else name
        for place, name in enumerate(names, start=1)
    ]
