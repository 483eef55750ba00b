"""What a validation says, in words: every sentence is computed and states its numbers."""

from __future__ import annotations

from repsim.core.formatting import listed, number, percent
from repsim.plots.validation.intervals import GOAL
from repsim.reports.validation_rows import (
    MAIN_SPLIT,
    ORACLE,
    STRATA,
    Row,
    Validation,
    with_interval,
)

#: Fewer models than this give wide intervals, whatever the number of merges.
FEW_MODELS = 30
#: A larger share of refusals than this is worth a warning.
MANY_REFUSED = 0.2


def findings(found: Validation) -> list[str]:
    """What was found, the main thing first."""
    made = [_skill(found, stratum) for stratum in found.strata]
    made += [_baselines(found), _tiers(found), _trial(found), _laws(found), _hardest(found)]
    made += [_refusals(found), _controls(found)]
    return [text for text in made if text]


def warnings(found: Validation) -> list[str]:
    """What limits the results."""
    made = []
    missed = [row for row in found.document["goals"] if not row["reached"]]
    made += [
        f"Goal not reached: {row['goal']}: {with_interval(row['found'], row)}, wanted "
        f"{row['wanted']}."
        for row in missed
    ]
    made += [_loose(found, split) for split in found.splits]
    if found.info["models"] < FEW_MODELS:
        made.append(
            f"All merges are made of {found.info['models']} models, which is few: intervals over "
            "models are wide."
        )
    for split, skipped in found.info.get("skipped", {}).items():
        if skipped:
            folds = "1 fold" if len(skipped) == 1 else f"{len(skipped)} folds"
            made.append(f"{split}: {folds} had too little to learn from ({skipped[0]}).")
    absent = [name for name in found.info.get("splits", {}) if name not in found.splits]
    if absent:
        made.append(f"Nothing could be tested in {listed(absent)}.")
    if not found.document["hypotheses"]:
        made.append("The evidence lacks the features that the hypotheses are about.")
    return [text for text in made if text]


def headline(found: Validation) -> str:
    """Goals reached, out of how many; what is stated of smaller sets of tiers does not count."""
    goals = [
        row for row in found.document["goals"]
        if (row.get("features") or found.predictor) == found.predictor
    ]  # fmt: skip
    reached = sum(bool(row["reached"]) for row in goals)
    return f"{reached} of {len(goals)} goals that were set before are reached" if goals else ""


def _skill(found: Validation, stratum: str) -> str:
    row = found.metric("spearman", stratum=stratum) or found.metric("mae", stratum=stratum)
    if row is None:
        return ""
    held = found.value("coverage", stratum=stratum)
    where = {
        "all": "On models that it has never seen",
        "shared-init": "Inside shared initial weights, where the provenance bit tells nothing",
        "as-they-are": "Among merges of models as they are, not aligned before",
    }.get(stratum, f"Among {STRATA.get(stratum, stratum)}")
    return (
        f"{where}: rank correlation of retention {found.said('spearman', MAIN_SPLIT, stratum)}, "
        f"mean absolute error {found.said('mae', MAIN_SPLIT, stratum)}, AUROC of collapse "
        f"{found.said('auroc', MAIN_SPLIT, stratum)}; {percent(held) if held is not None else '–'} "
        f"of outcomes lie in the 90 % interval ({row['rows']:,} outcomes of {row['merges']:,} "
        "merges)."
    )


def _baselines(found: Validation) -> str:
    said = []
    for split in found.splits:
        rows = [
            row for row in found.document["lifts"]
            if row["split"] == split and row["stratum"] == "all" and row["metric"] == "mae"
            and row["lift"] is not None
        ]  # fmt: skip
        if not rows:
            continue
        near = min(rows, key=lambda row: row["lift"])
        better = sum(row["ci_low"] is not None and row["ci_low"] > 0 for row in rows)
        said.append(
            f"{split}: {better} of {len(rows)} (nearest {found.label(near['baseline'])}, "
            f"{with_interval(near['lift'], near, 3)})"
        )
    if not said:
        return ""
    return (
        "Baselines whose mean absolute error is larger, the whole interval of the difference above "
        f"0: {'; '.join(said)}."
    )


def _tiers(found: Validation) -> str:
    names = found.rivals("predictor")
    if len(names) < 2:
        return ""
    said = []
    for name in names:
        error, rank = found.value("mae", predictor=name), found.value("spearman", predictor=name)
        if error is not None and rank is not None:
            said.append(f"{name} {number(error, 3)} ({number(rank)})")
    return f"Mean absolute error (rank correlation) by features at hand: {', '.join(said)}."


def _trial(found: Validation) -> str:
    """What one look at the average of the parents tells, beside the forecast and on top of it."""
    names = [name for name in found.rivals(ORACLE) if found.value("mae", predictor=name)]
    if not names:
        return ""
    strata = [stratum for stratum in ("all", "as-they-are") if stratum in found.strata]
    said = []
    for stratum in strata:
        errors = [
            f"{name} {number(found.value('mae', stratum=stratum, predictor=name) or 0.0, 3)}"
            for name in (*names, found.predictor)
        ]
        said.append(f"{STRATA[stratum]}: {', '.join(errors)} without it")
    costs = found.info.get("costs") or {}
    spent = ""
    if {"oracle", found.predictor} <= set(costs):
        spent = (
            f" A trial costs {percent(costs['oracle'])} of merging in every way and scoring, "
            f"measuring {found.predictor} {percent(costs[found.predictor])} (median over groups)."
        )
    return (
        "The cheap oracle, an evaluation and no forecast: the plain average of the parents is made "
        "and tried on a few sentences; of aligned merges nothing was tried. Mean absolute error, "
        f"{'; '.join(said)}.{spent}"
    )


def _laws(found: Validation) -> str:
    own = found.value("mae")
    rivals = {name: found.value("mae", predictor=name) for name in found.rivals("law")}
    known = {name: error for name, error in rivals.items() if error is not None}
    if own is None or not known:
        return ""
    said = ", ".join(f"{name} {number(error, 3)}" for name, error in known.items())
    return (
        f"Other laws on the same features: mean absolute error {said}; the law that is used, "
        f"{found.info['law']}: {number(own, 3)}."
    )


def _hardest(found: Validation) -> str:
    errors = {split: found.value("mae", split) for split in found.splits}
    known = {split: error for split, error in errors.items() if error is not None}
    if len(known) < 2:
        return ""
    worst = max(known, key=lambda split: known[split])
    question = found.info.get("splits", {}).get(worst, "")
    return (
        f"Hardest split: {worst}{f' ({question})' if question else ''}, mean absolute error "
        f"{found.said('mae', worst)}, rank correlation {found.said('spearman', worst)}."
    )


def _refusals(found: Validation) -> str:
    said = []
    for split in found.splits:
        share = found.value("refused", split)
        if share is None:
            continue
        whole, rest = found.value("mae", split), found.value("mae_answered", split)
        words = f"{split} {percent(share)}"
        if rest is not None and whole is not None and share > 0:
            errors = f"{number(rest, 3)} without them, {number(whole, 3)} with them"
            words += f" (mean absolute error {errors})"
        said.append(words)
    return f"Refused as too unlike what is known: {'; '.join(said)}." if said else ""


def _controls(found: Validation) -> str:
    rows: list[Row] = [r for r in found.document["controls"] if r["split"] == MAIN_SPLIT]
    if not rows:
        return ""
    right = sum(row["right"] == 1 for row in rows)
    refused = sum(row["right"] is None for row in rows)
    wrong = [row for row in rows if row["right"] == 0]
    kinds = {
        f"{row['control']} with alignment {row['alignment']}": sum(
            (r["control"], r["alignment"]) == (row["control"], row["alignment"]) for r in wrong
        )
        for row in wrong
    }
    text = f"Merges of controls: {right} of {len(rows)} foretold right"
    if refused:
        text += f", {refused} refused"
    if wrong:
        text += f", {len(wrong)} wrong ({', '.join(f'{k} {n}' for k, n in kinds.items())})"
    odd = sum(row["answer"] != "open" and row["answer"] != row["came"] for row in rows)
    if odd:
        text += f". {odd} of them came out otherwise than theory says"
    return text + "."


def _loose(found: Validation, split: str) -> str:
    """A warning about intervals that do not keep their promise, or refuse most."""
    held, refused = found.value("coverage", split), found.value("refused", split)
    words = []
    if held is not None and held < GOAL[0]:
        words.append(f"the 90 % intervals hold only {percent(held)} of outcomes")
    if held is not None and held > GOAL[1]:
        words.append(f"the 90 % intervals are wider than needed: they hold {percent(held)}")
    if refused is not None and refused > MANY_REFUSED:
        words.append(f"{percent(refused)} would be refused")
    return f"{split}: {listed(words)}." if words else ""
