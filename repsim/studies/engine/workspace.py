"""What a unit sees of the world: local folders, the store of folders, its log."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, UsageError
from repsim.core.files import read_json, write_json
from repsim.core.provenance import now
from repsim.studies.engine.published import damaged, flat, note_published
from repsim.studies.engine.store import Store


class Workspace:
    """Local folders of a unit, and the way to those of others."""

    def __init__(self, root: str | Path, store: Store, key: str) -> None:
        self.root = Path(root).resolve()
        self.store = store
        self.key = key
        self.steps: dict[str, float] = {}
        self.published: list[str] = []
        self._log = UnitLog(store, key)

    @property
    def shared(self) -> bool:
        """Whether the store is this folder."""
        return self.store.local == self.root

    def folder(self, name: str) -> Path:
        """A local folder to work in; created if missing, and left as it is if it is there."""
        self._refuse_foreign(name)
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, local: Path, name: str) -> None:
        """Hand over a finished folder under a name that others ask for."""
        self._refuse_foreign(name)
        if not self.shared:
            self.store.put_folder(local, name)
            self._note_local(name, self.key)
        note_published(self.store, name, self.key, local)
        self.published.append(name)

    def fetch(self, name: str) -> Path:
        """Local path of a published folder; copied here once."""
        owner = self._owner(name)
        if owner is None:
            raise InputError(
                f"'{name}' was not published to '{self.store.url}'", hint="run the study again"
            )
        path = self.root / name
        if self.shared:
            return path
        if not path.is_dir() or self._local_owner(name) != owner or damaged(self.store, name, path):
            self._copy(name, path)
            self._note_local(name, owner)
        return path

    def took(self, step: str, seconds: float) -> None:
        """Note the seconds of a step: beside the result, which is the same wherever it is made."""
        self.steps[step] = seconds

    def log(self, text: str) -> None:
        """Write a line to the log of the unit."""
        self._log.line(text)

    def logging(self) -> contextlib.AbstractContextManager[None]:
        """While it holds, what libraries print or log goes to the log of the unit."""
        return self._log.capturing()

    def flush(self) -> None:
        """Bring the log to the store."""
        self._log.flush()

    def _copy(self, name: str, path: Path) -> None:
        """Bring a folder here aside, then put it in the place of what an earlier try left."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex[:8]
        aside, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("new", "old"))
        try:
            self.store.get_folder(name, aside)
            if path.exists():
                path.rename(old)
            try:
                aside.rename(path)
            except OSError:
                if not path.is_dir():  # else another process of this machine was faster
                    raise
        finally:
            for left in (aside, old):
                shutil.rmtree(left, ignore_errors=True)

    def _owner(self, name: str) -> str | None:
        found = self.store.noted("folders", flat(name))
        return str(found["unit"]) if found else None

    def _note_local(self, name: str, owner: str) -> None:
        write_json(self._local_record(name), {"unit": owner})

    def _local_owner(self, name: str) -> Any:
        record = self._local_record(name)
        try:
            known = read_json(record) if record.exists() else None
        except InputError:  # damaged: the folder is copied again
            return None
        return known.get("unit") if isinstance(known, dict) else None

    def _local_record(self, name: str) -> Path:
        return self.root / ".fetched" / f"{flat(name)}.json"

    def _refuse_foreign(self, name: str) -> None:
        owner = self._owner(name)
        if owner not in (None, self.key):
            raise UsageError(
                f"'{name}' in '{self.store.url}' was made by another study",
                hint="run this study in a folder of its own, or rename it",
            )


class UnitLog(logging.Handler):
    """The log of one unit: a file that grows in a folder; sent now and then to other stores."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(message)s"))
        self._store = store
        self._name = f"logs/{key}.log"
        self._text = ""
        self._sent = 0
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """Write one line, with the time."""
        self.write(f"{now()}  {text}\n")

    def write(self, text: str) -> int:
        """Write text as it is; what makes this a stream."""
        with self._lock:
            if self._store.local is not None:
                path = Path(self._store.place(self._name))
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as handle:
                    handle.write(text)
            else:
                self._text += text
        return len(text)

    def flush(self) -> None:
        """Bring what was not yet sent to the store."""
        with self._lock:
            text, behind = self._text, self._sent < len(self._text)
            self._sent = len(text)
        if behind:
            self._store.write(self._name, text.encode())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record of `logging`."""
        self.line(self.format(record))

    def isatty(self) -> bool:
        """No terminal: no progress bars."""
        return False

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Send records of this package, and what is printed, to the log."""
        logger = logging.getLogger("repsim")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        stream: Any = self
        try:
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
            self.flush()
