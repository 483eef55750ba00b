"""Bring models into the coordinates of a reference before they are merged."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError, unknown_name
from repsim.merging.align.activation_matching import UnitActivations, match_activations
from repsim.merging.align.apply import AlignmentMap, apply_map, identity_element
from repsim.merging.align.attention import Method
from repsim.merging.align.blocks import mapped, norm_of, open_blocks, total_distance, whole
from repsim.merging.align.checking import TOLERANCE, as_source, is_named, output_difference
from repsim.merging.align.heads import (
    holds_own_head,
    in_single_precision,
    stored_config,
    with_own_heads,
)
from repsim.merging.align.learned import Learned, Learning, Midpoint, Say, composed, learn_maps
from repsim.merging.align.matching import Descent, match_weights
from repsim.merging.align.solvers import distance
from repsim.merging.align.weights import StateDict, Weights, check_known, names_in
from repsim.merging.checkpoint import TensorSource
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import WeightSpaces
from repsim.models.inspect import ModelLike, locate, read_config

if TYPE_CHECKING:
    import torch

#: A state dict, a source of tensors, or what names a model.
Model = StateDict | TensorSource | ModelLike
Match = Literal["weights", "activations"]
AnyMethod = Literal["permutation", "orthogonal", "learned"]


@dataclasses.dataclass(frozen=True)
class ModelAlignment:
    """What alignment did to one model.

    Attributes:
        method: "permutation", "orthogonal" or "learned".
        match: "weights" or "activations".
        rounds: Rounds of the coordinate descent; 0 for activation matching.
        converged: Whether the last round brought nothing more.
        distance_before: Distance to the reference over the reference's norm; of the folded models
            if `method` is "orthogonal".
        distance_after: The same after the map.
        moved: Key of a space -> how far its element is from changing nothing: the share of units
            that moved, or `||M - I|| / sqrt(2 n)`, which is about 1 for a random rotation.
        output_change: Largest change of an output on random tokens, relative to the largest output;
            None if it was not checked.
        note: What a reader should know.
        learned: How the learning went, for "learned".
    """

    method: AnyMethod
    match: Match
    rounds: int
    converged: bool
    distance_before: float
    distance_after: float
    moved: dict[str, float]
    output_change: float | None
    note: str = ""
    learned: Learned | None = None

    @property
    def improved(self) -> bool:
        """Whether the model came nearer to the reference."""
        return self.distance_after < self.distance_before

    @property
    def function_kept(self) -> bool | None:
        """Whether outputs stayed as they were up to rounding; None if that was not checked."""
        return None if self.output_change is None else self.output_change <= TOLERANCE


@dataclasses.dataclass(frozen=True)
class AlignmentResult:
    """Models in the coordinates of the reference, ready to be merged.

    Attributes:
        sources: Models whose tensors are computed when they are read, the reference first. It is
            the same as given, except that rotation needs its norms folded too, and weights of 16
            bits in float32. If only some models tie their heads, all have a head of their own.
        maps: For each other model, key of a space -> element; empty if it was left as it was.
        report: For each other model, what was done.
        config: Config of the states; folding unties the head (`tie_word_embeddings` false).
    """

    sources: list[TensorSource]
    maps: list[AlignmentMap]
    report: list[ModelAlignment]
    config: Any

    @functools.cached_property
    def states(self) -> list[dict[str, torch.Tensor]]:
        """State dicts, in memory: the tensors of `sources`."""
        return [{name: source.read(name) for name in source.headers} for source in self.sources]


def align(
    reference: Model,
    others: Sequence[Model],
    config: Any = None,
    *,
    method: AnyMethod = "permutation",
    match: Match = "weights",
    activations: Sequence[UnitActivations] | None = None,
    residual: bool = True,
    max_iterations: int = 50,
    seed: int = 0,
    check: bool = True,
    tied: Sequence[bool] | None = None,
    windows: torch.Tensor | None = None,
    learning: Learning | None = None,
    shares: torch.Tensor | None = None,
    cache: Path | None = None,
    on_round: Callable[[int, float], None] | None = None,
    on_update: Say | None = None,
) -> AlignmentResult:
    """Re-order or rotate models so that their weights lie nearest to a reference's.

    What each model computes stays the same; that is checked on random tokens. Alignment pays for
    models that were initialised apart. Models of one initialisation already share coordinates:
    pass `residual=False`, or do not align them.

    Models are read by parts of blocks (attention, feed-forward): about three parts in float64 are
    held, and a few squares of the width and of the number of units. "learned" holds both models.

    Args:
        reference: The model that the others are brought to: its tensors by name, or (without
            `config`) a folder, "zoo:NAME" or the id of a hub model that is on this machine.
        others: The other models, of the same config.
        config: `transformers` config of all of them; not changed.
        method: "permutation" re-orders hidden units, heads, bases inside heads and the residual
            stream. "orthogonal" folds the norms, then rotates the stream and the bases inside heads
            (queries and keys only as rotary positions allow) and re-orders units and heads.
            "learned" goes on from there: rotations, bases inside heads and scales of gated units
            are trained so that the point midway between the models predicts `windows`.
        match: "weights" minimises the distance by coordinate descent; "activations" pairs what
            behaves alike on the same text.
        activations: For "activations", those of the reference and then of each other model; see
            `collect_activations`.
        residual: Whether the residual stream is aligned.
        max_iterations: Most rounds of the descent.
        seed: Seed of the random tokens of the check; matching itself draws nothing.
        check: Whether outputs are compared before and after, which builds the model twice.
        tied: Whether the head of each model is its embedding, the reference first; as the configs
            of folders, or else `config` and the tensors, say if None.
        windows: For "learned", token ids of text, `[n, context + 1]`; of both models' languages.
        learning: For "learned", how long and how; see `Learning`.
        shares: For "learned", share of each model in each row of tokens, `[models, rows]`, if it is
            not equal; see `repsim.merging.token_weights`.
        cache: For "learned", a file from which a stopped call goes on.
        on_round: Called with the number of each round and the distance after it.
        on_update: For "learned", called with update, number of updates and loss.

    Returns:
        Aligned state dicts, maps, and a report. Types stay, except that rotated weights of 16 bits
        are float32.

    Raises:
        IncompatibleModelsError: The family declares no symmetries, cannot be rotated, or the
            tensors are not those of the config.
        InputError: A tensor holds NaN or infinity.
        UsageError: An unknown method, or activations that are missing or do not fit.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> models = [tiny_model("llama", head=True, seed=seed) for seed in (0, 1)]
        >>> a, b = (model.state_dict() for model in models)
        >>> result = align(a, [b], models[0].config)
        >>> result.report[0].improved, result.report[0].function_kept
        (True, True)
    """
    _check_arguments(method, match, activations, len(others), max_iterations)
    if (method == "learned") != (windows is not None):
        raise UsageError(
            "learned alignment needs text, and nothing else does",
            hint='give windows= (token ids) with method="learned"',
        )
    if windows is not None and not len(windows):
        raise InputError("there is no text to learn an alignment on")
    config, opened, found_ties = _opened((reference, *others), config)
    tied = found_ties if tied is None else tied
    spec, precision = spec_for(config.model_type), ""
    closed: Method = "permutation" if method == "permutation" else "orthogonal"
    if any(tied) and not all(tied):
        opened = with_own_heads(opened, tied, spec.spaces(config))
        config = stored_config(config, tied=False)
    spaces = spec.spaces(config)
    if closed == "orthogonal":
        opened, precision = in_single_precision(opened)
    first, *rest = opened
    _check_same(opened, spaces)
    config_after, own = copy.deepcopy(config), spaces
    folded = closed == "orthogonal"
    a = open_blocks(first, spaces, folded=folded)
    if folded:
        config_after.tie_word_embeddings, own = False, spaces.untied()
    result = AlignmentResult([mapped(first, a, own, {}) if folded else first], [], [], config_after)
    for number, source in enumerate(rest, start=1):
        b = open_blocks(source, spaces, folded=folded)
        if match == "activations" and activations is not None:
            maps = match_activations(
                a, b, own, activations[0], activations[number], method=closed, residual=residual
            )
            ends = (total_distance(a, b, own, {}), total_distance(a, b, own, maps))
            found = Descent(maps, ends, converged=True)
        else:
            found = match_weights(
                a, b, own, method=closed, residual=residual,
                max_iterations=max_iterations, on_round=on_round,
            )  # fmt: skip
        learned = None
        if windows is not None:
            kept = result.sources[0]
            like = ({name: kept.read(name) for name in kept.headers}, config_after)
            found, learned = _learn(
                (whole(a, own.layers), whole(b, own.layers)), found, own, like, windows,
                learning or Learning(), shares=_share_of(shares, number), cache=cache,
                on_update=on_update,
            )  # fmt: skip
        moved = mapped(source, b, own, found.maps)
        change, note = None, "outputs were not compared"
        if check:
            change, note = _compare((config, source), (config_after, moved), found.maps, seed)
        result.sources.append(moved)
        result.maps.append(found.maps)
        about = _report(norm_of(a, own.layers), found, own, (method, match), change, note)
        notes = "; ".join(part for part in (about.note, precision) if part)
        result.report.append(dataclasses.replace(about, learned=learned, note=notes))
    return result


def _learn(
    models: tuple[Weights, Weights],
    closed: Descent,
    spaces: WeightSpaces,
    like: tuple[StateDict, Any],
    windows: torch.Tensor,
    learning: Learning,
    *,
    shares: torch.Tensor | None,
    cache: Path | None,
    on_update: Say | None,
) -> tuple[Descent, Learned]:
    """Learned maps on top of a closed-form start, or of none where that predicts text better."""
    import torch

    a, b = models
    starts: dict[str, AlignmentMap] = {"orthogonal": closed.maps, "identity": {}}
    if learning.start != "auto":
        starts = {learning.start: starts[learning.start]}
    midpoints = {
        name: Midpoint(a, apply_map(b, spaces, maps), spaces, *like, shares=shares)
        for name, maps in starts.items()
    }
    with torch.no_grad():
        first = windows[: learning.batch]
        losses = {name: float(point.loss({}, first)) for name, point in midpoints.items()}
    start = min(losses, key=losses.__getitem__)
    found = learn_maps(midpoints[start], windows, learning, cache=cache, on_update=on_update)
    maps = composed(starts[start], found.maps)
    ends = (closed.distances[0], distance(a, apply_map(b, spaces, maps)))
    return Descent(maps, ends, converged=True), dataclasses.replace(found, start=start)


def _share_of(shares: torch.Tensor | None, number: int) -> torch.Tensor | None:
    """Share of a model in each row of tokens, beside the reference alone."""
    return None if shares is None else shares[number] / (shares[0] + shares[number])


def _opened(models: Sequence[Model], config: Any) -> tuple[Any, list[TensorSource], list[bool]]:
    """The config, the tensors of each model (of a named one its folder's), and its tie."""
    ties: list[bool | None] = []
    for model in models:
        if is_named(model):
            own = read_config(locate(model).folder)[0]
            config = own if config is None else config
            ties.append(bool(getattr(own, "tie_word_embeddings", False)))
        else:
            ties.append(None)
    if config is None:
        raise UsageError("tensors alone do not say what they are", hint="give `config` with them")
    sources = [as_source(model, f"model {n}") for n, model in enumerate(models, start=1)]
    said = bool(getattr(config, "tie_word_embeddings", False))
    spaces = spec_for(config.model_type).spaces(config)
    tied = [said if known is None else known for known in ties]
    for number, source in enumerate(sources):
        if number and ties[number] is None and holds_own_head(source, spaces):
            tied[number] = False
    return config, sources, tied


def _compare(
    before: tuple[Any, TensorSource], after: tuple[Any, TensorSource], maps: AlignmentMap, seed: int
) -> tuple[float | None, str]:
    """Change of the outputs from one (config, state dict) to another, and what to say of it."""
    (config, old), (config_after, new) = before, after
    order = maps.get("residual_permutation")
    try:
        change = output_difference(
            config, old, new, after_config=config_after, order=order, seed=seed
        )  # fmt: skip
    except IncompatibleModelsError as error:
        return None, f"outputs were not compared: {error.what}"
    if change <= TOLERANCE:
        return change, ""
    return change, "outputs changed: the map is not a symmetry of this model"


def _report(
    norm: float,
    found: Descent,
    spaces: WeightSpaces,
    how: tuple[AnyMethod, Match],
    change: float | None,
    note: str,
) -> ModelAlignment:
    norm = max(norm, 1e-300)
    before, after = found.distances[0] / norm, found.distances[-1] / norm
    notes = [note] if note else []
    if after >= before and how[0] != "learned":
        what = "the models share their coordinates" if not before else "aligning brought nothing"
        notes.append(f"{what}: the distance to the reference went from {before:.4g} to {after:.4g}")
    return ModelAlignment(
        method=how[0],
        match=how[1],
        rounds=len(found.distances) - 1 if how[1] == "weights" and how[0] != "learned" else 0,
        converged=found.converged,
        distance_before=before,
        distance_after=after,
        moved=_moved(found.maps, spaces),
        output_change=change,
        note="; ".join(notes),
    )


def _moved(maps: AlignmentMap, spaces: WeightSpaces) -> dict[str, float]:
    moved = {}
    for key, element in maps.items():
        same = identity_element(spaces[key])
        if element.is_floating_point():
            moved[key] = float((element - same).norm() / (2 * same.norm().square()).sqrt())
        else:
            moved[key] = float((element != same).double().mean())
    return moved


def _check_arguments(
    method: str,
    match: str,
    activations: Sequence[UnitActivations] | None,
    others: int,
    max_iterations: int,
) -> None:
    if max_iterations < 1:
        raise UsageError(f"alignment needs at least one round, {max_iterations} allowed")
    if method not in get_args(AnyMethod):
        raise unknown_name("alignment method", method, get_args(AnyMethod))
    if match not in ("weights", "activations"):
        raise unknown_name("way to match", match, ["weights", "activations"])
    if match == "activations" and (activations is None or len(activations) != others + 1):
        given = 0 if activations is None else len(activations)
        raise UsageError(
            f"matching by activations needs those of all {others + 1} models, {given} given",
            hint="give those of the reference first; see collect_activations",
        )


def _depth(model: TensorSource) -> int:
    """Number of blocks, by the first number in the names of their tensors."""
    found = (re.match(r".*?\.\d+\.", name) for name in model.headers)
    return len({match[0] for match in found if match})


def _check_same(models: Sequence[TensorSource], spaces: WeightSpaces) -> None:
    """Refuse models that do not fit each other before the work begins."""
    depths = [_depth(model) for model in models]
    for number, depth in enumerate(depths[1:], start=2):
        if depth != depths[0]:
            raise IncompatibleModelsError(
                f"the reference has {depths[0]} blocks and model {number} has {depth}",
                hint="alignment pairs block with block: only models of one depth can be aligned",
            )
    shapes = []
    for model in models:
        headers = model.headers
        check_known(headers, spaces)
        held = [(weight, names_in(weight, headers, spaces)) for weight in spaces.weights]
        shapes.append({w.keys: tuple(headers[names[0]].shape) for w, names in held if names})
    for number, other in enumerate(shapes[1:], start=2):
        for keys in {**shapes[0], **other}:
            one, two = (known.get(keys, "missing") for known in (shapes[0], other))
            if one != two and not (spaces.tied and keys == ("head",)):
                raise IncompatibleModelsError(
                    f"weight '{', '.join(keys)}' is {one} in the reference and {two} in model "
                    f"{number}",
                    hint="only models of one architecture, width and vocabulary can be aligned",
                )
