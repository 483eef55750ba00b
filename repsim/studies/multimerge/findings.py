"""What the published pairs say: `findings.yaml` evaluated over them, beside an atlas of ours."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.formatting import number
from repsim.core.pair_table import SIDES, PairTable
from repsim.plots.study.features import measured_pairs
from repsim.plots.study.published import PLATEAU, leverage_of
from repsim.stats.bootstrap import auroc_estimate, estimate, members_of, share
from repsim.stats.dyads import Relation, explained_by_members, relation
from repsim.stats.statements import Statement, read_entries, statements
from repsim.studies.multimerge.files import Multimerge

#: Similarities that go beside the loss: column -> name on the page.
MEASURES = {
    "cka_english": "CKA on English", "cka_in_language": "CKA in-language",
    "cka_numerals": "CKA on numerals", "weight_cosine": "weight cosine",
}  # fmt: skip
#: Language that was looked at apart after the numbers had been seen.
CHOSEN = "rus"


def multimerge_findings(study: Multimerge, atlas: Atlas | None = None) -> list[Statement]:
    """Claims of the source paper as far as its own pairs support them, findings, and limits."""
    entries = read_entries(resources.files("repsim.studies.multimerge").joinpath("findings.yaml"))
    return statements(entries, _offered(study, atlas))


def relations_of(pairs: PairTable) -> list[dict[str, Any]]:
    """Every similarity beside the loss: as it is, and after additive effects of languages."""
    loss, found = pairs.loss, []
    for name, label in MEASURES.items():
        values = pairs[name]
        known = np.isfinite(values) & np.isfinite(loss)
        if known.sum() < 4:
            continue
        names = [pair for pair, keep in zip(pairs.pairs, known, strict=True) if keep]
        both = (values[known], loss[known], names)
        found.append({
            "name": name, "label": label, "rank": relation(*both),
            "partial": relation(*both, partial=True), "without": leverage_of(*both),
        })  # fmt: skip
    return _corrected(found)


def _corrected(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add p of the partial correlations, corrected by Holm (1979) for how many there are."""
    order = sorted(range(len(found)), key=lambda n: found[n]["partial"].p)
    least = 0.0
    for place, n in enumerate(order):
        least = max(least, min(1.0, (len(found) - place) * found[n]["partial"].p))
        found[n]["corrected"] = least
    return found


def _offered(study: Multimerge, atlas: Atlas | None) -> dict[str, Any]:
    """What the entries of `findings.yaml` may name."""
    pairs = study.pairs
    both, worst = pairs.both, pairs.worst
    known = np.isfinite(worst)
    names = [pair for pair, keep in zip(pairs.pairs, known, strict=True) if keep]
    found = functools.cache(lambda: relations_of(pairs))
    return {
        "pairs": int(known.sum()), "models": len({name for pair in names for name in pair}),
        "collapsed": share([value < COLLAPSE for value in worst[known]], names),
        "mean": estimate(worst[known], names), "each": float(np.nanmean(both)),
        "most": float(np.nanmax(both)), "best": float(worst[known].max()),
        "below": int((worst[known] < 0).sum()),
        "one_sided": int((~np.isfinite(both)).any(axis=1).sum()),
        "members": explained_by_members(pairs.loss[known], members_of(names)),
        "relations": found, "relation": lambda name: _named(found(), name),
        "chosen": CHOSEN, "told": told, "plateau": functools.partial(_plateau, study),
        "recipes": functools.partial(_recipes, study), "ours": functools.partial(_ours, atlas),
        "cosine": (float(np.nanmin(pairs["weight_cosine"])),
                   float(np.nanmax(pairs["weight_cosine"]))),
        "noise": functools.partial(_noise, study), "room": _room(pairs),
        "COLLAPSE": COLLAPSE, "PLATEAU": PLATEAU,
    }  # fmt: skip


def told(found: Relation) -> str:
    """A correlation with its interval over models and its p."""
    ends = f"[{number(found.low)}, {number(found.high)}]"
    return f"{number(found.value)} {ends}, p = {number(found.p, 3)}"


def _named(found: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """One similarity, with the chosen language left out and the range over all of them."""
    one = next((row for row in found if row["name"] == name), None)
    if one is None:
        return None
    without = {lever.language: lever for lever in one["without"]}
    rest = [lever.without for lever in one["without"] if lever.language != CHOSEN]
    return {**one, "left": without.get(CHOSEN), "others": (min(rest), max(rest))}


def _plateau(study: Multimerge) -> dict[str, Any] | None:
    """Blocks on which CKA on English tells pairs apart no longer."""
    rows = study.blocks.where(text="english")
    if not len(rows):
        return None
    blocks = np.unique(rows["block"])
    middle = np.array([np.median(rows["cka"][rows["block"] == block]) for block in blocks])
    flat = blocks[middle >= PLATEAU]
    inside = rows["cka"][np.isin(rows["block"], flat)]
    return {
        "pairs": len(set(zip(rows["a"], rows["b"], strict=True))), "blocks": len(blocks),
        "flat": len(flat), "from": int(flat[0]) if len(flat) else 0,
        "to": int(flat[-1]) if len(flat) else 0,
        "median": float(np.median(inside)) if len(flat) else float("nan"),
        "top": float(rows["cka"].max()),
    }  # fmt: skip


def _recipes(study: Multimerge) -> dict[str, Any] | None:
    """How many recipes there are by method, and which bases they name."""
    if not len(study.recipes):
        return None
    rows = {row["recipe"]: row for row in study.recipes.rows()}
    counts: dict[str, int] = {}
    for row in rows.values():
        counts[str(row["method"])] = counts.get(str(row["method"]), 0) + 1
    return {"count": len(rows), "methods": sorted(counts.items(), key=lambda item: -item[1]),
            "bases": study.recipes.unique("base")}  # fmt: skip


def _noise(study: Multimerge) -> float | None:
    """Median standard error of an accuracy that was measured near the floor."""
    errors = [row["se"] for row in study.accuracy.where(checkpoint="checkpoint_0000000").rows()
              if row["se"] is not None]  # fmt: skip
    return float(np.median(errors)) if errors else None


def _room(pairs: PairTable) -> float:
    """Mean distance between an untrained model and the parent, in units of the score."""
    rooms = [pairs[f"parent_{side}"] - pairs[f"floor_{side}"] for side in SIDES]
    return float(np.nanmean(np.concatenate(rooms)))


def _ours(atlas: Atlas | None) -> dict[str, Any] | None:
    """Pairs of an atlas by the same definitions."""
    if atlas is None:
        return None
    found = measured_pairs(atlas, "weight_cosine")
    cosine = np.array([pair.values["weight_cosine"] for pair in found])
    lives = np.array([not pair.outcome.collapsed for pair in found])
    parents = [pair.outcome.parents for pair in found]
    alive = [pair for pair in found if not pair.outcome.collapsed]
    return {
        "parameters": float(np.median(atlas.models["parameters"])) / 1e6,
        "name": (atlas.info.get("study") or {}).get("name", "atlas"), "pairs": len(found),
        "survive": int(lives.sum()), "auroc": auroc_estimate(cosine, lives, parents),
        "least": float(cosine[lives].min()) if len(alive) else None,
        "apart": sum(pair.outcome.fork_fraction == 0 for pair in found),
        "apart_alive": sum(pair.outcome.fork_fraction == 0 for pair in alive),
    }  # fmt: skip
