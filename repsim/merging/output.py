"""Weight files that are written tensor by tensor, and can be gone on with after a crash.

All shapes are known before the first tensor is merged: headers are written first, tensors at their
places, and a journal lists the tensors whose bytes are on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.aside import locked, make_folder
from repsim.core.errors import ResourceError
from repsim.core.files import write_json, write_text
from repsim.merging.checkpoint import TYPES
from repsim.models.headers import TensorHeader

#: Largest weight file, in bytes, as `transformers` has it.
SHARD_BYTES = 5_000_000_000
#: Bytes after which what was written is forced to disk and entered in the journal, while merging
#: goes on; so many more may be written before that is through.
SYNC_BYTES = 128 << 20
JOURNAL = "journal.jsonl"
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: Bytes that are read at a time when tensors of an earlier go are checked.
_CHUNK = 16 << 20
_log = logging.getLogger("repsim.merging")


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


def lay_out(tensors: Mapping[str, TensorHeader]) -> Layout:
    """Distribute tensors over files of limited size."""
    sizes = {name: math.prod(h.shape) * TYPES[h.dtype][1] for name, h in tensors.items()}
    # Wide types first, so that every tensor is aligned to its own type.
    names = sorted(tensors, key=lambda name: (-TYPES[tensors[name].dtype][1], name))
    shards: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if shards[-1] and filled + sizes[name] > SHARD_BYTES:
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
        self._sums: dict[str, tuple[int, int]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._unsynced = 0
        self._syncing: Future[None] | None = None
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sync")

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, layout: Layout, key: str) -> Iterator[Output]:
        """Create the folder, or go on in that of the same key; it stays if a run can go on."""
        output = cls(folder, layout, key)
        make_folder(folder)
        with locked(folder / ".lock", f"another process is writing '{folder}'"):
            try:
                output._start()
                yield output
                output._flush()
            except OSError as error:
                if error.errno not in _FULL:
                    output._keep()
                    raise
                output._remove()
                raise _full(layout.total, folder) from error
            except (KeyboardInterrupt, MemoryError):
                output._keep()
                raise
            except Exception:
                output._remove()
                raise
            finally:
                output._close()

    def _start(self) -> None:
        for file in self._layout.sizes:
            descriptor = os.open(self.folder / file, os.O_RDWR | os.O_CREAT, 0o644)
            self._files[file] = descriptor
        self.done = self._read_journal()
        if not self.done:
            self._clear()
            free = shutil.disk_usage(self.folder).free
            if free < self._layout.total:
                raise _full(self._layout.total, self.folder, free)
        for file, size in self._layout.sizes.items():
            os.ftruncate(self._files[file], size)
            _write_all(self._files[file], memoryview(self._layout.heads[file]), 0)
        # Only what was found whole stands in the journal that is gone on with.
        lines = [json.dumps(line) for line in ({"key": self._key}, *self.done.values())]
        write_text(self.folder / JOURNAL, "".join(f"{line}\n" for line in lines))

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != ".lock" and path.name not in self._files:
                path.unlink() if path.is_file() else shutil.rmtree(path)

    def _read_journal(self) -> dict[str, dict[str, Any]]:
        """Tensors that are on disk and whole; none if the journal is of another merge."""
        path = self.folder / JOURNAL
        if not path.is_file() or not self._key:
            return {}
        lines = path.read_bytes().splitlines()
        head, *entries = [entry for line in lines if (entry := _entry(line)) is not None] or [{}]
        if head.get("key") != self._key:
            if "key" not in head:
                _log.warning("'%s' is damaged: the merge starts anew", path)
            return {}
        known = {e["tensor"]: e for e in entries if e.get("tensor") in self._layout.places}
        whole = {name: entry for name, entry in known.items() if self._is_whole(name, entry)}
        # The last line may be half written; others are whole unless something damaged them.
        lost = len(known) - len(whole) + sum(_entry(line) is None for line in lines[:-1])
        if lost:
            _log.warning("%d tensors in '%s' are damaged and merged again", lost, self.folder)
        return whole

    def _is_whole(self, tensor: str, entry: Mapping[str, Any]) -> bool:
        """Whether the bytes of a tensor are those that its entry was written for."""
        place, checksum, at = self._layout.places[tensor], 0, 0
        while at < place.length:
            data = os.pread(self._files[place.file], min(_CHUNK, place.length - at),
                            place.start + at)  # fmt: skip
            if not data:
                return False
            checksum, at = _word_sum(data, at, checksum), at + len(data)
        return entry.get("word_sum") == checksum

    def write(self, tensor: str, data: memoryview, start: int = 0) -> None:
        """Write a tensor, or its rows one part after another, to its place."""
        place = self._layout.places[tensor]
        end, checksum = self._sums.get(tensor, (0, 0)) if start else (0, 0)
        assert start == end, "parts come in order"
        self._sums[tensor] = end + len(data), _word_sum(data, end, checksum)
        _write_all(self._files[place.file], data, place.start + start)
        self._unsynced += len(data)

    def finish(self, tensor: str, **facts: Any) -> None:
        """Enter a tensor in the journal, with its checksum, once its bytes are on disk."""
        _, checksum = self._sums.pop(tensor, (0, 0))
        entry = {"tensor": tensor, "word_sum": checksum, **facts}
        self.done[tensor] = entry
        self._waiting.append(entry)
        if self._unsynced >= SYNC_BYTES:
            self._sync_behind()

    def _sync_behind(self) -> None:
        """Force to disk what was written, in one thread: at most twice `SYNC_BYTES` wait."""
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

    def _keep(self) -> None:
        """Enter what was finished, if the system still lets us: it is only saved time."""
        if not self.done:
            self._remove()
        with contextlib.suppress(OSError, MemoryError):
            self._flush()

    def _remove(self) -> None:
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)

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


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of the journal; None if it is not whole, as the last of a run that was killed."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _word_sum(data: bytes | memoryview, start: int, total: int) -> int:
    """Sum modulo 2^64 of words: tells damage as surely as a CRC, in a tenth of the time."""
    lead = min(-start % 8, len(data))
    tail = lead + (len(data) - lead) // 8 * 8
    words = np.frombuffer(data[lead:tail], "<u8").sum(dtype=np.uint64)
    ends = int.from_bytes(data[:lead], "little") << 8 * (start % 8)
    return (total + int(words) + ends + int.from_bytes(data[tail:], "little")) % (1 << 64)


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
