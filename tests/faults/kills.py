"""SIGKILL at any moment of any long verb: the same command again must give the clean result."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.faults.cases import Case
from tests.faults.forked import Kill, run
from tests.faults.stage import VERBS, Stage, Verb, difference

#: How often each verb is drawn. Fresh worker processes cost seconds.
WEIGHTS = {"compare": 5, "merge": 5, "pretrain": 5, "study": 4, "study, processes": 1}
#: Runs of one folder that are killed one after another.
MOST_KILLS = 2


def kill_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Kill a verb once or more, run it to its end, and compare with an undisturbed run."""
    names = list(WEIGHTS)
    shares = np.array([WEIGHTS[name] for name in names], dtype=float)
    name = str(rng.choice(names, p=shares / shares.sum()))
    verb, clean = VERBS[name], stage.clean(name)
    kills = [_drawn(name, clean.ended.seconds, clean.ended.changes, rng)
             for _ in range(int(rng.integers(1, MOST_KILLS + 1)))]  # fmt: skip
    what = f"{name}: " + ", then ".join(map(str, kills))
    folder, cache = stage.place()
    out = folder / "out"
    stored: dict[Path, tuple[int, int]] = {}
    for kill in kills:
        ended = run(verb.arguments, folder, cache=cache, kill=kill, settings=verb.settings)
        if ended.code == 0:
            break
        if ended.code not in (-9, 1, 5) or (ended.code != -9 and kill.whom == "driver"):
            return Case("kills", number, what, "traceback", last_words(ended.said))
        if redone := _redone(stored):
            return Case("kills", number, what, "lost", f"{redone} was made again")
        stored = _stored(verb, out)
    arguments = verb.arguments
    if ended.code == 0 and verb.name == "merge":
        arguments = (*arguments, "--force")  # it was through before the kill came
    ended = run(arguments, folder, cache=cache, settings=verb.settings)
    if ended.traceback:
        return Case("kills", number, what, "traceback", ended.traceback)
    if ended.code != 0:
        exists = "exists" in ended.said and verb.name == "merge"
        if not exists or difference(clean.outcome, verb.outcome(out)):
            return Case("kills", number, what, "lost", last_words(ended.said))
    if differs := difference(clean.outcome, verb.outcome(out)):
        return Case("kills", number, what, "silent", f"differs: {differs}")
    if redone := _redone(stored):
        return Case("kills", number, what, "lost", f"{redone} was made again")
    if left := leftovers(folder, cache):
        return Case("kills", number, what, "untidy", left)
    stage.drop(folder)
    return Case("kills", number, what, "survived", faults=len(kills))


def _drawn(name: str, seconds: float, changes: int, rng: np.random.Generator) -> Kill:
    if name == "study, processes":
        whom = str(rng.choice(["driver", "worker"]))
        return Kill(seconds=float(rng.uniform(0, seconds)), whom=whom)
    if rng.random() < 0.5:
        return Kill(seconds=float(rng.uniform(0, seconds)))
    return Kill(change=int(rng.integers(1, changes + 1)))


def _stored(verb: Verb, out: Path) -> dict[Path, tuple[int, int]]:
    """Parts that are whole, with what tells whether they are written again."""
    found = {}
    for pattern in verb.kept:
        for path in out.glob(pattern):
            if not path.name.startswith("."):
                about = path.stat()
                found[path] = (about.st_ino, about.st_mtime_ns)
    return found


def _redone(stored: dict[Path, tuple[int, int]]) -> str:
    for path, known in stored.items():
        if not path.exists():
            return f"{path.name} (gone)"
        if (path.stat().st_ino, path.stat().st_mtime_ns) != known:
            return path.name
    return ""


def leftovers(folder: Path, cache: Path) -> str:
    """Files of dead runs; locks are meant to stay."""
    names = [
        str(path.relative_to(folder.parent))
        for root in (folder, cache)
        for path in root.rglob("*")
        if path.name.endswith((".tmp", ".merging", ".replaced", ".new", ".old"))
    ]
    return ", ".join(sorted(names)[:3])


def last_words(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it says nothing"])[-1]
