"""Two processes at one folder: both end well, or one says that the other is at work."""

from __future__ import annotations

import time

import numpy as np

from tests.faults.cases import Case
from tests.faults.forked import start
from tests.faults.kills import last_words, leftovers
from tests.faults.stage import VERBS, Stage, difference

NAMES = ("compare", "merge", "pretrain", "study")
#: What the one that comes second may say.
BUSY = ("another process", "exists")


def together_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Start a verb twice, the second a little later."""
    name, late = str(rng.choice(NAMES)), float(rng.uniform(0, 1))
    verb, clean = VERBS[name], stage.clean(name)
    folder, cache = stage.place()
    what = f"{name} twice, {late:.2f} of its time apart"
    first = start(verb.arguments, folder, cache=cache, settings=verb.settings, name="first")
    time.sleep(late * clean.ended.seconds)
    second = start(verb.arguments, folder, cache=cache, settings=verb.settings, name="second")
    ended = [second.end(), first.end()]
    for one in ended:
        if one.traceback:
            return Case("together", number, what, "traceback", one.traceback)
    refused = [one for one in ended if one.code != 0]
    if len(refused) == 2 or any(not any(word in one.said for word in BUSY) for one in refused):
        said = "; ".join(last_words(one.said) for one in refused)
        return Case("together", number, what, "lost", said)
    if differs := difference(clean.outcome, verb.outcome(folder / "out")):
        return Case("together", number, what, "silent", f"differs: {differs}")
    if left := leftovers(folder, cache):
        return Case("together", number, what, "untidy", left)
    stage.drop(folder)
    verdict = "named" if refused else "survived"
    return Case("together", number, what, verdict, last_words(refused[0].said) if refused else "")
