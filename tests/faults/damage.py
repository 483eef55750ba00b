"""Damage to any file of any run: the next run makes it anew, or says which file and mends it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.faults.cases import Case
from tests.faults.forked import Kill, run
from tests.faults.kills import last_words, leftovers
from tests.faults.stage import VERBS, Stage, difference

WAYS = ("truncate", "flip", "zero", "empty", "delete", "swap", "garbage")
DAMAGED = ("compare", "merge", "pretrain", "study")
#: Of a finished run nothing reads these again: they are pictures of what is checked elsewhere.
UNREAD = (".png", ".svg", ".html", ".log", ".md", ".csv", ".tex")


def damage_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Damage one or two files of a run that is finished or was killed, and run it again."""
    name = str(rng.choice(DAMAGED))
    verb, clean = VERBS[name], stage.clean(name)
    finished = name != "merge" and rng.random() < 0.6  # a finished merge is not run again
    if finished:
        folder, cache = stage.again(name)
        what = f"{name}, finished"
    else:
        folder, cache = stage.place()
        kill = Kill(change=int(rng.integers(clean.ended.changes // 4, clean.ended.changes)))
        run(verb.arguments, folder, cache=cache, kill=kill, settings=verb.settings)
        what = f"{name}, killed at change {kill.change}"
    files = _files(folder, cache)
    damaged = []
    for _ in range(int(rng.integers(1, 3))):
        path = files[int(rng.integers(len(files)))]
        way = str(rng.choice(WAYS))
        what += f"; {way} {path.relative_to(folder.parent)}"
        damage(path, way, rng, files)
        damaged.append(path.name)
    case = _judged(stage, name, folder, cache, damaged)
    return Case("damage", number, what, *case)


def _judged(
    stage: Stage, name: str, folder: Path, cache: Path, damaged: list[str]
) -> tuple[str, str]:
    verb, clean = VERBS[name], stage.clean(name)
    out, arguments, verdict = folder / "out", verb.arguments, "survived"
    ended = run(arguments, folder, cache=cache, settings=verb.settings)
    if ended.traceback:
        return "traceback", ended.traceback
    if ended.code != 0 and name == "merge" and "exists" in ended.said:
        ended = run((*arguments, "--force"), folder, cache=cache, settings=verb.settings)
    said = last_words(ended.said)
    if ended.code != 0:
        if verb.anew is None:
            return "lost", said
        again = run((*arguments, verb.anew), folder, cache=cache, settings=verb.settings)
        if again.code != 0:
            return "lost", f"{said}; with {verb.anew}: {last_words(again.said)}"
        verdict = "named"
    if differs := difference(clean.outcome, verb.outcome(out)):
        if any(f"{file}' was damaged" in ended.said for file in damaged):
            return "named", f"it says so; differs: {differs}"
        return "silent", f"differs: {differs}"
    if left := leftovers(folder, cache):
        return "untidy", left
    stage.drop(folder)
    return verdict, said if verdict == "named" else ""


def _files(folder: Path, cache: Path) -> list[Path]:
    """Files of the run and of its cache that a later run may read."""
    found = [
        path
        for root in (*folder.glob(".out.*"), folder / "out", cache)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix not in UNREAD
        and path.name != ".lock"
    ]  # fmt: skip
    return sorted(found)


def damage(path: Path, way: str, rng: np.random.Generator, others: list[Path]) -> None:
    """Damage a file as disks, copies and people do."""
    if not path.exists():
        return
    data = bytearray(path.read_bytes())
    at = int(rng.integers(len(data))) if data else 0
    if way == "delete":
        path.unlink()
        return
    if way == "swap":
        like = [p for p in others if p.suffix == path.suffix and p != path and p.exists()]
        if like:
            shutil.copyfile(like[int(rng.integers(len(like)))], path)
        return
    if way == "truncate":
        data = data[:at]
    elif way == "flip" and data:
        data[at] ^= 1 << int(rng.integers(8))
    elif way == "zero":
        data[at:] = bytes(len(data) - at)
    elif way == "empty":
        data = bytearray()
    elif way == "garbage":
        data = bytearray(rng.bytes(max(16, len(data) // 2)))
    path.write_bytes(data)
