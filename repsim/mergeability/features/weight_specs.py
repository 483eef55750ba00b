"""Declarations of the features of T1."""

from __future__ import annotations

from typing import Literal, NamedTuple

from repsim.mergeability.features.base import FeatureSpec, declare


class _Of(NamedTuple):
    """What a feature is.

    Attributes:
        label: Name for people.
        definition: Formula in words.
        direction: +1, 0, -1; see `FeatureSpec`.
        worst: Which of several pairs or parents is the worst.
        source: Where it comes from.
    """

    label: str
    definition: str
    direction: int
    worst: Literal["least", "most"]
    source: str


_COSINE = "tells runs of one initialisation from others, as among PolyPythias (arXiv 2503.09543)"
_DISTANCE = "linear connectivity after a fork, Frankle et al. 2020 (arXiv 1912.05671)"
_PRISM = "PRISM: power and interference of updates, here over the power of the base"
_TIES = "Yadav et al. 2023 (TIES-Merging, arXiv 2306.01708)"
_ISO = "Marczak et al. 2025 (arXiv 2502.04959): alignment of singular subspaces"
_MANTEL = "Mantel 1967: moments over all permutations"
_REBASIN = "Ainsworth, Hayase and Srinivasa 2023 (Git Re-Basin, arXiv 2209.04836)"
_THEUS = "Theus et al. 2025 (arXiv 2506.22712)"
_DESCRIBES = "none: a description of the pair"

#: Features of pairs.
PAIRS: dict[str, _Of] = {
    "weight_cosine": _Of(
        "weight cosine", "cosine of two matrices, mean over the matrices inside blocks",
        +1, "least", _COSINE,
    ),
    "weight_cosine_least": _Of(
        "weight cosine, least tensor", "cosine of that matrix inside blocks for which it is least",
        +1, "least", _COSINE,
    ),
    "weight_distance": _Of(
        "relative distance", "distance of all matrices inside blocks over the mean of their norms",
        -1, "most", _DISTANCE,
    ),
    "weight_distance_embedding": _Of(
        "relative distance, embedding", "distance of embedding and head over the mean of norms",
        -1, "most", _DISTANCE,
    ),
    "weight_distance_norms": _Of(
        "relative distance, gains", "distance of all gains of norms over the mean of their norms",
        -1, "most", _DISTANCE,
    ),
    "weight_cosine_embedding": _Of(
        "weight cosine, embedding", "cosine of the embeddings after the mean row was taken away",
        +1, "least", _COSINE,
    ),
    "norm_gap": _Of(
        "gap of norms", "absolute log ratio of the norms of all matrices inside blocks",
        -1, "most", _DESCRIBES,
    ),
    "sign_agreement": _Of(
        "signs in common", "share of values of the body that have one sign in both models",
        0, "least", _TIES,
    ),
    "unit_match": _Of(
        "identity match of MLP units",
        "share of MLP units whose most similar unit in the other model, by the cosine of the "
        "weights that feed it, bears their number; beyond chance, mean of both ways and all blocks",
        +1, "least", _REBASIN,
    ),
    "head_match": _Of(
        "identity match of heads",
        "share of attention heads whose most similar head in the other model, by the cosine of "
        "what they write, bears their number; beyond chance",
        +1, "least", _REBASIN,
    ),
    "origin_score": _Of(
        "score of a common origin",
        "similarity of MLP units of one number between that of any two (0) and that of each unit "
        "with the one most similar to it (1), mean over blocks",
        +1, "least", _MANTEL,
    ),
    "shared_origin": _Of(
        "common origin found in the weights",
        "1 if MLP units of one number are more alike than under a random order by 6 standard "
        "deviations",
        +1, "least", _MANTEL,
    ),
    "subspace_overlap": _Of(
        "overlap of singular subspaces",
        "squared cosine of principal angles of the leading left and right singular subspaces (90 % "
        "of energy, at most an eighth of the side), beyond chance, mean over sampled matrices",
        +1, "least", _ISO,
    ),
    "stable_rank_gap": _Of(
        "gap of stable ranks", "absolute log ratio of stable ranks, mean over sampled matrices",
        0, "most", _DESCRIBES,
    ),
    "effective_rank_gap": _Of(
        "gap of effective ranks",
        "absolute log ratio of effective ranks (Roy and Vetterli 2007), mean over sampled matrices",
        0, "most", _DESCRIBES,
    ),
    "update_cosine": _Of(
        "cosine of updates", "cosine of model minus base, all matrices inside blocks",
        0, "least", "task arithmetic (arXiv 2212.04089)",
    ),
    "update_sign_agreement": _Of(
        "signs of updates in common", "share of values whose updates have one sign",
        0, "least", _TIES,
    ),
    "update_subspace_overlap": _Of(
        "overlap of subspaces of updates", "as subspace_overlap, of model minus base",
        0, "least", _ISO,
    ),
    "quotient_distance_permutation": _Of(
        "relative distance up to permutation",
        "relative distance of the body that remains after the best re-ordering found",
        -1, "most", _REBASIN,
    ),
    "quotient_distance_orthogonal": _Of(
        "relative distance up to rotation",
        "relative distance of the body, norms folded, that remains after the best rotation of the "
        "residual stream, bases of heads and order of units found",
        -1, "most", _THEUS,
    ),
    "quotient_distance_embedding": _Of(
        "relative distance of embeddings up to rotation",
        "relative distance of the embeddings that remains after that rotation",
        -1, "most", _THEUS,
    ),
    "alignment_gain_permutation": _Of(
        "gain of permutation", "share of the distance of the body that re-ordering takes away",
        0, "most", _REBASIN,
    ),
    "alignment_gain_orthogonal": _Of(
        "gain of rotation", "share of the distance of the body that rotation takes away",
        0, "most", _THEUS,
    ),
}  # fmt: skip
PAIRS |= {
    f"weight_cosine_{part}": _Of(
        f"weight cosine, {part}", f"cosine of two matrices, mean over those of {where}",
        +1, "least", _COSINE,
    )
    for part, where in {
        "attention": "attention", "mlp": "the MLPs", "early": "the early third of the blocks",
        "middle": "the middle third of the blocks", "late": "the late third of the blocks",
    }.items()
}  # fmt: skip
#: Those features of pairs that need the search for symmetries.
QUOTIENT = tuple(name for name in PAIRS if name.startswith(("quotient_distance", "alignment_gain")))
#: Features of each parent.
_PARENTS: dict[str, _Of] = {
    "update_size": _Of(
        "update size",
        "norm of model minus base over the norm of the base, body; without a base, of model minus "
        "mean of the models over the norm of that mean",
        -1, "most", _PRISM,
    ),
}  # fmt: skip
#: Features of the whole group.
_GROUPS: dict[str, _Of] = {
    "interference": _Of(
        "interference",
        "square root of the variance across models, summed over the body, over the norm of the "
        "base; without a base, over the norm of the mean of the models",
        -1, "most", _PRISM,
    ),
    "interference_mlp": _Of(
        "interference, MLP", "as interference, of the MLPs alone", -1, "most", _PRISM
    ),
    "retained_update": _Of(
        "retained update", "norm of the mean update over the mean norm of the updates, body",
        0, "least", _PRISM,
    ),
    "stable_rank": _Of(
        "stable rank", "squared Frobenius norm over squared spectral norm, over the shorter side, "
        "mean over sampled matrices and models",
        0, "least", _DESCRIBES,
    ),
}  # fmt: skip


def _declare_all() -> None:
    def add(name: str, of: _Of, label: str, which: str) -> None:
        declare(
            FeatureSpec(
                name=name, tier="T1", label=label, definition=f"{of.definition}{which}",
                per_language=False, scale_free=True, direction=of.direction, source=of.source,
            )
        )  # fmt: skip

    for what, features in (("pair", PAIRS), ("parent", _PARENTS)):
        for name, of in features.items():
            add(name, of, of.label, f"; mean over {what}s")
            add(f"{name}_worst", of, f"{of.label}, worst", f"; {what} with the {of.worst}")
    for name, of in _GROUPS.items():
        add(name, of, of.label, "")


_declare_all()
