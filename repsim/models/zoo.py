"""The zoo: small language models with a known history that ship inside the package."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, unknown_name
from repsim.core.files import read_json
from repsim.core.model_ref import ModelRef

#: One Hugging Face folder per model.
ZOO_FOLDER = Path(__file__).parent / "zoo_models"
#: What precedes the name of a zoo model where a model is asked for.
PREFIX = "zoo:"


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """One model of the zoo."""

    ref: ModelRef
    folder: Path
    mix: dict[str, float]
    tokens: int
    bits_per_byte: dict[str, float]
    unigram_floor: dict[str, float]
    recipe: str

    @property
    def name(self) -> str:
        """Name with the prefix, as commands take it."""
        return PREFIX + self.ref.name

    @property
    def command(self) -> str:
        """The command that trains it again."""
        return f"repsim pretrain {self.recipe} --only {self.ref.name} -o runs/zoo"

    def describe(self) -> dict[str, Any]:
        """Everything as JSON: path, languages, provenance, bits per byte, command."""
        return {
            "name": self.name,
            "path": str(self.folder),
            "languages": list(self.ref.languages),
            "role": self.ref.role,
            "mix": self.mix,
            "tokens": self.tokens,
            "init_seed": self.ref.init_seed,
            "data_seed": self.ref.data_seed,
            "forked_from": self.ref.forked_from,
            "fork_step": self.ref.fork_step,
            "parameters": self.ref.parameters,
            "bits_per_byte": self.bits_per_byte,
            "unigram_floor": self.unigram_floor,
            "weights_hash": self.ref.weights_hash,
            "tokenizer_hash": self.ref.tokenizer_hash,
            "command": self.command,
        }


def list_zoo() -> list[ZooModel]:
    """The models of the zoo, sorted by name. Loads no weights.

    Example:
        >>> [model.ref.role for model in list_zoo() if model.name == "zoo:mixed"]
        ['mixed']
    """
    return [_read(folder) for folder in sorted(ZOO_FOLDER.iterdir()) if folder.is_dir()]


def zoo_folder(name: str) -> Path:
    """Folder of a zoo model."""
    bare = name.removeprefix(PREFIX)
    known = [folder.name for folder in ZOO_FOLDER.iterdir() if folder.is_dir()]
    if bare not in known:
        raise unknown_name("zoo model", bare, known, see="repsim zoo", error=InputError)
    return ZOO_FOLDER / bare


def _read(folder: Path) -> ZooModel:
    document = read_json(folder / "repsim_provenance.json")
    try:
        return ZooModel(
            ref=ModelRef.from_dict(document | {"path": str(folder)}),
            folder=folder,
            mix=document["mix"],
            tokens=document["tokens"],
            bits_per_byte=document["bits_per_byte"],
            unigram_floor=document["unigram_floor"],
            recipe=f"{document['family']}.yaml",
        )
    except KeyError as error:
        raise InputError(f"provenance of '{folder}' lacks {error}") from None
