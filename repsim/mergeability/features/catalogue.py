"""Every feature in one list; within a tier, those that the predictor uses in the order of use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from repsim.core.registry import Registry
from repsim.mergeability.features.spec import FeatureSpec, FeatureValue

#: Measures of the invariance ladder; their rungs and labels are those that they declare.
LADDER = (
    "unit_correlation", "identity_match", "permutation", "cka", "procrustes", "svcca", "mutual_knn"
)  # fmt: skip
#: Measures of the hidden units of the feed-forward parts, whose order can differ while that of the
#: residual stream does not: the average is destroyed, and the stream shows nothing.
HIDDEN = ("unit_correlation", "cka")
#: Gap -> measures whose calibrated scores are subtracted, and what it says.
GAPS = {
    "gap_l2_l0": ("cka", "unit_correlation", "same geometry in other coordinates"),
    "gap_l1_l0": ("permutation", "unit_correlation", "what re-ordering the units would bring"),
    "gap_l3_l2": ("svcca", "cka", "same information in another geometry"),
}
#: Parts of the depth: the embedding, and the blocks by thirds.
SECTIONS = ("embed", "early", "middle", "late")

_FORK = "Frankle et al. 2020 (arXiv 1912.05671): training after a shared start stays mergeable"
_CHECK = "static conditions of averaging weights"
_DOSE = "Frankle et al. 2020; over-training hurts merging (arXiv 2506.14126)"
_ALIKE = "averaging weighs each parent alike"
_DESCRIBES = "none: a description of the group"
_COSINE = "tells runs of one initialisation from others, as among PolyPythias (arXiv 2503.09543)"
_DISTANCE = "linear connectivity after a fork, Frankle et al. 2020 (arXiv 1912.05671)"
_PRISM = "PRISM: power and interference of updates, here over the power of the base"
_ARITHMETIC = "Ilharco et al. 2023 (task arithmetic, arXiv 2212.04089)"
_TIES = "Yadav et al. 2023 (TIES-Merging, arXiv 2306.01708)"
_ISO = "Marczak et al. 2025 (arXiv 2502.04959): alignment of singular subspaces"
_MANTEL = "Mantel 1967: moments over all permutations"
_REBASIN = "Ainsworth, Hayase and Srinivasa 2023 (Git Re-Basin, arXiv 2209.04836)"
_THEUS = "Theus et al. 2025 (arXiv 2506.22712)"
_NESTING = "Williams et al. 2021 (arXiv 2110.14739) for the nesting of the rungs"
_CALIBRATED = "calibrated: 0 = 95 % quantile under shuffled sentences, 1 = identical"
_KL = "Cohere SimMerge (arXiv 2601.09473): divergence of next-token distributions"
_HEADROOM = "repsim: share of the unigram floor that a model saves"
_MISMATCH = "Daheim et al. 2023 (arXiv 2310.12808): gradient mismatch of merged models"
_PROBE = "Demystifying Mergeability: L2 distance of gradients on probe data"
_TAYLOR = "Frankle et al. 2020 (arXiv 1912.05671) for barriers; second-order expansion"
_POINT = "repsim: one point of the barrier path (Frankle et al. 2020, arXiv 1912.05671)"
_AT_BEST = "at the parent that is best in the language"


def _of(
    tier: Any, name: str, label: str, definition: str, direction: int, source: str,
    *, over: str = "", worst: Any = "", language: bool = False, **more: Any,
) -> list[FeatureSpec]:  # fmt: skip
    """A feature; of several pairs or parents the mean, and beside it the worst of them."""
    if not worst:
        return [FeatureSpec(name, tier, label, definition, language, direction, source, **more)]
    flag = more.get("flag", False)
    return [
        FeatureSpec(name, tier, label, f"{definition}; mean over {over}s", language, direction,
                    source, worst, **more),
        FeatureSpec(f"{name}_worst", tier, f"{label}, worst",
                    f"{definition}; the {over} with the {worst}", language, direction, source,
                    flag=flag),
    ]  # fmt: skip


def _as_merged(
    tier: Any, name: str, label: str, direction: int, raw: Sequence[str],
    *, language: bool = True, partly: bool = False,
) -> list[FeatureSpec]:  # fmt: skip
    """A feature read on the rung that the alignment leaves: none, permutation, orthogonal."""
    after = dict(zip(("none", "permutation", "orthogonal"), raw, strict=True))
    text = "; ".join(f"{one} if the alignment is {way}" for way, one in after.items())
    return [
        FeatureSpec(name, tier, label, text, language, direction, "repsim", use="measured",
                    by_alignment=after, partly=partly),
    ]  # fmt: skip


def _metadata() -> list[FeatureSpec]:
    one = partial(_of, "T0")
    pair = partial(_of, "T0", over="pair", worst="least")
    parent = partial(_of, "T0", over="parent", worst="most", use="history")
    language = partial(_of, "T0", language=True)
    return [
        *one("k", "number of parents", "how many models are merged", -1,
             "merging scaling laws (arXiv 2509.24244)", use="measured"),
        *one("parameters_log10", "parameters, log10", "log10 of the mean number of parameters", +1,
             "Yadav et al. 2024 (arXiv 2410.03617): larger models merge better"),
        *one("tokens_log10", "tokens, log10", "log10 of the tokens of the shortest history", 0,
             _DESCRIBES),
        *one("update_scale", "sum of weights of the updates",
             "factor by which differences to the base are added up; 1 for a mean", 0, _ARITHMETIC,
             use="measured", of_recipe=True),
        *one("density", "share of each update that is kept",
             "entries of the differences to the base that are not dropped; 1 for a mean", 0, _TIES,
             use="measured", of_recipe=True),
        *pair("token_overlap", "tokens in common", "Jaccard overlap of the sets of token strings",
              +1, _CHECK, use="measured"),
        *pair("same_architecture", "same architecture",
              "1 if family, heads, positions, activation and norms agree", +1, _CHECK, flag=True),
        *pair("same_shape", "same shapes",
              "1 if all merged tensors have the same names and shapes", +1, _CHECK, flag=True),
        *pair("same_tokenizer", "same tokenizer", "1 if both cut any text into the same ids", +1,
              _CHECK, flag=True),
        *pair("shared_init", "same initial weights (stated)",
              "1 if provenance states one set of initial weights, 0 if two, unknown if it says "
              "nothing", +1, _FORK, use="history", shown=True, flag=True),
        *pair("fork_fraction", "share of training in common",
              "tokens read as one model over all tokens, of the parent for which it is less", +1,
              _FORK, use="history", shown=True),
        *parent("own_share", "share of training alone", "tokens of the last phase over all tokens",
                -1, _DOSE),
        *parent("update_budget", "budget of updates, log10",
                "log10 of peak learning rate times square root of the updates of the last phase",
                -1, "PRISM: the update grows with rate and the square root of tokens"),
        *language("speakers", "share of parents of the language",
                  "share of parents that state the language as theirs", +1, _ALIKE,
                  use="languages"),
        *language("exposure", "share of training in the language",
                  "share of the tokens of its whole history, mean over parents", +1, _ALIKE,
                  use="history"),
        *language("exposure_worst", "share of training in the language, least parent",
                  "share of the tokens of its whole history, of the parent that read least of it",
                  +1, _ALIKE, use="history"),
        *pair("language_overlap", "languages in common",
              "Jaccard overlap of the languages that the parents state", 0, _DESCRIBES,
              use="languages"),
    ]  # fmt: skip


def _weights() -> list[FeatureSpec]:
    one = partial(_of, "T1")
    less = partial(_of, "T1", over="pair", worst="least")
    more = partial(_of, "T1", over="pair", worst="most")
    used: Any = {"use": "measured"}
    parts = {
        "attention": "attention", "mlp": "the MLPs", "early": "the early third of the blocks",
        "middle": "the middle third of the blocks", "late": "the late third of the blocks",
    }  # fmt: skip
    distances = (
        "weight_distance", "quotient_distance_permutation", "quotient_distance_orthogonal"
    )  # fmt: skip
    return [
        *_as_merged("T1", "distance_as_merged", "relative distance as merged", -1, distances,
                    language=False),
        *_as_merged("T1", "distance_as_merged_worst", "relative distance as merged, worst pair", -1,
                    [f"{name}_worst" for name in distances], language=False),
        *less("shared_origin", "common origin found in the weights",
              "1 if MLP units of one number are more alike than under a random order by 6 standard "
              "deviations", +1, _MANTEL, shown=True, flag=True),
        *less("weight_cosine", "weight cosine",
              "cosine of two matrices, mean over the matrices inside blocks", +1, _COSINE, **used,
              shown=True),
        *less("weight_cosine_least", "weight cosine, least tensor",
              "cosine of that matrix inside blocks for which it is least", +1, _COSINE, **used),
        *more("weight_distance", "relative distance",
              "distance of all matrices inside blocks over the mean of their norms", -1, _DISTANCE,
              shown=True),
        *less("weight_cosine_embedding", "weight cosine, embedding",
              "cosine of the embeddings after the mean row was taken away", +1, _COSINE, **used),
        *more("weight_distance_norms", "relative distance of norm weights",
              "distance of all gains of norms over the mean of their norms", -1, _DISTANCE, **used),
        *one("interference", "interference",
             "square root of the variance across models, summed over the body, over the norm of "
             "the base; without a base, over the norm of the mean of the models", -1, _PRISM,
             **used),
        *_of("T1", "update_size", "update size",
             "norm of model minus base over the norm of the base, body; without a base, of model "
             "minus mean of the models over the norm of that mean", -1, _PRISM, over="parent",
             worst="most", **used, shown=True),
        *less("unit_match", "identity match of MLP units",
              "share of MLP units whose most similar unit in the other model, by the cosine of the "
              "weights that feed it, bears their number; beyond chance, mean of both ways and all "
              "blocks", +1, _REBASIN, shown=True),
        *less("origin_score", "score of a common origin",
              "similarity of MLP units of one number between that of any two (0) and that of each "
              "unit with the one most similar to it (1), mean over blocks", +1, _MANTEL, **used),
        *less("subspace_overlap", "overlap of singular subspaces",
              "squared cosine of principal angles of the leading left and right singular subspaces "
              "(90 % of energy, at most an eighth of the side), beyond chance, mean over sampled "
              "matrices", +1, _ISO, **used),
        *more("weight_distance_embedding", "relative distance, embedding",
              "distance of embedding and head over the mean of norms", -1, _DISTANCE),
        *more("norm_gap", "gap of norms",
              "absolute log ratio of the norms of all matrices inside blocks", -1, _DESCRIBES),
        *less("sign_agreement", "signs in common",
              "share of values of the body that have one sign in both models", 0, _TIES),
        *less("head_match", "identity match of heads",
              "share of attention heads whose most similar head in the other model, by the cosine "
              "of what they write, bears their number; beyond chance", +1, _REBASIN),
        *more("stable_rank_gap", "gap of stable ranks",
              "absolute log ratio of stable ranks, mean over sampled matrices", 0, _DESCRIBES),
        *more("effective_rank_gap", "gap of effective ranks",
              "absolute log ratio of effective ranks (Roy and Vetterli 2007), mean over sampled "
              "matrices", 0, _DESCRIBES),
        *less("update_cosine", "cosine of updates",
              "cosine of model minus base, all matrices inside blocks", 0,
              "task arithmetic (arXiv 2212.04089)"),
        *less("update_sign_agreement", "signs of updates in common",
              "share of values whose updates have one sign", 0, _TIES),
        *less("update_subspace_overlap", "overlap of subspaces of updates",
              "as subspace_overlap, of model minus base", 0, _ISO),
        *more("quotient_distance_permutation", "relative distance up to permutation",
              "relative distance of the body that remains after the best re-ordering found", -1,
              _REBASIN),
        *more("quotient_distance_orthogonal", "relative distance up to rotation",
              "relative distance of the body, norms folded, that remains after the best rotation "
              "of the residual stream, bases of heads and order of units found", -1, _THEUS),
        *more("quotient_distance_embedding", "relative distance of embeddings up to rotation",
              "relative distance of the embeddings that remains after that rotation", -1, _THEUS),
        *more("alignment_gain_permutation", "gain of permutation",
              "share of the distance of the body that re-ordering takes away", 0, _REBASIN),
        *more("alignment_gain_orthogonal", "gain of rotation",
              "share of the distance of the body that rotation takes away", 0, _THEUS),
        *(spec for part, where in parts.items()
          for spec in less(f"weight_cosine_{part}", f"weight cosine, {part}",
                           f"cosine of two matrices, mean over those of {where}", +1, _COSINE)),
        *one("interference_mlp", "interference, MLP", "as interference, of the MLPs alone", -1,
             _PRISM),
        *one("retained_update", "retained update",
             "norm of the mean update over the mean norm of the updates, body", 0, _PRISM),
        *one("stable_rank", "stable rank",
             "squared Frobenius norm over squared spectral norm, over the shorter side, mean over "
             "sampled matrices and models", 0, _DESCRIBES),
    ]  # fmt: skip


def _activations() -> list[FeatureSpec]:
    from repsim.measures import get_measure

    measures = {name: get_measure(name) for name in LADDER}
    rungs = {name: measure.rung.name for name, measure in measures.items() if measure.rung}
    found = [
        spec for section in SECTIONS[1:]
        for spec in _as_merged(
            "T2", f"similarity_as_merged_{section}", f"similarity as merged, {section}", +1,
            [f"{name}_{section}" for name in ("unit_correlation", "permutation", "procrustes")])
    ]  # fmt: skip
    found += _as_merged(
        "T2", "hidden_as_merged_middle", "similarity of hidden units as merged, middle", +1,
        ["hidden_unit_correlation_middle", "hidden_cka_middle", "hidden_cka_middle"],
    )  # fmt: skip

    def add(
        name: str, label: str, text: str, direction: int = +1, worst: str = "least",
        language: bool = True,
    ) -> None:  # fmt: skip
        found.extend(
            _of("T2", name, label, text, direction, _NESTING, over="pair", worst=worst,
                language=language, use="measured" if name == "cka_middle" else "",
                shown=name in ("unit_correlation_middle", "cka_middle", "gap_l2_l0_middle"))
        )  # fmt: skip

    for section, (name, measure) in itertools.product(SECTIONS, measures.items()):
        where = "the embedding" if section == "embed" else f"{section} blocks"
        add(f"{name}_{section}", f"{rungs[name]} {measure.label}, {section}",
            f"{measure.label} of the parents on the same text in {where}, {_CALIBRATED}",
        )  # fmt: skip
        if name == "cka":
            add(f"cka_partial_{section}", f"L2 {measure.label} without length, {section}",
                f"{measure.label} in {where} after log sentence length was regressed out",
            )  # fmt: skip
    for section, name in itertools.product(SECTIONS[1:], HIDDEN):
        label = measures[name].label
        add(f"hidden_{name}_{section}", f"{rungs[name]} {label} of hidden units, {section}",
            f"{label} of the hidden units of the feed-forward parts on the same text in {section} "
            f"blocks, {_CALIBRATED}")  # fmt: skip
    for section, (gap, (high, low, meaning)) in itertools.product(SECTIONS, GAPS.items()):
        add(f"{gap}_{section}", f"{measures[high].label} minus {measures[low].label}, {section}",
            f"calibrated {high} minus calibrated {low}: {meaning}; mean over pairs", 0,
            worst="")  # fmt: skip
    for name in across():
        label = measures[name].label
        add(f"parallel_{name}", f"{label} across translations",
            f"{label} of one parent in one language and another in another, middle layer, mean "
            f"over ordered pairs of languages, {_CALIBRATED}", language=False)  # fmt: skip
        add(f"own_{name}", f"{label}, each in its own language",
            f"{label} at the middle layer, each parent reading the language it knows best, "
            f"{_CALIBRATED}", language=False)  # fmt: skip
    return found + _outputs()


def _outputs() -> list[FeatureSpec]:
    one = partial(_of, "T2", language=True)
    pair = partial(one, over="pair")
    return [
        *pair("output_kl", "KL between outputs",
              "mean of KL(a||b) and KL(b||a) of the next-token distributions in bits per token of "
              "the same text", -1, _KL, worst="most", shown=True),
        *one("output_kl_relative", "KL between outputs over headroom",
             "output_kl in bits, over the bits that the best parent saves against unigrams; mean "
             "over pairs", -1, _KL, use="measured"),
        *pair("output_agreement", "agreement of outputs",
              "share of tokens for which both parents rank the same next token first", +1, _KL,
              worst="least", use="measured"),
        *one("parent_headroom", "share of bits that the best parent saves against counting tokens",
             "(floor - bits) / floor of the parent that is best in the language", +1, _HEADROOM,
             use="measured"),
        *one("partner_headroom",
             "share of bits that the weakest parent saves against counting tokens",
             "(floor - bits) / floor of the parent that is worst in the language", +1, _HEADROOM,
             use="measured"),
        *one("headroom_gap", "gap of headroom",
             "headroom of the best minus that of the worst parent", -1, _HEADROOM),
    ]  # fmt: skip


def _gradients() -> list[FeatureSpec]:
    one = partial(_of, "T3", language=True)
    used: Any = {"use": "measured"}
    return [
        *one("taylor_retention", "retention to second order",
             f"1 - (g.d + 1/2 d'Hd) / (floor - loss), d the step to the average, {_AT_BEST}", +1,
             _TAYLOR, **used),
        *one("first_order_relative", "first-order change over headroom",
             "first_order over what the parent saves against unigrams", -1, _TAYLOR, **used),
        *one("quadratic_barrier_relative", "quadratic barrier over headroom",
             "quadratic_barrier over what the best parent saves against unigrams", -1, _TAYLOR,
             **used),
        *one("gradient_cosine", "cosine of gradients",
             "cosine of the parents' gradients on the same text", +1, _MISMATCH, over="pair",
             worst="least", **used),
        *one("gradient_distance", "distance of gradients",
             "||g_a - g_b|| / sqrt(||g_a|| ||g_b||) on the same text; mean over pairs", -1, _PROBE),
        *one("gradient_norm", "norm of the gradient",
             "||g|| ||w|| / loss, the relative change of the loss for a relative change of the "
             f"weights, {_AT_BEST}", 0, _MISMATCH),
        *one("gradient_norm_worst", "norm of the gradient, worst",
             "gradient_norm, largest over parents", -1, _MISMATCH),
        *one("first_order", "first-order change",
             f"g.d in bits per byte, d the step to the average, {_AT_BEST}", -1, _TAYLOR),
        *one("descent_cosine", "cosine of descent and merge",
             f"cosine of -g and the step to the average, {_AT_BEST}", +1, _TAYLOR),
        *one("curvature", "second-order change", f"1/2 d'Hd in bits per byte, {_AT_BEST}", -1,
             _TAYLOR),
        *one("curvature_relative", "second-order change over headroom",
             "curvature over what the parent saves against unigrams", -1, _TAYLOR),
        *one("sharpness", "sharpness towards the merge",
             f"d'Hd / ||d||^2 times ||w||^2 / loss, {_AT_BEST}", -1, _TAYLOR),
        *one("quadratic_barrier", "quadratic barrier",
             "mean over parents of 1/2 d'Hd in bits per byte; for two, 1/8 D'HD of the way between "
             "them", -1, _TAYLOR),
    ]  # fmt: skip


def _oracle() -> list[FeatureSpec]:
    suffixes = {"none": "", "permutation": "_permutation", "orthogonal": "_orthogonal"}
    tried = {
        "retention": ("retention", "(floor - average) / (floor - best parent)"),
        "worst_retention": ("worst retention", "the least retention over languages"),
        "advantage": ("advantage", "what the average keeps over all languages minus what the best "
                      "single parent keeps"),
    }  # fmt: skip
    found = [
        spec for what in ("retention", "worst_retention")
        for spec in _as_merged(
            "oracle", f"oracle_{what}_as_merged", f"trial of the average as merged, {what}", +1,
            [f"oracle_{what}{suffix}" for suffix in suffixes.values()],
            language=what == "retention", partly=True)
    ]  # fmt: skip
    for alignment, suffix in suffixes.items():
        how = f" after {alignment} alignment" if suffix else ""
        for what, (label, text) in tried.items():
            found += _of(
                "oracle", f"oracle_{what}{suffix}", f"{label} of the average{how}",
                f"{text} on a few sentences, of the plain average{how}: an evaluation, not a "
                "forecast", +1, _POINT, language=what == "retention",
            )  # fmt: skip
    return found


def across() -> list[str]:
    """Measures that compare translations: blind to coordinates, for units mean nothing; cheap."""
    from repsim.measures import get_measure

    return [
        name for name in LADDER
        if not get_measure(name).is_expensive and not unit_by_unit(name)
    ]  # fmt: skip


def unit_by_unit(measure: str) -> bool:
    """Whether a measure is defined only where unit i of one model can be unit i of the other."""
    from repsim.measures import get_measure

    rung = get_measure(measure).rung
    return rung is not None and rung.name in ("L0", "L1")


class _Features(Registry[FeatureSpec]):
    """Specs by name; rungs and labels of measures are read when one is asked for."""

    def _discover(self) -> None:
        if not self._discovered:
            for group in (_metadata, _weights, _activations, _gradients, _oracle):
                for spec in group():
                    self.add(spec.name, spec)
            super()._discover()


#: Every feature there is. `FEATURES[name]`, `FEATURES.names()`.
FEATURES: Registry[FeatureSpec] = _Features("feature", entry_point_group="repsim.features")


def specs(tier: str = "") -> list[FeatureSpec]:
    """All features, or those of one tier, in the order of the list."""
    every = [FEATURES[name] for name in FEATURES.names()]
    return [spec for spec in every if spec.tier == tier or not tier]


def measured_names(tier: str) -> list[str]:
    """Names that a tier emits."""
    return [spec.name for spec in specs(tier) if not spec.by_alignment and not spec.of_recipe]


def summarised(name: str, values: Sequence[float], language: str = "") -> list[FeatureValue]:
    """Mean over pairs or parents, and the worst if one is declared; NaN if one of them is."""
    worst = FEATURES[name].worst
    unknown = any(math.isnan(value) for value in values)
    mean = math.nan if unknown else sum(values) / len(values)
    found = [FeatureValue(name, mean, language)]
    if worst:
        extreme = min(values) if worst == "least" else max(values)
        found.append(FeatureValue(f"{name}_worst", math.nan if unknown else extreme, language))
    return found
