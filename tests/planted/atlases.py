"""An atlas with planted retention, for tests and examples of what is drawn and said of atlases.

Retention of the worst language rises with the share of training in common and falls with the number
of parents; independent models collapse, and rotation rescues half of what they lost. No model was
trained for it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repsim.core.atlas import (
    Atlas,
    CostTable,
    FeatureTable,
    MergeTable,
    ModelTable,
    PathTable,
    join_parents,
)

FLOORS = {"eng_Latn": 2.8, "deu_Latn": 2.9, "rus_Cyrl": 2.1, "arb_Arab": 2.2}
#: Bits per byte under the floor: a monolingual model, a mixed one of as many tokens, of twice that.
GAINS = {"monolingual": 0.8, "mixed": 0.4, "mixed-long": 0.5}
FRACTIONS = (0.0, 0.1, 0.3, 0.9)
DOSES = (0.1, 0.5)
METHODS = ("linear", "ties")
MEASURES = (
    "unit_correlation", "identity_match", "permutation", "cka", "procrustes", "svcca", "mutual_knn",
)  # fmt: skip


def planted_atlas(languages: Sequence[str] = tuple(FLOORS), *, features: bool = True) -> Atlas:
    """The atlas."""
    merges, values, paths = [], [], []
    for group in _groups(languages):
        merges += list(_merge_rows(**group))
        paths += list(_path_rows(**group))
        if features:
            values += list(_feature_rows(**group))
    costs = [{"parents": row["parents"], "tier": "T2", "seconds": 0.5} for row in values[:5]]
    info = {
        "study": {"name": "planted", "corpus": "none", "languages": list(languages), "seed": 1,
                  "training": {"tokens": 400_000}},
        "units": 10, "units_done": 9, "environment": {"command": "planted", "versions": {}},
    }  # fmt: skip
    return Atlas(
        ModelTable(_model_rows(languages)), MergeTable(merges), FeatureTable(values),
        CostTable(costs), info, PathTable(paths),
    )  # fmt: skip


def _short(language: str) -> str:
    return language.split("_")[0]


def _model_rows(languages: Sequence[str]) -> Iterator[dict[str, Any]]:
    names = [(lang, f"{_short(lang)}-f{f:g}", "A") for f in FRACTIONS for lang in languages]
    names += [(lang, f"{_short(lang)}-s2", "B") for lang in languages]
    names += [(lang, f"{_short(lang)}-dose{d:g}-lr1", "E") for d in DOSES for lang in languages]
    for language, name, arm in names:
        yield from _scored(f"main/{name}", arm, "monolingual", [language], languages)
    for name in ("mixed", "mixed-long"):
        yield from _scored(f"main/{name}", "A", "mixed", languages, languages)
    for language in languages[:2]:
        for kind in ("permuted", "rotated", "noise"):
            name = f"controls/{_short(language)}-{kind}"
            yield from _scored(name, "G", "control", [language], [language])
    yield from _scored("main/eng-next", "G", "monolingual", ["eng_Latn"], ["eng_Latn"])


def _scored(
    model: str, arm: str, role: str, trained: Sequence[str], languages: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for language in languages:
        gain = GAINS.get(model.rpartition("/")[2], GAINS["monolingual"])
        bits = FLOORS[language] - gain if language in trained else FLOORS[language] + 2.0
        yield {
            "model": model, "arm": arm, "role": role, "trained_on": "+".join(trained),
            "history": "+".join(trained), "tokenizer": "joint", "content": "same",
            "init_seed": 2 if model.endswith("-s2") else 1, "data_seed": 1,
            "tokens": 800_000 if model.endswith("long") else 400_000, "own_tokens": 400_000,
            "learning_rate": 0.004, "parameters": 1_300_000, "language": language,
            "bits_per_byte": bits, "ci_low": bits - 0.05, "ci_high": bits + 0.05,
            "unigram_floor": FLOORS[language],
        }  # fmt: skip


def _groups(languages: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Arguments of `_merge_rows` and `_feature_rows`."""
    for fraction, k in itertools.product(FRACTIONS, (2, 3)):
        for some in itertools.combinations(languages, k):
            parents = [f"main/{_short(lang)}-f{fraction:g}" for lang in some]
            yield _group("A", parents, some, fraction=fraction)
    for a, b in itertools.product(languages, repeat=2):
        parents = [f"main/{_short(a)}-f0", f"main/{_short(b)}-s2"]
        yield _group("B", parents, tuple(dict.fromkeys((a, b))), shared=False)
    for dose, k in itertools.product(DOSES, (2, 3)):
        for some in itertools.combinations(languages, k):
            parents = [f"main/{_short(lang)}-dose{dose:g}-lr1" for lang in some]
            yield _group("E", parents, some, fraction=1 / (1 + dose))
    for language in languages[:2]:
        source = f"main/{_short(language)}-f0"
        yield _group("G", [source, source], (language,), fraction=1.0, control="self")
        for kind in ("permuted", "rotated", "noise"):
            made = f"controls/{_short(language)}-{kind}"
            yield _group("G", [source, made], (language,), shared=kind == "noise", control=kind)
    yield _group("G", ["main/eng-f0", "main/eng-next"], ("eng_Latn",), fraction=1.0,
                 control="adjacent")  # fmt: skip


def _group(
    arm: str, parents: Sequence[str], languages: Sequence[str], *, fraction: float = 0.0,
    shared: bool = True, control: str = "",
) -> dict[str, Any]:  # fmt: skip
    return {"arm": arm, "parents": parents, "languages": languages, "fraction": fraction,
            "shared": shared, "control": control}  # fmt: skip


def planted_retention(
    fraction: float, k: int, method: str, alignment: str, *, shared: bool, control: str = ""
) -> float:
    """Planted retention of the worst language."""
    if control:
        lives = {
            "self": True, "adjacent": True, "noise": False, "permuted": alignment != "none",
            "rotated": alignment == "orthogonal",
        }[control]  # fmt: skip
        return 1.0 if lives else -2.0
    rise = -1.0 if fraction == 0 else 0.25 + 0.5 * (fraction >= 0.3)
    start = rise if shared else -2.0 + 1.0 * (alignment == "orthogonal")
    return start - 0.25 * (k - 2) - 0.125 * (method == "ties")


def _merge_rows(
    arm: str, parents: Sequence[str], languages: Sequence[str], fraction: float,
    control: str, *, shared: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    recipes = [(method, "none") for method in METHODS]
    recipes += [("linear", "permutation"), ("linear", "orthogonal")]
    for method, alignment in recipes:
        worst = planted_retention(
            fraction, len(parents), method, alignment, shared=shared, control=control
        )
        kept = max(worst, 0.0) + 0.05 * (len(languages) > 1)
        for place, language in enumerate(languages):
            retention = worst + 0.1 * (place > 0)
            bits = FLOORS[language] - GAINS["monolingual"] * retention
            yield {
                "merge": f"{join_parents(parents)} | {method} | {alignment}",
                "parents": join_parents(parents), "k": len(parents), "arm": arm,
                "control": control, "shared_init": int(shared), "fork_fraction": fraction,
                "method": method, "alignment": alignment, "base": "", "parameters": "{}",
                "language": language, "bits_per_byte": bits, "retention": retention,
                "parent_bits": FLOORS[language] - GAINS["monolingual"],
                "parent": parents[min(place, len(parents) - 1)],
                "unigram_floor": FLOORS[language], "ci_low": retention - 0.03,
                "ci_high": retention + 0.03, "worst_retention": worst, "kept": kept,
                "advantage": kept - 0.5, "collapsed": int(worst < 0.5), "useful": int(kept > 0.5),
                "seconds": 0.1,
            }  # fmt: skip


def _feature_rows(
    arm: str, parents: Sequence[str], languages: Sequence[str], fraction: float,
    control: str, *, shared: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """L0 follows what pairs have in common; L2 and above are high wherever a language is shared."""
    near = 0.1 + 0.85 * fraction if shared else 0.0
    about = {"parents": join_parents(parents)}
    for name, value in (("weight_cosine", near), ("weight_distance", 1.4 - 1.3 * near),
                        ("update_size", 1.2 - near)):  # fmt: skip
        yield about | {"language": "", "tier": "T1", "feature": name, "value": value}
    for language, (place, section) in itertools.product(
        languages, enumerate(("embed", "early", "middle", "late"))
    ):
        for rung, measure in enumerate(MEASURES):
            blind = near + (0.8 - near) * min(rung / 3, 1.0) * (0.5 + 0.5 * (len(languages) < 2))
            value = blind - 0.03 * place
            yield about | {"language": language, "tier": "T2", "feature": f"{measure}_{section}",
                           "value": value}  # fmt: skip


def _path_rows(
    arm: str, parents: Sequence[str], languages: Sequence[str], fraction: float,
    control: str, *, shared: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Paths of pairs: parabolas whose middle is what the plain mean loses."""
    if len(set(parents)) != 2:
        return
    for alignment, language in itertools.product(("none", "permutation", "orthogonal"), languages):
        worst = planted_retention(fraction, 2, "linear", alignment, shared=shared, control=control)
        top = (1 - worst) * GAINS["monolingual"]
        end = FLOORS[language] - GAINS["monolingual"]
        for t in (0.0, 0.25, 0.5, 0.75, 1.0):
            above = 4 * t * (1 - t) * top
            yield {"parents": join_parents(parents), "alignment": alignment, "language": language,
                   "t": t, "bits_per_byte": end + above, "above_chord": above}  # fmt: skip


def changed(atlas: Atlas, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Atlas:
    """The atlas with every row of its merges passed through a function; None drops it."""
    rows = [change(row) for row in atlas.merges.rows()]
    return dataclasses.replace(atlas, merges=MergeTable(row for row in rows if row))
