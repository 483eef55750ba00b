"""Training text from a Hugging Face data set, streamed (extra `hub`)."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from repsim.core.errors import InputError, UsageError, optional
from repsim.corpora.documents import Document
from repsim.corpora.find_documents import HELDOUT_NAMES
from repsim.corpora.text_address import HUB, TextAddress


class HubText(NamedTuple):
    """The streams of a data set in one language."""

    train: DataSetStream
    heldout: DataSetStream | None


class DataSetStream:
    """The documents of one split; a stream that is limited is fetched once and kept in a file."""

    def __init__(
        self, name: DataSetName, part: str, address: TextAddress, language: str, limit: int | None
    ) -> None:
        self.name, self.part, self.address, self.language = name, part, address, language
        self.limit = limit
        self._kept: Any = None

    @property
    def source(self) -> str:
        """Which data set and split."""
        return f"{self.name}, {self.part}"

    def __iter__(self) -> Iterator[Document]:
        if self._kept is not None:
            with Path(self._kept.name).open(encoding="utf-8") as lines:
                yield from (Document(*json.loads(line)) for line in lines)
        elif self.limit is None:
            yield from self._stream()
        else:
            yield from self._keeping(self.limit)

    def _keeping(self, limit: int) -> Iterator[Document]:
        # Deleted with this object; the text may be more than memory holds.
        kept = tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl")  # noqa: SIM115
        total = 0
        for document in self._stream():
            total += len(document.text.encode())
            if total > limit:
                break
            kept.write(json.dumps(document) + "\n")
            yield document
        kept.flush()
        self._kept = kept

    def _stream(self) -> Iterator[Document]:
        name, where = self.name, f"data set '{self.name.name}' ({self.name.config})"
        try:
            rows = iter(
                _datasets().load_dataset(
                    name.name, name.config, split=self.part, streaming=True,
                    revision=name.revision, **_guard(),
                )
            )  # fmt: skip
            for number in itertools.count():
                row = next(rows, None)
                if row is None:
                    return
                place = f"{where}, row {number}"
                found = self.address.document(row, f"{number:08d}", place, self.language)
                if found is not None:
                    yield Document(*found)
        except (OSError, ValueError, _datasets().exceptions.DatasetsError) as error:
            # A lost connection is an OSError; anything else lies in the data set itself.
            raise InputError(f"{where} cannot be read: {error.__cause__ or error}") from error


class DataSetName(NamedTuple):
    """A data set, one of its configurations, a revision."""

    name: str
    config: str
    revision: str | None

    @classmethod
    def parse(cls, location: str, language: str) -> DataSetName:
        """Read hub:NAME[:CONFIG][@REVISION]; without CONFIG the language is its name."""
        plain, _, revision = location.removeprefix(HUB).partition("@")
        name, _, config = plain.partition(":")
        if not name:
            raise UsageError(f"'{location}' names no data set", hint="hub:NAME[:CONFIG][@REVISION]")
        return cls(name, (config or "{language}").replace("{language}", language), revision or None)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.name).is_dir()

    def __str__(self) -> str:
        return f"{self.name} ({self.config})" + (f"@{self.revision}" if self.revision else "")


def hub_text(
    address: TextAddress, language: str, *, limit: int | None = None, allow_network: bool = False
) -> HubText:
    """The text of one language of a data set, at most `limit` bytes of each split."""
    name = DataSetName.parse(address.location, language)
    if not name.is_local and not allow_network:
        raise UsageError(
            f"'{name.name}' is not a local folder, and fetching data sets is not allowed",
            hint="allow the network (allow_network=True, --allow-network), or give a local folder",
        )
    parts = _split_names(name)
    if "train" not in parts:
        raise InputError(f"data set '{name}' has no split 'train'", hint=f"has: {', '.join(parts)}")
    held = next((part for part in HELDOUT_NAMES if part in parts), None)
    train, heldout = (
        DataSetStream(name, part, address, language, limit) if part else None
        for part in ("train", held)
    )
    assert train is not None
    return HubText(train, heldout)


def _datasets() -> Any:
    return optional("datasets", "a Hugging Face data set", "repsim-lm[hub]")


def _guard() -> dict[str, Any]:
    """Refuse remote code where `datasets` could still run it (5 and 4 cannot)."""
    major = int(importlib.metadata.version("datasets").split(".")[0])
    return {"trust_remote_code": False} if major < 4 else {}


def _split_names(name: DataSetName) -> list[str]:
    datasets = _datasets()
    try:
        found = datasets.get_dataset_split_names(
            name.name, name.config, revision=name.revision, **_guard()
        )
    except Exception as error:
        # The hub's client raises a family of unrelated types for what is one thing to the user.
        raise InputError(
            f"data set '{name.name}' ({name.config}) cannot be opened: {error}",
            hint="a configuration that is not named as the language: hub:NAME:CONFIG",
        ) from error
    return list(found)
