"""Find a model and say what it is, from its config and the headers of its weight files."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from repsim.core.aside import sweep_once
from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.core.files import cache_folder, file_mark, hash_bytes, hash_files, read_json, write_text
from repsim.core.model_ref import ModelRef, Role
from repsim.models.adapters import is_adapter, stated_base
from repsim.models.arch import ArchSpec, spec_for
from repsim.models.consistency import beyond_measure, contradictions, stated
from repsim.models.formats import adapter_folder, folder_headers, held_folder
from repsim.models.gguf import stem_of
from repsim.models.headers import TensorHeader, count_parameters, weight_files, what_is_in
from repsim.models.hub import from_hub, short_name
from repsim.models.in_memory import held_tokenizer_hash, ref_in_memory
from repsim.models.packages import PACKAGED, fetch_model
from repsim.models.zoo import PREFIX, zoo_folder

PROVENANCE_FILE = "repsim_provenance.json"
#: Fields of `ModelRef` that a provenance file may state.
HISTORY = ("role", "languages", "init_seed", "data_seed", "forked_from", "fork_step", "step",
           "tokens")  # fmt: skip
#: What a tokenizer may consist of, the one that decides first.
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
#: Longest path, as Linux has it.
MOST_PATH = 4096
_LABELLED = re.compile(r"(?P<label>[^/\\=@+:~.][^/\\=@+:]*)=(?P<model>.+)", re.DOTALL)

#: What a user may hold: what names a model, a `ModelRef`, a module of `transformers` or
#: `(module, tokenizer)`, or what `load_model` and `load_causal_lm` gave.
ModelLike = Any


@dataclasses.dataclass(frozen=True)
class Located:
    """A model folder on this machine and what is known of it from how it was named."""

    folder: Path
    name: str
    path: str
    revision: str | None = None
    history: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights_hash: str = ""


def inspect_model(
    name: ModelLike,
    *,
    label: str | None = None,
    generic: bool = False,
    revision: str | None = None,
    allow_network: bool = False,
) -> ModelRef:
    """Identity, size and history of a model without loading it.

    Args:
        name: A Hugging Face folder, the name of a packaged model, a hub id ("org/name",
            "org/name@revision", "org/name:file.gguf"), any of them behind a label ("en=runs/en"); a
            `ModelRef`; a module of `transformers`, alone or as `(module, tokenizer)`.
        label: Name in tables and plots; the folder's own name by default.
        generic: Whether families without a spec are accepted.
        revision: Revision on the hub.
        allow_network: Whether something that is not on this machine may be downloaded.

    Raises:
        InputError: Nothing is there, or files are missing, truncated or pickled.
        IncompatibleModelsError: The family has no spec, and `generic` is off.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = write_tiny_model("llama", tempfile.mkdtemp() + "/tiny")
        >>> ref = inspect_model(folder)
        >>> ref.name, ref.architecture, ref.layers, ref.width
        ('tiny', 'llama', 2, 32)
    """
    located = locate(name, label=label, revision=revision, allow_network=allow_network)
    return describe(located, *read_config(located.folder, generic=generic))


def locate(
    name: ModelLike,
    *,
    label: str | None = None,
    revision: str | None = None,
    allow_network: bool = False,
) -> Located:
    """Find the folder of a model; arguments and errors as in `inspect_model`."""
    if (in_memory := ref_in_memory(name, label)) is not None:
        name = in_memory
    if isinstance(name, str):
        stated, name = split_label(name)
        label = label or stated
    if isinstance(name, ModelRef):
        known = {key: getattr(name, key) for key in HISTORY}
        declared = {key: v for key, v in known.items() if v not in (None, (), "other")}
        found = locate(
            name.path,
            label=label or name.name,
            revision=revision or name.revision,
            allow_network=allow_network,
        )
        history = {**found.history, **declared}
        return dataclasses.replace(found, history=history, weights_hash=name.weights_hash)
    if not isinstance(name, str | Path):
        raise UsageError(
            f"{type(name).__name__} is no model",
            hint="a folder, a hub id, a module of transformers, or (module, tokenizer)",
        )
    text = str(name)
    if "+" in text and not _path(text).exists():
        return _on_base(text, label, revision, allow_network)
    found = _find(name, label, revision, allow_network)
    if is_adapter(found.folder):
        base = _stated(found.folder, allow_network)
        return _adapted(base, found, label)
    if held := held_folder(found.folder):
        return dataclasses.replace(found, folder=held)
    if found.folder.is_file():
        raise InputError(
            f"model '{text}' is a file", hint="name the folder that holds config.json, or a .gguf"
        )
    return found


def _on_base(text: str, label: str | None, revision: str | None, network: bool) -> Located:
    """BASE+ADAPTER, as mergekit writes it; the revision is that of the base."""
    base, _, adapter = text.rpartition("+")
    if not base or not adapter:
        raise InputError(f"'{text}' names no model", hint="write BASE+ADAPTER, two folders")
    found = _find(adapter, None, None, network)
    if not is_adapter(found.folder):
        raise InputError(
            f"'{adapter}' is no adapter: it has no adapter_config.json, or whole weights",
            hint="write BASE+ADAPTER, two folders",
        )
    whole = locate(base, revision=revision, allow_network=network)
    return dataclasses.replace(_adapted(whole, found, label), path=text)


def _stated(adapter: Path, network: bool) -> Located:
    """The base that an adapter names."""
    base, revision = stated_base(adapter)
    try:
        return locate(base, revision=revision, allow_network=network)
    except InputError as error:
        raise InputError(
            f"the adapter '{adapter}' names a base that is not here: {error.what}",
            hint=f"name it yourself: BASE+{adapter}",
        ) from None


def _adapted(base: Located, adapter: Located, label: str | None) -> Located:
    """An adapter on its base, with the history that stands beside the adapter."""
    folder = adapter_folder(base.folder, adapter.folder)
    history = {"role": "fine-tuned", **read_provenance(adapter.folder)}
    return dataclasses.replace(adapter, folder=folder, name=label or folder.name, history=history)


def _find(
    name: str | Path, label: str | None, revision: str | None, allow_network: bool
) -> Located:
    """The folder or file that a name means, whatever it holds."""
    text = str(name)
    if text.startswith(PREFIX):
        inside = zoo_folder(text)
        return Located(inside, label or inside.name, text)
    folder = _path(text)
    if folder.exists():
        own = folder.resolve()
        return Located(folder, label or (stem_of(own) if folder.is_file() else own.name), text)
    if text in PACKAGED:
        packaged = PACKAGED[text]
        unpacked = fetch_model(text, allow_network=allow_network)
        history = {"languages": packaged.languages}
        return Located(unpacked, label or text, str(unpacked), None, history)
    deep = re.split("[@:]", text)[0].count("/") > 1
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or deep:
        raise InputError(f"model folder '{text}' does not exist", hint="check the path")
    folder, path, revision = from_hub(text, revision, allow_network)
    return Located(folder, label or short_name(path, revision), path, revision)


def split_label(text: str) -> tuple[str | None, str]:
    """Label and model of `label=model`; None and the text otherwise (`runs/a=b` is a path)."""
    found = _LABELLED.fullmatch(text)
    if found is None or _path(text).exists():
        return None, text
    return found["label"], found["model"]


def _path(text: str) -> Path:
    """The path that is meant; a "~" stands for nothing where there is no home."""
    if "\0" in text or len(text) > MOST_PATH:
        raise InputError(f"'{text[:80]!r}' is no path of a model", hint="check the path")
    with contextlib.suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def read_config(folder: Path, *, generic: bool = False) -> tuple[Any, ArchSpec]:
    """The `transformers` config of a folder and the spec of its family."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"model folder '{folder}' has no config.json; {what_is_in(folder)}",
            hint="a Hugging Face folder is needed",
        )
    document = config_document(folder)
    if not isinstance(document.get("model_type"), str):
        raise InputError(f"'{path}' states no model_type")
    if document.get("transformers_weights") is not None:
        raise IncompatibleModelsError(
            f"'{path}' names weights of its own choice (transformers_weights)",
            hint="rename them to model.safetensors and take the entry out",
        )
    spec = spec_for(document["model_type"], generic=generic)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, TypeError, ValueError,
        StrictDataclassError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise IncompatibleModelsError(
            f"transformers does not take the config of '{folder}': {reason}",
            hint="mend config.json; code that comes with a model is never run",
        ) from None
    return config, spec


def config_document(folder: Path) -> dict[str, Any]:
    """A config.json that states no size beyond all measure."""
    path = folder / "config.json"
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"'{path}' is not a JSON object")
    if reason := beyond_measure(document):
        raise InputError(
            f"'{path}' is not the config of a model: {reason}", hint="mend config.json"
        )
    return document


def check_config(name: str, folder: Path, headers: Mapping[str, TensorHeader]) -> None:
    """Refuse a config.json that contradicts the weights; read by transformers if it seems so."""
    document = config_document(folder)
    config, spec = stated(document), spec_for(str(document.get("model_type")), generic=True)
    if not contradictions(config, spec, headers):
        return
    # A family that transformers does not know has no defaults: what is stated has to do.
    with contextlib.suppress(IncompatibleModelsError):
        config, spec = read_config(folder, generic=True)
    _refuse_contradictions(name, config, spec, headers)


def _refuse_contradictions(
    name: str, config: Any, spec: ArchSpec, headers: Mapping[str, TensorHeader]
) -> None:
    if found := contradictions(config, spec, headers):
        raise InputError(
            f"config.json of model '{name}' contradicts its weights: {found[0]}",
            hint="mend config.json, or copy it again from where the weights are from",
        )


def describe(located: Located, config: Any, spec: ArchSpec) -> ModelRef:
    """Fill in a `ModelRef` from the files of a folder."""
    files = weight_files(located.folder)
    headers = folder_headers(located.folder)
    _refuse_contradictions(located.name, config, spec, headers)
    weights = hash_remembered(files)
    if located.weights_hash and located.weights_hash != weights:
        raise InputError(
            f"the weights of model '{located.name}' in '{located.path}' are not those declared",
            hint="they have changed since they were inspected; inspect the model again",
        )
    return ModelRef(
        name=located.name,
        path=located.path,
        revision=located.revision,
        architecture=spec.name,
        width=spec.width(config),
        layers=spec.n_layers(config),
        parameters=count_parameters(headers),
        tokenizer_hash=tokenizer_hash(located.folder),
        weights_hash=weights,
        **{**read_provenance(located.folder), **located.history},
    )


def read_provenance(folder: Path) -> dict[str, Any]:
    """Fields of `ModelRef` that the provenance file beside the weights states."""
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return {}
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"'{path}' is not a JSON object")
    stated = {key: document[key] for key in HISTORY if document.get(key) is not None}
    for key, value in stated.items():
        if not _is_history(key, value):
            raise InputError(
                f"'{path}' states {key} {value!r}",
                hint="names are text, languages a list of codes, seeds and steps whole numbers",
            )
    if stated.get("role", "other") not in get_args(Role):
        raise InputError(
            f"'{path}' states role '{stated['role']}'", hint=f"roles: {', '.join(get_args(Role))}"
        )
    if "languages" in stated:
        stated["languages"] = tuple(stated["languages"])
    return stated


def _is_history(key: str, value: Any) -> bool:
    """Whether a field of the history has the type that it must have."""
    if key == "languages":
        return isinstance(value, list) and all(isinstance(code, str) for code in value)
    if key in ("role", "forked_from"):
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that decide how a folder's tokenizer cuts text."""
    for names in TOKENIZER_FILES:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths
    raise InputError(
        f"model folder '{folder}' has no tokenizer",
        hint="save it there with tokenizer.save_pretrained(folder)",
    )


def tokenizer_hash(folder: Path) -> str:
    """Hash of a folder's tokenizer; empty for a model in memory that came without one."""
    held = held_tokenizer_hash(folder)
    return hash_remembered(tokenizer_files(folder)) if held is None else held


def hash_remembered(files: Sequence[Path]) -> str:
    """`core.files.hash_files`, remembered in the cache for as long as no file is changed."""
    marks = [f"{path.resolve()}\0{file_mark(path)}" for path in files]
    known = cache_folder() / "hashes" / hash_bytes(*(mark.encode() for mark in marks))
    with contextlib.suppress(OSError, ValueError):
        found = known.read_text(encoding="utf-8")
        if found == _checked(found[:64], known.name):
            return found[:64]
    digest = hash_files(files)
    # The cache only saves time: one that cannot be read or written is no reason to fail.
    with contextlib.suppress(OSError, InputError):
        sweep_once(known.parent)
        write_text(known, _checked(digest, known.name))
    return digest


def _checked(digest: str, name: str) -> str:
    """A remembered hash as it is stored: with what tells that it is whole, and of these files."""
    return f"{digest} {hash_bytes(digest.encode(), name.encode())[:16]}\n"
