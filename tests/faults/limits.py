"""Machines that give less than asked: memory, files, sizes, rights, a home."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.faults.cases import Case
from tests.faults.forked import Ended, run
from tests.faults.kills import last_words, leftovers
from tests.faults.stage import VERBS, Stage, difference

#: A user that no file of the machine names, as in containers.
NOBODY = 54321
LIMITED = ("compare", "merge", "pretrain", "study")
WAYS = ("memory", "file size", "open files", "unknown user", "no home", "cache is a file",
        "output is a file", "output below a file")  # fmt: skip


def limit_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Run a long verb under a limit, and again without it."""
    name, way = str(rng.choice(LIMITED)), str(rng.choice(WAYS))
    verb, clean = VERBS[name], stage.clean(name)
    folder, cache = stage.place()
    limits: dict[int, int] = {}
    variables: dict[str, str | None] = {}
    out, user, what = folder / "out", None, f"{name}: {way}"
    if way == "memory":
        limits[resource.RLIMIT_AS] = int(rng.integers(2, 120)) << 20
        what += f" +{limits[resource.RLIMIT_AS] >> 20} MB"
    elif way == "file size":
        limits[resource.RLIMIT_FSIZE] = int(10 ** rng.uniform(2, 5))
        what += f" {limits[resource.RLIMIT_FSIZE]} bytes"
    elif way == "open files":
        limits[resource.RLIMIT_NOFILE] = int(rng.integers(8, 40))
        what += f" {limits[resource.RLIMIT_NOFILE]}"
    elif way == "unknown user":
        user = NOBODY
    elif way == "no home":
        variables = {"HOME": None, "XDG_CACHE_HOME": None, "REPSIM_CACHE": None, "USER": None}
        variables["XDG_CACHE_HOME"] = str(cache)  # not into the home of who runs the campaign
    elif way == "cache is a file":
        cache.write_text("not a folder")
    elif way == "output is a file":
        out.write_text("not a folder")
    else:
        (folder / "file").write_text("not a folder")
        out.symlink_to(folder / "file" / "out")
    if user is not None and os.geteuid() != 0:
        return Case("limits", number, what, "named", "only root can become another user")
    ended = run(verb.arguments, folder, cache=cache, limits=limits, variables=variables,
                settings=verb.settings, user=user)  # fmt: skip
    verdict, why = _limited(ended, clean.outcome, out, verb.outcome)
    if verdict not in ("survived", "named"):
        return Case("limits", number, what, verdict, why)
    if verdict == "named":
        for path in (cache, out):
            if path.is_file() or path.is_symlink():
                path.unlink()
        again = run(verb.arguments, folder, cache=cache, settings=verb.settings)
        if again.code != 0:
            return Case("limits", number, what, "lost", f"{why}; then {last_words(again.said)}")
        if differs := difference(clean.outcome, verb.outcome(out)):
            return Case("limits", number, what, "silent", f"afterwards differs: {differs}")
    if left := leftovers(folder, cache):
        return Case("limits", number, what, "untidy", left)
    stage.drop(folder)
    return Case("limits", number, what, verdict, why)


def _limited(
    ended: Ended, expected: Mapping[str, str], out: Path, outcome: object
) -> tuple[str, str]:
    if ended.traceback:
        return "traceback", ended.traceback
    if ended.code != 0:
        return "named", last_words(ended.said)
    differs = difference(expected, outcome(out))  # type: ignore[operator]
    return ("silent", f"differs: {differs}") if differs else ("survived", "")
