"""Files in the making: written aside and renamed, swept when their writer is dead, locked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from repsim.core.errors import InputError, UsageError

#: Seconds after which a temporary file of another machine counts as left behind.
ABANDONED = 86_400.0
#: Most characters of the target in the name of its temporary file: names may have 255 bytes.
_KEPT = 60
_PATTERN = re.compile(r"^\..*\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.tmp$", re.DOTALL)


def _here() -> str:
    """This machine, in six characters."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, renamed into place when the block ends without error."""
    target = Path(path)
    aside = temporary(target)
    try:
        yield aside
        if aside.is_file():
            with aside.open("rb") as handle:
                os.fsync(handle.fileno())
        aside.replace(target)
    finally:
        if aside.is_file():
            aside.unlink(missing_ok=True)
        elif aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)


def temporary(path: str | os.PathLike[str]) -> Path:
    """A name beside `path` for what is in the making, that `sweep` knows; its folder is made."""
    target = Path(path)
    make_folder(target.parent)
    mark = f"{_here()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f".{target.name[:_KEPT]}.{mark}.tmp")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and those above it, if they are not there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"'{folder}' cannot be a folder: a file is in the way", hint="choose another folder"
        ) from None
    return folder


def sweep(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what dead processes left aside, here at once and of other machines after a day."""
    removed = []
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            if (found := _PATTERN.match(name)) and _abandoned(path, found[1], int(found[2])):
                with contextlib.suppress(OSError):  # not ours to remove, or gone meanwhile
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed.append(path)
        folders[:] = [name for name in folders if not _PATTERN.match(name)]
    return removed


@functools.cache
def sweep_once(folder: Path) -> None:
    """As `sweep`, the first time that this process writes into a folder."""
    sweep(folder)


def _abandoned(path: Path, machine: str, pid: int) -> bool:
    if machine == _here():
        return not runs(pid)
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except OSError:
        return False


def runs(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], busy: str, *, wait: bool = False) -> Iterator[None]:
    """Lock a file while the block runs (freed if the process dies; none on some network disks)."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this system
        yield
        return
    make_folder(Path(path).parent)
    with Path(path).open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(busy, hint="wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass
        yield
