"""Weight files that are written tensor by tensor, and can be gone on with after a crash.

The header of a safetensors file states where every tensor lies, and all shapes are known before
the first tensor is merged. So headers are written first and tensors at their places, and nothing
that was merged has to be kept in memory. A journal lists the tensors whose bytes are on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from repsim.core.errors import ResourceError, UsageError
from repsim.core.files import write_json
from repsim.merging.checkpoint import TYPES
from repsim.models.headers import TensorHeader

#: Largest weight file, in bytes, as `transformers` has it.
SHARD_BYTES = 5_000_000_000
#: Bytes after which what was written is forced to disk and entered in the journal, while merging
#: goes on; so many more may be written before that is through.
SYNC_BYTES = 128 << 20
JOURNAL = "journal.jsonl"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor lies: file, first byte, length."""

    file: str
    start: int
    length: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """Files of a checkpoint before it is written."""

    heads: Mapping[str, bytes]
    sizes: Mapping[str, int]
    places: Mapping[str, Place]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def lay_out(tensors: Mapping[str, TensorHeader], shard_bytes: int | None = None) -> Layout:
    """Distribute tensors over files of limited size."""
    limit = SHARD_BYTES if shard_bytes is None else shard_bytes
    sizes = {name: math.prod(h.shape) * TYPES[h.dtype][1] for name, h in tensors.items()}
    # Wide types first, so that every tensor is aligned to its own type.
    names = sorted(tensors, key=lambda name: (-TYPES[tensors[name].dtype][1], name))
    shards: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if shards[-1] and filled + sizes[name] > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += sizes[name]
    heads, totals, places = {}, {}, {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        head, starts = _head(shard, tensors, sizes)
        heads[file] = head
        totals[file] = len(head) + sum(sizes[name] for name in shard)
        places.update({n: Place(file, len(head) + starts[n], sizes[n]) for n in shard})
    return Layout(heads, totals, places)


def _head(
    names: Sequence[str], tensors: Mapping[str, TensorHeader], sizes: Mapping[str, int]
) -> tuple[bytes, dict[str, int]]:
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, at = {}, 0
    for name in names:
        header = tensors[name]
        starts[name] = at
        document[name] = {
            "dtype": header.dtype,
            "shape": list(header.shape),
            "data_offsets": [at, at + sizes[name]],
        }
        at += sizes[name]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, starts


class Output:
    """A folder of weight files in the making."""

    def __init__(self, folder: Path, layout: Layout, key: str) -> None:
        self.folder = folder
        self.done: dict[str, dict[str, Any]] = {}
        self._layout = layout
        self._key = key
        self._files: dict[str, int] = {}
        self._waiting: list[dict[str, Any]] = []
        self._unsynced = 0
        self._lock: IO[str] | None = None
        self._syncing: Future[None] | None = None
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sync")

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, layout: Layout, key: str) -> Iterator[Output]:
        """Create the folder, or go on with what a run of the same key left in it."""
        output = cls(folder, layout, key)
        try:
            output._start()
            yield output
            output._flush()
        except OSError as error:
            output._close()
            shutil.rmtree(folder, ignore_errors=True)
            if error.errno in _FULL:
                raise _full(layout.total, folder) from error
            raise
        except _InUseError:
            output._close()
            raise
        except KeyboardInterrupt:
            output._flush()
            raise
        except Exception:
            output._close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            output._close()

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        self.done = self._read_journal()
        if not self.done:
            self._clear()
            free = shutil.disk_usage(self.folder).free
            if free < self._layout.total:
                raise _full(self._layout.total, self.folder, free)
        for file, size in self._layout.sizes.items():
            descriptor = os.open(self.folder / file, os.O_RDWR | os.O_CREAT, 0o644)
            self._files[file] = descriptor
            os.ftruncate(descriptor, size)
            _write_all(descriptor, memoryview(self._layout.heads[file]), 0)
        if not self.done:
            line = json.dumps({"key": self._key})
            (self.folder / JOURNAL).write_text(line + "\n", encoding="utf-8")

    def _claim(self) -> None:
        """Hold a lock as long as the process lives, so that two do not write one folder."""
        try:
            import fcntl
        except ImportError:  # pragma: no cover - not on this system
            return
        self._lock = (self.folder / ".lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _InUseError(
                f"another process is writing '{self.folder}'", hint="wait for it to end"
            ) from None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != ".lock":
                path.unlink() if path.is_file() else shutil.rmtree(path)

    def _read_journal(self) -> dict[str, dict[str, Any]]:
        """Tensors that are on disk; none if the journal is of another merge."""
        path = self.folder / JOURNAL
        if not path.is_file():
            return {}
        entries = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                break
        if not entries or not self._key or entries[0].get("key") != self._key:
            return {}
        sizes = self._layout.sizes
        if any((self.folder / f).stat().st_size != s for f, s in sizes.items()):
            return {}
        return {entry["tensor"]: entry for entry in entries[1:]}

    def write(self, tensor: str, data: memoryview, start: int = 0) -> None:
        """Write a tensor, or some of its rows, to its place."""
        place = self._layout.places[tensor]
        _write_all(self._files[place.file], data, place.start + start)
        self._unsynced += len(data)

    def finish(self, tensor: str, **facts: Any) -> None:
        """Enter a tensor in the journal once its bytes are on disk."""
        entry = {"tensor": tensor, **facts}
        self.done[tensor] = entry
        self._waiting.append(entry)
        if self._unsynced >= SYNC_BYTES:
            self._sync_behind()

    def _sync_behind(self) -> None:
        """Force what was written to disk beside the merge, which does not wait for the disk.

        One such run at a time: what is not on disk yet stays within twice `SYNC_BYTES`.
        """
        self._await_sync()
        entries, self._waiting, self._unsynced = self._waiting, [], 0
        self._syncing = self._syncer.submit(self._sync, entries)

    def _await_sync(self) -> None:
        """Wait for a run that was begun; what went wrong in it is raised here."""
        begun, self._syncing = self._syncing, None
        if begun is not None:
            begun.result()

    def _sync(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Bytes first, and then the journal that says they are there."""
        for descriptor in self._files.values():
            os.fsync(descriptor)
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            for entry in entries:
                journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def _flush(self) -> None:
        """Return when all that was finished is on disk and in the journal."""
        self._await_sync()
        if self._waiting:
            self._sync(self._waiting)
            self._waiting, self._unsynced = [], 0

    @property
    def order(self) -> dict[str, tuple[str, int]]:
        """Tensor -> file and first byte: the order in which writing runs through the disk."""
        return {name: (place.file, place.start) for name, place in self._layout.places.items()}

    def write_index(self) -> None:
        """Write the index that several weight files need, and remove what only the run needed."""
        if len(self._layout.heads) > 1:
            total = sum(place.length for place in self._layout.places.values())
            files = {name: place.file for name, place in sorted(self._layout.places.items())}
            write_json(
                self.folder / "model.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": files},
            )

    def tidy(self) -> None:
        """Remove journal and lock: the folder is whole."""
        self._flush()
        (self.folder / JOURNAL).unlink()
        (self.folder / ".lock").unlink(missing_ok=True)

    def _close(self) -> None:
        self._syncer.shutdown(cancel_futures=True)  # it works on the descriptors closed here
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class _InUseError(UsageError):
    """Another process holds the lock: its folder is not ours to remove."""


def _write_all(descriptor: int, data: memoryview, start: int) -> None:
    """One call writes at most 2 GiB, and may write less."""
    while len(data):
        written = os.pwrite(descriptor, data, start)
        data, start = data[written:], start + written


def _full(needed: int, folder: Path, free: int | None = None) -> ResourceError:
    there = "" if free is None else f", {free / 1e9:.2f} GB are free"
    return ResourceError(
        f"the disk of '{folder.parent}' is full: the result needs {needed / 1e9:.2f} GB{there}",
        hint="free some space, or write to another disk, and run the command again",
    )
