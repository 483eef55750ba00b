"""Training text from a Hugging Face data set, streamed (extra `hub`)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.corpora.documents import Document, Split, TrainingText, hashed_split

#: Names under which data sets keep text that is not for training.
HELDOUT_NAMES = ("heldout", "validation", "dev", "test")


def hub_text(
    spec: str, language: str, split: Split, *, allow_network: bool = False
) -> TrainingText:
    """The text of one language of a data set with a field `text`, and `id` where there is one."""
    name, config = _parse(spec, language)
    if not Path(name).is_dir() and not allow_network:
        raise UsageError(
            f"'{name}' is not a local folder, and fetching data sets is not allowed",
            hint="allow the network (allow_network=True), or give a local folder",
        )
    parts = _split_names(name, config)
    own = next((part for part in HELDOUT_NAMES if part in parts), None)

    def documents(part: str) -> Iterator[Document]:
        return _stream(name, config, part)

    source = f"{name} ({config})"
    if own is None:
        return hashed_split(
            lambda: documents("train"), language, split, name=Path(name).name, source=source
        )
    part = "train" if split == "train" else own
    return TrainingText(
        name=Path(name).name,
        language=language,
        documents=lambda: documents(part),
        split=split,
        source=source,
        split_rule=f"the data set's own: train, {own}",
    )


def _parse(spec: str, language: str) -> tuple[str, str]:
    name, _, config = spec.removeprefix("hub:").partition(":")
    if not name:
        raise UsageError(f"'{spec}' names no data set", hint="hub:NAME or hub:NAME:CONFIG")
    return name, (config or "{language}").replace("{language}", language)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise ResourceError(
            "reading a data set needs the package 'datasets'",
            hint="install the extra: repsim-lm[hub]",
        ) from None
    return datasets


def _guard() -> dict[str, Any]:
    """Refuse remote code where `datasets` could still run it (5 and 4 cannot)."""
    major = int(importlib.metadata.version("datasets").split(".")[0])
    return {"trust_remote_code": False} if major < 4 else {}


def _split_names(name: str, config: str) -> list[str]:
    datasets = _datasets()
    try:
        return list(datasets.get_dataset_split_names(name, config, **_guard()))
    except Exception as error:
        # The hub's client raises a family of unrelated types for what is one thing to the user.
        raise InputError(f"data set '{name}' ({config}) cannot be opened: {error}") from error


def _stream(name: str, config: str, part: str) -> Iterator[Document]:
    rows = _datasets().load_dataset(name, config, split=part, streaming=True, **_guard())
    for number, row in enumerate(rows):
        text = row.get("text")
        if not isinstance(text, str):
            raise InputError(
                f"data set '{name}' ({config}), row {number} has no field 'text' with a string",
                hint=f"it has: {', '.join(row)}",
            )
        if text.strip():
            yield Document(str(row.get("id", f"{number:08d}")), text)
