"""Which models are one as far as "never seen in training" goes."""

from __future__ import annotations

from collections.abc import Mapping

from repsim.core.atlas import Atlas, split_parents


def root_of(model: str, kin: Mapping[str, str]) -> str:
    """Follow a model to the one that it was made from.

    Args:
        model: Name.
        kin: Model -> the one that it was made from.

    Example:
        >>> root_of("twin of twin", {"twin of twin": "twin", "twin": "a"})
        'a'
    """
    seen = {model}
    while model in kin and kin[model] not in seen:
        model = kin[model]
        seen.add(model)
    return model


def kin_of_atlas(atlas: Atlas) -> dict[str, str]:
    """Kin among the models of an atlas.

    Controls are made by changing a model, so that whoever knows one knows the other; models with
    the same weights are the same under two names.

    Args:
        atlas: What a study found.

    Returns:
        Model -> the one that stands for it; models that stand for themselves are left out.
    """
    kin: dict[str, str] = {}
    for row in atlas.merges.rows():
        if row["control"]:
            first, *others = split_parents(row["parents"])
            kin |= {name: first for name in others if name != first}
    holder: dict[str, str] = {}
    for row in atlas.models.rows():
        name, weights = row["model"], row["weights_hash"]
        if not weights:
            continue
        first = holder.setdefault(weights, name)
        if first != name and root_of(name, kin) != root_of(first, kin):
            kin[root_of(name, kin)] = root_of(first, kin)
    return kin
