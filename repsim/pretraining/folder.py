"""Hugging Face folders of models and checkpoints, with their provenance."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from repsim.core.aside import temporary
from repsim.core.errors import InputError
from repsim.core.files import hash_files, hash_json, read_json, write_json, write_text
from repsim.core.model_ref import ModelRef
from repsim.core.provenance import shown_path, versions
from repsim.merging.card import stated_licence
from repsim.pretraining.build import Shape
from repsim.pretraining.card import model_card
from repsim.pretraining.checkpoint import disk_errors, force_to_disk
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.config_corpus import CorpusConfig
from repsim.pretraining.data import TrainingData
from repsim.pretraining.parent import Parent
from repsim.pretraining.planning import RunPlan

PROVENANCE = "repsim_provenance.json"
SCHEMA = "repsim/provenance/1"
WEIGHTS = "model.safetensors"
#: What a provenance notes of its run, where there was anything.
STOPPED, MEMORY = "early_stopping", "out_of_memory"


@dataclasses.dataclass(frozen=True)
class Described:
    """A run with what its folders state of it."""

    config: FamilyConfig
    plan: RunPlan
    data: TrainingData
    key: str
    shape: Shape
    parent: Parent | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: What its run met: memory that ran out, the end of patience.
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write_model(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    about: Described,
    step: int,
    scores: Mapping[str, float],
    dtype: str,
    metrics: str = "",
) -> ModelRef:
    """Write a model as a Hugging Face folder, with size and hash of each file in its provenance."""
    aside = temporary(folder / "model")
    try:
        with disk_errors(f"the model of step {step}"):
            aside.mkdir(parents=True)
            _write_files(aside, weights, about, dtype)
            ref = _reference(folder, aside, about, step)
            provenance = _provenance(ref, about, step, scores, dtype)
            provenance |= {"files": _described_files(aside), "metrics": metrics}
            write_text(aside / "README.md", model_card(provenance))
            write_json(aside / PROVENANCE, {**provenance, "sha256": hash_json(provenance)})
            for path in sorted(aside.iterdir(), key=lambda path: path.name == PROVENANCE):
                force_to_disk(path)
                path.replace(folder / path.name)
            force_to_disk(folder)
    finally:
        remove(aside)
    return ref


def _described_files(folder: Path) -> dict[str, list[Any]]:
    """Name -> bytes and SHA-256."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: [path.stat().st_size, hash_files([path])] for path in files}


def damaged_file(folder: Path, known: Mapping[str, Any]) -> str:
    """The first file of a model folder that its provenance does not describe, or nothing."""
    files = known.get("files") or {WEIGHTS: [None, known.get("weights_hash")]}
    sizes = {name: _size(folder / name) for name in files}
    for name, (size, _) in files.items():
        if sizes[name] is None or size not in (None, sizes[name]):
            return str(name)
    return next((str(n) for n, (_, d) in files.items() if hash_files([folder / n]) != d), "")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _write_files(
    aside: Path, weights: Mapping[str, torch.Tensor], about: Described, dtype: str
) -> None:
    """Weights, configuration and tokenizer."""
    import copy

    from safetensors.torch import save_file
    from transformers import GenerationConfig

    kind = getattr(torch, dtype)
    save_file(
        {name: tensor.to(kind).contiguous() for name, tensor in weights.items()},
        aside / WEIGHTS,
        metadata={"format": "pt"},
    )
    (aside / WEIGHTS).chmod(0o644)  # safetensors writes files for the owner alone
    config = copy.deepcopy(about.shape.model_config)
    config.dtype = kind
    config.save_pretrained(aside)
    if about.parent:
        about.parent.copy_tokenizer(aside)
    else:
        generation = GenerationConfig.from_model_config(config)
        generation.eos_token_id = config.bos_token_id  # what ends a document in all training text
        generation.save_pretrained(aside)
        about.data.save_tokenizer(aside)


def _reference(folder: Path, aside: Path, about: Described, step: int) -> ModelRef:
    plan, shape = about.plan, about.shape
    return ModelRef(
        name=plan.name if _at_end(about, step) else f"{plan.name}@{step}",
        path=str(folder),
        architecture=shape.family,
        width=shape.width,
        layers=shape.layers,
        parameters=plan.parameters,
        tokenizer_hash=about.data.tokenizer.hash,
        weights_hash=hash_files([aside / WEIGHTS]),
        **history_of(about),
    )


def _at_end(about: Described, step: int) -> bool:
    return step == about.plan.last_step or STOPPED in about.notes


def history_of(about: Described) -> dict[str, Any]:
    """The fields of `ModelRef` that say where a model comes from."""
    plan, parent = about.plan, about.parent
    return {
        "role": plan.role,
        "languages": plan.languages,
        "init_seed": plan.init_seed,
        "data_seed": plan.data_seed,
        "forked_from": plan.fork_from or (parent.ref.weights_hash if parent else None),
        "fork_step": plan.first_step if plan.fork_from else parent.step if parent else None,
    }


def _provenance(
    ref: ModelRef, about: Described, step: int, scores: Mapping[str, float], dtype: str
) -> dict[str, Any]:
    """What `repsim_provenance.json` states. The path is left out: folders are moved."""
    plan, corpus = about.plan, about.config.corpus
    history = [phase.to_dict() for phase in plan.history]
    history[-1]["last_step"] = step
    own = plan.sample_at(step) * plan.context
    tokens: int | None = own
    if about.parent:
        history, tokens = _after_parent(about.parent, history, own)
    return {
        "schema": SCHEMA,
        **{key: value for key, value in ref.to_dict().items() if key != "path"},
        "family": about.config.name,
        "run": plan.name,
        "step": step,
        "last_step": plan.last_step,
        "tokens": tokens,
        "own_tokens": (step - plan.first_step) * plan.tokens_per_step,
        "fork_state": plan.fork_state,
        **({"init_from": about.parent.stated()} if about.parent else {}),
        "history": history,
        "mix": plan.ratios(about.data.lengths),
        "windows": about.data.reading(plan).windows(),
        "bits_per_byte": dict(scores),
        "unigram_floor": dict(about.data.floors),
        "context": plan.context,
        "training": plan.training.model_dump(),
        "corpus": {**corpus.model_dump(), "source": _shown_sources(corpus)},
        "dtype": dtype,
        "config_hash": about.config.hash,
        "data_hash": about.data.hash,
        "license": about.config.saving.license
        or (stated_licence(about.parent.folder) if about.parent else None),
        "run_key": about.key,
        "settings": dict(about.settings),
        "versions": versions(),
        "checkpoints": [s for s in plan.checkpoints if s <= step] if _at_end(about, step) else [],
        **about.notes,
    }


def _shown_sources(corpus: CorpusConfig) -> Any:
    """Where text came from, without the folders above."""
    if isinstance(corpus.source, str):
        return shown_path(corpus.source)
    return [{**s.model_dump(), "source": shown_path(s.source)} for s in corpus.source]


def _after_parent(
    parent: Parent, history: list[dict[str, Any]], tokens: int
) -> tuple[list[dict[str, Any]], int | None]:
    """History and tokens with what the parent states of its own; unknown tokens stay unknown."""
    if parent.tokens is None:
        return history, None
    later = [
        {**phase, **{key: phase[key] + parent.step for key in ("first_step", "last_step")}}
        for phase in history
    ]
    return [*parent.history["history"], *later], parent.tokens + tokens


def read_provenance(folder: str | Path) -> dict[str, Any] | None:
    """The provenance of a model folder, None if it has none; InputError if it is damaged."""
    path = Path(folder) / PROVENANCE
    if not path.exists():
        return None
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"'{path}' is not a provenance of schema {SCHEMA}")
    return document


def is_whole(document: Mapping[str, Any]) -> bool:
    """Whether a provenance is as it was written; one of version 0.1 has no checksum."""
    held = {key: value for key, value in document.items() if key != "sha256"}
    return document.get("sha256") in (None, hash_json(held))


def model_ref(folder: str | Path) -> ModelRef:
    """The reference of a model folder that this module wrote."""
    document = read_provenance(folder)
    if document is None:
        raise InputError(
            f"'{folder}' has no {PROVENANCE}", hint="it is written by: repsim pretrain"
        )
    return ModelRef.from_dict({**document, "path": str(folder)})


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint folder, tied ones once."""
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).is_file():
        raise InputError(f"there is no {WEIGHTS} in '{folder}'")
    return load_file(folder / WEIGHTS)


def remove(folder: Path) -> None:
    """Delete a folder if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
