"""Every verb once, with the network not asked for: no socket may be opened."""

from __future__ import annotations

import shutil

import numpy as np

from repsim.cli.main import COMMANDS
from tests.faults.cases import Case
from tests.faults.forked import run
from tests.faults.kills import last_words
from tests.faults.stage import Stage

_SMALL = ("--corpus", "corpus", "-l", "eng_Latn", "--max-bytes", "500")
#: Verb -> a call of it, below the inputs of the stage and what its long verbs gave.
CALLS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", "a", "b", "--corpus", "pairs.tsv", "-m", "cka", "--permutations", "0"),
    "plot": ("plot", "compared", "--kind", "layers", "--format", "svg"),
    "check": ("check", "a", "b"),
    "lineage": ("lineage", "a", "b", "--base", "c"),
    "merge": ("merge", "a", "b", "out"),
    "methods": ("methods",),
    "extract-lora": ("extract-lora", "a", "out", "--base", "c", "--rank", "1"),
    "evaluate": ("evaluate", "trained/mixed", "trained/fork", *_SMALL),
    "diagnose": ("diagnose", "merged", "a", "b", "--base", "c", "--text", "corpus", "-l",
                 "eng_Latn", "--max-bytes", "500", "--no-forecast"),
    "barrier": ("barrier", "trained/mixed", "trained/fork", "--points", "3", *_SMALL),
    "predict": ("predict", "a", "b", "--corpus", "pairs.tsv", "-l", "eng_Latn", "--limit", "20"),
    "predictor": ("predictor", "show"),
    "study": ("study", "status", "studied"),
    "pretrain": ("pretrain", "family.yaml", "--dry-run"),
    "finetune": ("finetune", "trained/mixed", "-o", "out", "--corpus", "corpus", "-l", "eng_Latn",
                 "--tokens", "300", "--context", "16", "--evaluation-bytes", "300"),
    "zoo": ("zoo",),
    "measures": ("measures",),
    "models": ("models", "--check", "a"),
    "corpora": ("corpora", "pairs.tsv"),
    "doctor": ("doctor",),
}  # fmt: skip
#: Where results of long verbs are put.
_RESULTS = {"compared": "compare", "merged": "merge", "trained": "pretrain", "studied": "study"}


def verb_case(stage: Stage, number: int, rng: np.random.Generator) -> Case:
    """Run the verb of this number; even a model that is not here does not call for the network."""
    names = list(COMMANDS)
    name = names[number % len(names)]
    if name not in CALLS:
        return Case("verbs", number, name, "lost", "tests/faults/verbs.py has no call of it")
    arguments = CALLS[name]
    folder, cache = stage.place()
    for place, made_by in _RESULTS.items():
        if any(word.partition("/")[0] == place for word in arguments):
            shutil.copytree(stage.clean(made_by).folder / "out", folder / place)
    online: dict[str, str | None] = {"HF_HUB_OFFLINE": None, "TRANSFORMERS_OFFLINE": None}
    for words in (arguments, [_elsewhere(word) for word in arguments]):
        ended = run(words, folder, cache=cache, variables=online)
        if ended.traceback:
            return Case("verbs", number, " ".join(words), "traceback", ended.traceback)
        if words is arguments and ended.code != 0:
            return Case("verbs", number, " ".join(words), "lost", last_words(ended.said))
    if name == "compare":  # the watch must see what is allowed
        allowed = [*map(_elsewhere, arguments), "--allow-network"]
        if not run(allowed, folder, cache=cache, variables=online).sockets:
            return Case("verbs", number, " ".join(allowed), "lost", "no socket was seen")
    stage.drop(folder)
    return Case("verbs", number, " ".join(arguments), "survived")


def _elsewhere(word: str) -> str:
    """A model or corpus of a hub in the place of one that is here."""
    return {"a": "somebody/model", "pairs.tsv": "hub:somebody/corpus"}.get(word, word)
