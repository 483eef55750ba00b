"""What an atlas says, in words: `findings.yaml` evaluated over its merges, models and features."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.plots import FIGURES
from repsim.plots.study.features import measured_pairs
from repsim.plots.study.outcomes import (
    ALIGNMENTS,
    PLAIN,
    PRETRAINED_APART,
    SETTINGS,
    Outcome,
    cluster,
    outcomes_of,
    recipe_label,
    settings_of,
    usual_rate,
    value_words,
)
from repsim.stats import Estimate, auroc_estimate, estimate, share
from repsim.stats.statements import Statement, read_entries, statements

#: Bits per byte below a unigram model under which a parent is called weak.
WEAK = 0.2
_SHARES: dict[str, Callable[[Outcome], bool]] = {
    "survive": lambda o: not o.collapsed,
    "below unigrams": lambda o: o.worst < 0,
}


def study_findings(atlas: Atlas) -> list[Statement]:
    """Claims of the source paper, further findings and limits that the atlas supports."""
    entries = read_entries(resources.files("repsim.studies").joinpath("findings.yaml"))
    return statements(entries, _offered(atlas), skip=UsageError)


def _offered(atlas: Atlas) -> dict[str, Any]:
    """What the entries of `findings.yaml` may name."""
    info = functools.cache(lambda kind: FIGURES[f"atlas_{kind}"].info(atlas))
    worst = {row["merge"]: row["worst_retention"] for row in atlas.merges.rows()}
    seeds = {int(seed) for seed in atlas.models.column("init_seed") if seed >= 0}
    return {
        "outcomes": outcomes_of(atlas), "info": info, "study": atlas.info.get("study", {}),
        "units": atlas.info.get("units"), "done": atlas.info.get("units_done"),
        "SETTINGS": SETTINGS, "ALIGNMENTS": ALIGNMENTS, "PLAIN": PLAIN,
        "APART": list(PRETRAINED_APART),
        "repeats": {"models": len(atlas.models.unique("model")), "seeds": len(seeds)},
        "undefined": {"merges": list(worst.values()).count(None), "all": len(worst)},
        "settings": settings_of, "recipe": lambda o: recipe_label(*o.recipe),
        "mean": lambda values: float(np.mean(values)),
        "median": lambda those: estimate([o.worst for o in those], [o.parents for o in those]),
        "share": _share, "auroc": _auroc, "by_dose": _by_dose, "several_sizes": _several_sizes,
        "interval": value_words, "counted": counted, "area": area_words,
        "failed_controls": lambda rows: [row for row in rows if row.met < len(row.points)],
        "measured": functools.partial(_measured, atlas),
        "strength": functools.partial(_strength, atlas, info),
        "scale": functools.partial(_scale, atlas), "parents": functools.partial(_parents, atlas),
    }  # fmt: skip


def counted(found: Estimate) -> str:
    """A share as a count, with its interval in percent where merges differ."""
    count = f"{round(found.value * found.merges)} of {found.merges}"
    if found.value in (0.0, 1.0) or math.isnan(found.low):
        return count
    return f"{count} (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %)"


def area_words(found: Estimate) -> str:
    """An area under the ROC curve; an interval of no width is not stated."""
    if found.value in (0.0, 1.0):
        return f"{number(found.value)} (without exception)"
    return value_words(found)


def _share(those: Sequence[Outcome], of: str) -> Estimate:
    return share([_SHARES[of](o) for o in those], [o.parents for o in those])


def _auroc(pairs: Sequence[dict[str, Any]], feature: str) -> Estimate:
    values = np.array([pair[feature] for pair in pairs])
    survives = np.array([pair["survives"] for pair in pairs])
    return auroc_estimate(values, survives, [pair["parents"] for pair in pairs])


def _by_dose(those: Sequence[Outcome]) -> list[tuple[float, list[Outcome]]]:
    """Share of training apart -> merges, at the usual learning rate."""
    near, usual = cluster([o.apart for o in those]), usual_rate(those)
    groups: dict[float, list[Outcome]] = {}
    for outcome in those:
        if outcome.rate == usual:
            groups.setdefault(near[outcome.apart], []).append(outcome)
    return sorted(groups.items())


def _several_sizes(those: Sequence[Outcome]) -> list[tuple[str, list[int]]]:
    """Settings with merges of several numbers of parents."""
    sizes = {s: sorted({o.k for o in those if o.setting == s}) for s in settings_of(those)}
    return [(setting, found) for setting, found in sizes.items() if len(found) > 1]


def _measured(atlas: Atlas, *features: str) -> list[dict[str, Any]]:
    """Pairs with their outcome and features; none if none was measured."""
    try:
        pairs = measured_pairs(atlas, *features)
    except UsageError:
        return []
    return [
        {**pair.values, "survives": not pair.outcome.collapsed, "parents": pair.outcome.parents,
         "setting": pair.outcome.setting}
        for pair in pairs
    ]  # fmt: skip


def _strength(atlas: Atlas, info: Callable[[str], Any]) -> dict[str, Any] | None:
    """Monolingual models beside the first mixed one, by language, and what they read."""
    rows = {row.role: row for row in reversed(info("strength").rows)}
    if not {"monolingual", "mixed"} <= set(rows):
        return None
    alone, mixed = rows["monolingual"].models, rows["mixed"].models
    languages = [
        {"language": language,
         "gap": min(m.bits for m in mixed[language]) - float(np.mean([m.bits for m in models])),
         "apart": max(m.high for m in models) < min(m.low for m in mixed[language])}
        for language, models in alone.items() if language in mixed
    ]  # fmt: skip
    known = [row for row in atlas.models.rows() if row["tokens"] is not None]
    first = min((row for row in known if row["role"] == "mixed"), key=lambda row: row["tokens"])
    family = first["model"].split("/")[0]
    read = {row["tokens"] for row in known if row["role"] == "monolingual"
            and row["history"] == row["language"] and not row["forked_from"]
            and row["model"].split("/")[0] == family}  # fmt: skip
    return {
        "languages": languages, "label": rows["mixed"].label.removeprefix("mixed, "),
        "read": sorted(read), "tokens": first["tokens"],
        "spoken": len(first["trained_on"].split("+")),
    }  # fmt: skip


def _scale(atlas: Atlas) -> dict[str, Any] | None:
    """Sizes of the models and tokens that they read."""
    rows = [row for row in atlas.models.rows() if row["tokens"]]
    if not rows:
        return None
    tokens = [row["tokens"] for row in rows]
    sizes = sorted({f"{row['parameters'] / 1e6:.2g}M" for row in rows})
    return {"sizes": sizes, "least": min(tokens), "most": max(tokens)}


def _parents(atlas: Atlas) -> dict[str, Any] | None:
    """How far the parents lie under the floor: retention divides by that."""
    gaps = {
        row["model"]: row["unigram_floor"] - row["bits_per_byte"]
        for row in atlas.models.rows()
        if row["role"] == "monolingual" and row["trained_on"] == row["language"]
        and row["bits_per_byte"] is not None
    }  # fmt: skip
    if not gaps:
        return None
    least = min(gaps, key=lambda model: gaps[model])
    weak = {row["merge"] for row in atlas.merges.rows()
            if row["parent_bits"] is not None
            and 0 < row["unigram_floor"] - row["parent_bits"] < WEAK}  # fmt: skip
    return {
        "median": float(np.median(list(gaps.values()))), "least": gaps[least], "model": least,
        "weak": len(weak), "merges": len(atlas.merges.unique("merge")), "limit": f"{WEAK:g}",
    }  # fmt: skip
