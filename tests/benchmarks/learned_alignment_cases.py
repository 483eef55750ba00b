"""Pairs of models that `learned_alignment.py` merges, and the ways to merge each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.files import read_json
from repsim.models.zoo import zoo_folder
from repsim.pretraining import load_config
from repsim.pretraining.config import FamilyConfig, from_mapping

Pair = tuple[str, str]
ONE, SHARED, CROSSED = (
    "one language, two seeds", "two languages, one initialisation",
    "two languages, two initialisations",
)  # fmt: skip
#: Case -> pairs. Names with a seed up to 2 ship in the zoo; the others are trained first.
CASES: dict[str, list[Pair]] = {
    ONE: [("eng-1", "eng-2"), ("deu-1", "deu-2"), ("eng-2", "eng-3")],
    SHARED: [("eng-1", "deu-1"), ("eng-2", "deu-2"), ("eng-3", "deu-3")],
    CROSSED: [("eng-1", "deu-2"), ("eng-2", "deu-3"), ("eng-3", "deu-1")],
    "fork at 30 %": [("eng-f30", "deu-f30")],
    "fork at 85 %": [("eng-fork", "deu-fork")],
    "permuted twin": [("eng-1", "eng-1.permuted")],
    "rotated twin": [("eng-1", "eng-1.rotated")],
}
#: What twins of a model are moved by.
TWINS = {
    "permuted": ["residual_permutation", "mlp_units", "kv_groups"],
    "rotated": ["residual_rotation", "mlp_units", "kv_groups"],
}
BATCH = 2
FIGURES = Path(__file__).resolve().parents[2] / "figures" / "learned_alignment"
Find = Callable[[str], Path]


@dataclasses.dataclass(frozen=True)
class Home:
    """Where models of one tokenizer lie, and the text that they were trained on.

    `find` tells the folder of a model by its name, `languages` codes by their first letters.
    """

    find: Find
    corpus: str
    languages: Mapping[str, str]


def zoo_home(trained: Path) -> Home:
    """Models of the zoo, and those that were trained for this."""

    def find(name: str) -> Path:
        return trained / name if (trained / name).exists() else zoo_folder(f"zoo:{name}")

    return Home(find, "bible", {"eng": "eng_Latn", "deu": "deu_Latn"})


def family() -> FamilyConfig:
    """The zoo's family with what it lacks."""
    config = load_config("zoo").to_dict()
    runs = [run for run in config["runs"] if run["name"] == "mixed"]
    for code in ("eng_Latn", "deu_Latn"):
        runs += [
            {"name": f"{code[:3]}-3", "languages": [code], "init_seed": 3, "data_seed": 3},
            {"name": f"{code[:3]}-f30", "languages": [code], "fork": {"from": "mixed", "at": 0.3}},
        ]
    return from_mapping(config | {"name": "learned-alignment", "runs": runs})


def study_home(folder: Path) -> tuple[Home, dict[str, list[Pair]]]:
    """Models of a study (`repsim study run`), named "FOLDER:MODEL", and its cases.

    Those are pairs of monolingual models of different languages: finished forks of one trunk, of
    one initialisation, of two. A case says what sets the study apart from the zoo.
    """
    models = folder / "models" / "main"
    config = read_json(models / "family.json")["config"]
    languages = {code[:3]: code for code in config["corpus"]["languages"]}
    home = Home(lambda name: models / name.partition(":")[2], config["corpus"]["source"], languages)
    runs = [r for r in config["runs"] if len(r["languages"]) == 1 and not r["tokens"]]
    cases: dict[str, list[Pair]] = {}
    for one, other in itertools.combinations(runs, 2):
        kind = _kind(one, other)
        if kind and all((models / r["name"] / "model.safetensors").exists() for r in (one, other)):
            pair = (f"{folder.name}:{one['name']}", f"{folder.name}:{other['name']}")
            cases.setdefault(f"{kind} ({_apart(config)})", []).append(pair)
    return home, cases


def _kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What two monolingual runs of a study share; nothing if that is no case."""
    if one["languages"] == other["languages"] or bool(one["fork"]) != bool(other["fork"]):
        return ""
    if one["fork"]:
        same = one["fork"] == other["fork"]
        return f"fork at {100 * one['fork']['at']:.0f} %" if same else ""
    return SHARED if one["init_seed"] == other["init_seed"] else CROSSED


def _apart(config: Mapping[str, Any]) -> str:
    """What sets the models of a study apart from those of the zoo."""
    shape, codes = config["architecture"], config["corpus"]["languages"]
    if shape["family"] == "gpt2":
        return "GPT-2"
    if shape["hidden"] > 128:
        wide = shape["hidden"]
        numbers = wide * (config["tokenizer"]["vocab_size"] + 12 * wide * shape["layers"])
        return f"{numbers / 1e6:.0f}M parameters"
    return "other alphabets" if len({code[4:] for code in codes}) > 1 else "other languages"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to make one model of a pair.

    `start` is the mean of the pair by an alignment ("none", "permutation", "orthogonal",
    "learned"), a "parent", or "scratch"; then all weights may be trained on `tuned` tokens.
    """

    start: str
    tokens: int = 0
    tuned: int = 0
    text: str = "both"
    path: str = "midpoint"
    begin: str = "auto"
    maps: str = "all maps"
    batch: int = BATCH
    rows: str = "equal"

    @property
    def budget(self) -> int:
        """Tokens whose counts weigh the rows of tokens, where they are "counted"."""
        return max(self.tokens, self.tuned)

    @property
    def name(self) -> str:
        """How its units and rows are called, without the number of tokens."""
        plain = ("both", "midpoint", "auto", "all maps", f"{BATCH} windows", "equal")
        every = (self.text, self.path, self.begin, self.maps, f"{self.batch} windows", self.rows)
        marks = [mark for mark in every if mark not in plain]
        return self.start + ("+tuned" if self.tuned else "") + "".join(f", {m}" for m in marks)


def key_of(pair: Pair, how: Variant) -> str:
    """Name of the files of a unit."""
    name = how.name.replace(", ", ".").replace(" ", "-")
    models = f"{pair[0]}+{pair[1].rpartition(':')[2]}".replace(":", ".")
    return f"{models}.{name}.{how.tokens}.{how.tuned}".replace("+", "_")


def tuned(start: str, *budgets: int, **more: Any) -> list[Variant]:
    """All weights trained, from some start."""
    return [Variant(start, tuned=tokens, **more) for tokens in budgets]


def learned(*budgets: int, **more: Any) -> list[Variant]:
    """Learned maps."""
    return [Variant("learned", tokens, **more) for tokens in budgets]


def after(tokens: int) -> list[Variant]:
    """Learned maps, then all weights on a tenth of their tokens."""
    return [Variant("learned", tokens, tuned=tokens // 10)]


#: Variants, cases and number of pairs of each, the most important first.
Waves = list[tuple[list[Variant], Sequence[str], int]]
CLOSED = [Variant(name) for name in ("none", "permutation", "orthogonal")]
COUNTED = {"rows": "counted"}
COARSE = {"batch": 8}
DISTINCT, TWO = (ONE, SHARED, CROSSED), (SHARED, CROSSED)
FORKS = ("fork at 30 %", "fork at 60 %", "fork at 85 %")
BY_COUNTS = [Variant(name, 100_000, **COUNTED) for name in ("none", "orthogonal")]
ONE_SIDED = [*learned(30_000, text="first language"), *tuned("parent", 30_000)]
ODD = [*learned(30_000, path="random"), *learned(30_000, text="unrelated"),
       *tuned("scratch", 30_000)]  # fmt: skip
WAVES: Waves = [
    (CLOSED, tuple(CASES), 3),
    (BY_COUNTS, (*DISTINCT, *FORKS), 3),
    (learned(30_000, 100_000, **COUNTED), (*TWO, *FORKS), 3),
    (tuned("none", 30_000, 100_000, **COUNTED), (*TWO, *FORKS), 3),
    (learned(30_000, 100_000), (*DISTINCT, *FORKS), 3),
    (tuned("none", 30_000, 100_000), (*DISTINCT, *FORKS), 3),
    (learned(3_000_000, **COUNTED), TWO, 3),
    (learned(1_000_000, **COUNTED), TWO, 3),
    (learned(300_000, **COUNTED), TWO, 3),
    (tuned("none", 300_000, 1_000_000, **COUNTED), TWO, 1),
    (after(100_000), DISTINCT, 3),
    (tuned("orthogonal", 30_000), DISTINCT, 1),
    (ONE_SIDED, TWO, 1),
    (learned(300_000), TWO, 3),
    (tuned("none", 300_000), TWO, 3),
    (after(300_000), TWO, 1),
    (ODD, TWO, 1),
    (learned(30_000, **COARSE), DISTINCT, 3),
    (tuned("none", 30_000, **COARSE), DISTINCT, 3),
    (learned(100_000, **COARSE), DISTINCT, 1),
    (learned(100_000, begin="orthogonal", **COARSE), TWO, 1),
    (learned(30_000, maps="rotation alone", **COARSE), TWO, 1),
    (learned(30_000, maps="blocks alone", **COARSE), TWO, 1),
    (learned(100_000, text="first language", **COARSE), TWO, 1),
    (tuned("none", 100_000, **COARSE), DISTINCT, 1),
]
#: Of the models of studies: the ways that matter most, on cases and budgets that cost minutes.
STUDY_CASES = (*TWO, "fork at 30 %", "fork at 60 %")
STUDY_WAVES: Waves = [
    ([CLOSED[0], BY_COUNTS[0]], STUDY_CASES, 3),
    (learned(100_000, **COUNTED), STUDY_CASES, 3),
    (tuned("none", 100_000, **COUNTED), STUDY_CASES, 3),
    (learned(30_000, **COUNTED), STUDY_CASES, 3),
    (tuned("none", 30_000, **COUNTED), STUDY_CASES, 3),
    (learned(30_000, 100_000), STUDY_CASES, 3),
    (tuned("none", 100_000), STUDY_CASES, 3),
]


def units(studies: Sequence[Mapping[str, list[Pair]]]) -> Iterator[tuple[str, Pair, Variant]]:
    """Every unit, pairs in turn within a wave: those of studies, then those of the zoo."""
    every = [(cases, STUDY_WAVES) for cases in studies] or [(CASES, WAVES)]
    for cases, waves in every:
        for variants, kinds, most in waves:
            for number, how, case in itertools.product(range(most), variants, cases):
                if case.partition(" (")[0] in kinds and number < len(cases[case]):
                    yield case, cases[case][number], how
