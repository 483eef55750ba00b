"""Who works on what: so that two runs on one store do not do the same unit at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from repsim.core.aside import runs, temporary
from repsim.studies.engine.store import Store

#: Seconds between renewals, and the age at which a claim counts as left behind.
RENEW, STALE = 20.0, 90.0


def alive(claim: dict[str, Any] | None) -> bool:
    """Whether the owner of a claim still works, as far as can be told."""
    if claim is None or time.time() - claim["beat"] > STALE:
        return False
    return claim["host"] != platform.node() or runs(int(claim["pid"]))


@contextlib.contextmanager
def claimed(
    store: Store, key: str, owner: str, also: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold the claim on a unit while the block runs."""
    known = store.noted("claims", key)
    if known is not None and known["owner"] != owner and alive(known):
        yield False
        return
    if known is not None:
        store.forget("claims", key)
    mine = {"owner": owner, "host": platform.node(), "pid": os.getpid(), "since": time.time()}
    if not _created(store, key, mine):
        yield False
        return
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW):
            store.note("claims", key, {**mine, "beat": time.time()})
            if also is not None:
                also()

    thread = threading.Thread(target=renew, daemon=True, name=f"claim {key[:8]}")
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        store.forget("claims", key)


def _created(store: Store, key: str, mine: dict[str, Any]) -> bool:
    """Create the file unless somebody was faster."""
    document = {**mine, "beat": time.time()}
    if store.local is None:
        store.note("claims", key, document)
        found = store.noted("claims", key)
        return found is not None and found["owner"] == mine["owner"]
    place = store.local / "claims" / f"{key}.json"
    aside = temporary(place)
    aside.write_text(json.dumps(document), encoding="utf-8")
    try:
        os.link(aside, place)  # fails if it exists, and is never half written
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True
