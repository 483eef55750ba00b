"""What limits the findings of a study, computed from its atlas."""

from __future__ import annotations

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.formatting import listed, number

#: Bits per byte below a unigram model under which a parent is called weak.
WEAK = 0.2


def limits(atlas: Atlas) -> list[str]:
    """Sentences that a reader of the findings should know.

    Args:
        atlas: What a study found.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> limits(planted_atlas())[0][:43]
        'Scale: the models have 1.3M parameters and '
    """
    return [
        sentence
        for sentence in (
            _scale(atlas), _parents(atlas), _repeats(atlas), _undefined(atlas), _done(atlas),
        )
        if sentence
    ]  # fmt: skip


def _scale(atlas: Atlas) -> str:
    rows = [row for row in atlas.models.rows() if row["tokens"]]
    if not rows:
        return ""
    sizes = sorted({f"{row['parameters'] / 1e6:.2g}M" for row in rows})
    tokens = [row["tokens"] for row in rows]
    corpus = atlas.info.get("study", {}).get("corpus", "one corpus")
    return (
        f"Scale: the models have {listed(sizes)} parameters and read {min(tokens):,} to "
        f"{max(tokens):,} tokens of one kind of text ({corpus}). Findings show the effect and its "
        "conditions at this scale; they do not say at which share in common larger models, or "
        "models of broader text, begin to merge."
    )


def _parents(atlas: Atlas) -> str:
    """How far the parents lie under the floor: retention divides by that."""
    gaps = {}
    for row in atlas.models.rows():
        alone = row["role"] == "monolingual" and row["trained_on"] == row["language"]
        if alone and row["bits_per_byte"] is not None:
            gaps[row["model"]] = row["unigram_floor"] - row["bits_per_byte"]
    if not gaps:
        return ""
    least = min(gaps, key=lambda model: gaps[model])
    weak = {row["merge"] for row in atlas.merges.rows()
            if row["parent_bits"] is not None
            and 0 < row["unigram_floor"] - row["parent_bits"] < WEAK}  # fmt: skip
    total = len(atlas.merges.unique("merge"))
    told = (
        f" {len(weak)} of {total} merges rest on a best parent that lies less than {WEAK:g} bits "
        "below in one of their languages, which makes their retention extreme."
        if weak
        else ""
    )
    middle = number(float(np.median(list(gaps.values()))))
    return (
        f"Parents lie {middle} bits per byte below a unigram "
        f"model of their language in the median, at least {number(gaps[least])} ({least}). "
        "Retention divides by that distance: it goes far below zero where a merge is much worse "
        "than unigrams, and how far it does is not worth comparing." + told
    )


def _repeats(atlas: Atlas) -> str:
    models = atlas.models.unique("model")
    seeds = sorted({int(seed) for seed in atlas.models.column("init_seed") if seed >= 0})
    return (
        f"{len(models)} models from {len(seeds)} seeds of initial weights share trunks, corpora "
        "and seeds; intervals draw models as if they were exchangeable, and do not cover another "
        "corpus, tokenizer or architecture. With fewer than four models no interval is stated."
    )


def _undefined(atlas: Atlas) -> str:
    rows = {row["merge"]: row["worst_retention"] for row in atlas.merges.rows()}
    none = sum(value is None for value in rows.values())
    if not none:
        return ""
    return (
        f"{none} of {len(rows)} merges have no retention, since no parent beats a unigram model in "
        "one of their languages; they are left out."
    )


def _done(atlas: Atlas) -> str:
    units, done = atlas.info.get("units"), atlas.info.get("units_done")
    if not units or done is None or done >= units:
        return ""
    return f"The study is not complete: {done} of {units} units of work are done."
