"""T1: what the weights themselves say, streamed tensor by tensor from the files.

*Body* means the matrices of attention and MLP inside the blocks; embeddings and norms, which
resemble each other between any two models of a family, are kept apart.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from repsim.mergeability.features.catalogue import summarised
from repsim.mergeability.features.fit import Weights
from repsim.mergeability.features.layout import Place
from repsim.mergeability.features.moments import Moments, total
from repsim.mergeability.features.opened import ModelLike, OpenedModel, OpenedParents, opened
from repsim.mergeability.features.quotient import quotient_distance, why_not_searched
from repsim.mergeability.features.scan import Scan, scan_weights
from repsim.mergeability.features.spec import WITHOUT_BASE, FeatureValue, TierResult
from repsim.mergeability.features.spectra import MOST_SIDE, Spectrum, gap, subspace_overlap
from repsim.mergeability.features.units import FOUND, MOST_UNITS, match_units

#: What the search for symmetries gives.
QUOTIENT = (
    "quotient_distance_permutation", "quotient_distance_orthogonal", "quotient_distance_embedding",
    "alignment_gain_permutation", "alignment_gain_orthogonal",
)  # fmt: skip
Pair = tuple[int, int]


def weight_features(
    models: OpenedParents | Sequence[ModelLike],
    *,
    base: ModelLike | None = None,
    quotient: bool = True,
    config: Any = None,
    max_memory: int = 2 * 2**30,
    say: Callable[[str], None] | None = None,
) -> TierResult:
    """Distances, cosines, unit identity, spectra and symmetry of the weights of some models.

    Weights are read once, side by side, through memory maps; beside the page cache that takes a few
    hundred MB whatever the size of the models. The search for symmetries alone holds models whole;
    it is left out, with a note, where that would take more than `max_memory`, and above a width of
    2048. Subspaces and units of large matrices are taken from a sample that is always the same:
    evenly spaced rows and columns, at most 512 a side, of the blocks in the middle of each third
    of the depth; 512 evenly spaced units in every block.

    The bodies must be of one shape. Where rows of the embeddings stand for different tokens,
    embeddings are not compared, and symmetries, which are found through them, are not searched.
    Features of pairs come as mean over pairs and as worst pair (`_worst`), the same for two models.
    What needs a base is NaN without one.

    Args:
        models: Two models or more of one shape, or a group that is open: folders, names,
            `ModelRef`, causal models in memory, or state dicts with a `config`.
        base: Common ancestor, if it is known: updates are taken from there.
        quotient: Whether symmetries are searched; without, their features are not given.
        config: `transformers` config of models given as state dicts.
        max_memory: Bytes that the search for symmetries may hold.
        say: Told of progress.

    Raises:
        IncompatibleModelsError: The models are not of one family and shape.
        InputError: A model is not there, its files are damaged, or hold NaN or infinity.
        UsageError: Fewer than two models, or a state dict without a config.

    Example:
        >>> lives = weight_features(["zoo:eng-fork", "zoo:deu-fork"], quotient=False).as_dict()
        >>> apart = weight_features(["zoo:eng-1", "zoo:eng-2"], quotient=False).as_dict()
        >>> lives["weight_cosine"] > 0.9, abs(apart["weight_cosine"]) < 0.05
        (True, True)
        >>> lives["shared_origin"], apart["shared_origin"]
        (1.0, 0.0)
    """
    started = time.process_time()
    with opened(models, config=config) as parents:
        others = [] if base is None else [OpenedModel(base, config=config)]
        found = parents.weights(*others)
        weights, origin = found[: len(parents.models)], found[-1] if others else None
        scan = scan_weights(weights, origin)
        pairs = list(itertools.combinations(range(len(weights)), 2))
        each = [_of_pair(scan, pair, origin is not None) for pair in pairs]
        notes = list(_notes(scan, origin))
        if quotient:
            distances, why = _quotients(weights, pairs, scan.no_rows, max_memory, say)
            each = [{**one, **other} for one, other in zip(each, distances, strict=True)]
            notes += why
    values = [
        value for name in each[0] for value in summarised(name, [one[name] for one in each])
    ]  # fmt: skip
    values += _of_group(scan, origin)
    return TierResult("T1", tuple(values), time.process_time() - started, tuple(notes))


def _of_pair(scan: Scan, pair: Pair, has_base: bool) -> dict[str, float]:
    body = scan.sums(lambda place: place.is_body)
    whole = total(body, scan.k)
    norms = whole.norms[list(pair)]
    return {
        **_cosines(scan, pair),
        "weight_distance": whole.distance(*pair),
        "weight_distance_embedding": _group(scan, "embedding").distance(*pair),
        "weight_distance_norms": _group(scan, "norm").distance(*pair),
        "norm_gap": gap([float(norm) for norm in norms]) if all(norms) else math.nan,
        "sign_agreement": _ratio(whole.same_signs[pair], whole.signs[pair]),
        **_identity(scan, pair),
        **_spectral(scan.spectra, pair),
        **_of_updates(scan, whole, pair, has_base),
    }


def _cosines(scan: Scan, pair: Pair) -> dict[str, float]:
    def mean(wanted: Callable[[Place], bool]) -> float:
        return _mean(found.cosine(*pair) for found in scan.sums(wanted))

    every = [found.cosine(*pair) for found in scan.sums(lambda place: place.is_body)]
    known = [value for value in every if not math.isnan(value)]
    embedding = scan.sums(lambda place: place.group == "embedding")
    return {
        "weight_cosine": _mean(every),
        "weight_cosine_least": min(known, default=math.nan),
        "weight_cosine_attention": mean(lambda p: p.is_body and p.group == "attention"),
        "weight_cosine_mlp": mean(lambda p: p.is_body and p.group == "mlp"),
        "weight_cosine_early": mean(lambda p: p.is_body and p.third == "early"),
        "weight_cosine_middle": mean(lambda p: p.is_body and p.third == "middle"),
        "weight_cosine_late": mean(lambda p: p.is_body and p.third == "late"),
        "weight_cosine_embedding": _mean(found.cosine(*pair, centred=True) for found in embedding),
    }


def _identity(scan: Scan, pair: Pair) -> dict[str, float]:
    units = match_units(scan.similarities(scan.units, *pair))
    heads = match_units(scan.similarities(scan.heads, *pair))
    found = math.nan if math.isnan(units.deviations) else float(units.deviations > FOUND)
    return {
        "unit_match": units.match,
        "head_match": heads.match,
        "origin_score": units.score,
        "shared_origin": found,
    }


def _spectral(spectra: Sequence[Sequence[Spectrum | None]], pair: Pair) -> dict[str, float]:
    both = [(a, b) for a, b in ((each[pair[0]], each[pair[1]]) for each in spectra) if a and b]
    return {
        "subspace_overlap": _mean(subspace_overlap(a, b) for a, b in both),
        "stable_rank_gap": _mean(gap([a.stable_rank, b.stable_rank]) for a, b in both),
        "effective_rank_gap": _mean(gap([a.effective_rank, b.effective_rank]) for a, b in both),
    }


def _of_updates(scan: Scan, whole: Moments, pair: Pair, has_base: bool) -> dict[str, float]:
    if not has_base:
        names = ("update_cosine", "update_sign_agreement", "update_subspace_overlap")
        return dict.fromkeys(names, math.nan)
    return {
        "update_cosine": whole.update_cosine(*pair),
        "update_sign_agreement": _ratio(whole.same_updates[pair], whole.update_signs[pair]),
        "update_subspace_overlap": _spectral(scan.update_spectra, pair)["subspace_overlap"],
    }


def _of_group(scan: Scan, base: Weights | None) -> list[FeatureValue]:
    whole = total(scan.sums(lambda place: place.is_body), scan.k)
    mlp = total(scan.sums(lambda place: place.is_body and place.group == "mlp"), scan.k)

    def interference(sums: Moments) -> float:
        scale = sums.mean_square if base is None else sums.base
        return math.sqrt(sums.variance / scale) if scale else math.nan

    if base is None:
        # Squared distance of model i from the mean, by the distances of all pairs.
        squares, scale = whole.squares.mean(1) - whole.variance, whole.mean_square
    else:
        squares, scale = whole.updates.diagonal(), whole.base
    sizes = [
        math.sqrt(max(float(square), 0.0) / scale) if scale else math.nan for square in squares
    ]
    ranks = [spectrum.stable_rank for each in scan.spectra for spectrum in each if spectrum]
    norms = whole.updates.diagonal() ** 0.5
    mean = math.sqrt(max(float(whole.updates.sum()), 0.0)) / scan.k
    kept = mean / float(norms.mean()) if base is not None and norms.any() else math.nan
    return [
        *summarised("update_size", sizes),
        FeatureValue("stable_rank", _mean(ranks)),
        FeatureValue("interference", interference(whole)),
        FeatureValue("interference_mlp", interference(mlp)),
        FeatureValue("retained_update", kept),
    ]


def _quotients(
    models: Sequence[Weights],
    pairs: Sequence[Pair],
    no_rows: str,
    max_memory: int,
    say: Callable[[str], None] | None,
) -> tuple[list[dict[str, float]], list[str]]:
    """Quotient distances of each pair, and why some are not there."""
    unknown = dict.fromkeys(QUOTIENT, math.nan)
    if why := no_rows or why_not_searched(models[0], max_memory):
        return [dict(unknown) for _ in pairs], [f"no distance up to symmetry: {why}"]
    values, notes = [], []
    for i, j in pairs:
        found = dict(unknown)
        for method in ("permutation", "orthogonal"):
            if say:
                say(f"symmetries: {method} of '{models[j].name}' to '{models[i].name}'")
            result = quotient_distance(models[i], models[j], method)
            if isinstance(result, str):
                notes.append(f"no distance up to {method}: {result}")
                continue
            found[f"quotient_distance_{method}"] = result.after
            found[f"alignment_gain_{method}"] = result.gain
            if method == "orthogonal":
                found["quotient_distance_embedding"] = result.embedding
        values.append(found)
    return values, list(dict.fromkeys(notes))


def _group(scan: Scan, group: str) -> Moments:
    return total(scan.sums(lambda place: place.group == group), scan.k)


def _mean(values: Iterable[float]) -> float:
    """Mean of those that are defined: a matrix of zeros has no cosine."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def _notes(scan: Scan, base: Weights | None) -> Iterator[str]:
    if base is None:
        yield WITHOUT_BASE
    if scan.no_rows:
        yield f"embeddings are not compared: {scan.no_rows}"
    if not scan.units:
        yield "the family does not say which weights belong to a unit: no identity match"
    bodies = [place for place, _ in scan.moments if place.is_body]
    if not bodies:
        yield "no matrix inside a block was recognised: nothing is known of the body"
    elif len(scan.spectra) < len(bodies) or max(max(p.shape) for p in bodies) > MOST_SIDE:
        yield (
            f"spectra and subspaces: {len(scan.spectra)} of {len(bodies)} matrices, at most "
            f"{MOST_SIDE} evenly spaced rows and columns of each"
        )
    largest = max((len(each.squares[0]) for each in scan.units.values()), default=0)
    if largest == MOST_UNITS:
        yield f"identity match of MLP units: {MOST_UNITS} evenly spaced units of each block"
