"""Give a merged model the activation statistics of its parents back.

Averaging units that agree only in part shrinks their variance, layer upon layer. REPAIR (Jordan et
al. 2023) rescales each unit so that its mean and standard deviation are the average of those of the
parents; it is a scale and a shift per unit, which fold into the weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.errors import IncompatibleModelsError, UsageError, unknown_name
from repsim.merging.align.checking import build_model
from repsim.merging.align.weights import StateDict, stored_name
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import StoredWeight, WeightSpaces, weight_key

if TYPE_CHECKING:
    import torch
    from torch import nn

#: What can be repaired: hidden units, and what attention and MLP write to the residual stream.
REPAIRED_POINTS = ("mlp_hidden", "attn", "mlp")
#: A unit that varies less than this share of what it should is left alone: nothing to scale up.
DEAD = 1e-6

Place = tuple[str, int]


class _Statistics(NamedTuple):
    """Mean and standard deviation of the units at one place, each `[units]`, float64."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclasses.dataclass(frozen=True)
class RepairReport:
    """What repair found and left at one place.

    Attributes:
        point: One of `REPAIRED_POINTS`.
        tensor: Weight that was scaled.
        layer: Block, counted from 1 as on the layer axis.
        std_ratio_before: Median over units of merged over wanted standard deviation, as met (that
            is, with everything below already repaired).
        std_error_after: Largest relative error of a standard deviation afterwards, dead units left
            out.
        mean_error_after: Largest error of a mean in units of the wanted standard deviation; None
            where there is no bias to shift, so that means were scaled only.
        dead: Units that vary too little to be scaled.
    """

    point: str
    tensor: str
    layer: int
    std_ratio_before: float
    std_error_after: float
    mean_error_after: float | None
    dead: int


@dataclasses.dataclass(frozen=True)
class RepairResult:
    """The repaired model.

    Attributes:
        state: State dict in the types of the merged one.
        report: One entry per place, in the order of the forward pass within each point.
    """

    state: dict[str, torch.Tensor]
    report: list[RepairReport]


def repair_state_dict(
    merged: StateDict,
    parents: Sequence[StateDict],
    config: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    weights: Sequence[float] | None = None,
    points: Sequence[str] = REPAIRED_POINTS,
) -> RepairResult:
    """Rescale units of a merged model to the interpolated statistics of its parents.

    Hidden units are corrected before the non-linearity where there is no gate, and by scaling `up`
    where there is one; what is written to the residual stream, per channel of the writer. Where the
    model has a bias both mean and standard deviation are matched, elsewhere the standard deviation
    (a shift would need a bias). One pass repairs all places in order, so that each sees what the
    repaired ones before it give.

    Args:
        merged: Tensors of the merged model.
        parents: Tensors of its parents, in the same coordinates.
        config: `transformers` config of all of them.
        input_ids: Calibration text, `[batch, tokens]`, run as one batch.
        attention_mask: 1 for tokens, 0 for padding; no padding if None.
        weights: Share of each parent, equal if None; divided by their sum.
        points: Which of `REPAIRED_POINTS`.

    Raises:
        IncompatibleModelsError: The tensors do not make up the config's model, or its family has no
            such places.
        UsageError: No parents, weights that do not fit or add up to zero, or an unknown point.

    Example:
        >>> import torch
        >>> from repsim.testing.tiny_models import tiny_model
        >>> models = [tiny_model("gpt2", head=True, seed=seed) for seed in (0, 1)]
        >>> a, b = (model.state_dict() for model in models)
        >>> average = {name: (a[name] + b[name]) / 2 for name in a}
        >>> ids = torch.randint(4, 200, (8, 16), generator=torch.Generator().manual_seed(0))
        >>> result = repair_state_dict(average, [a, b], models[0].config, ids)
        >>> first = result.report[0]
        >>> first.point, first.std_ratio_before < 0.9, first.std_error_after < 1e-3
        ('mlp_hidden', True, True)
    """
    import torch

    shares = _shares(weights, len(parents))
    for point in points:
        if point not in REPAIRED_POINTS:
            raise unknown_name("place to repair", point, REPAIRED_POINTS)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    spaces = spec_for(config.model_type).spaces(config)
    places = _places(merged, spaces, points)
    wanted = _interpolate(
        [_measure(build_model(config, state), places, input_ids, mask) for state in parents], shares
    )
    model = build_model(config, merged)
    met: dict[Place, _Statistics] = {}

    def correct(place: Place, values: torch.Tensor) -> torch.Tensor:
        met[place] = _statistics(values, mask)
        return _correct(model, places[place], values, met[place], wanted[place])

    _run(model, places, input_ids, mask, correct)
    after = _measure(model, places, input_ids, mask)
    tensors = model.state_dict()
    changed = {name for where in places.values() for name in where.parameters}
    state = dict(merged)
    state.update({name: tensors[name].to(merged[name].dtype).clone() for name in changed})
    report = [
        _report(place, places[place], met[place], wanted[place], after[place]) for place in places
    ]
    return RepairResult(state, report)


@dataclasses.dataclass(frozen=True)
class _Where:
    """Where a place is read, and which parameters a scale and a shift of it fold into."""

    module: str
    reads_input: bool
    weight: str
    out_axis: int
    bias: str | None
    shifts: bool
    first_row: int = 0
    offset: float = 0.0

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


#: Point -> the weights that may be scaled, the last to act first.
_SCALED = {"mlp_hidden": ("up",), "attn": ("attn_out_norm", "o"), "mlp": ("mlp_out_norm", "down")}


def _places(state: StateDict, spaces: WeightSpaces, points: Sequence[str]) -> dict[Place, _Where]:
    stored = {
        key: (weight, name)
        for weight in spaces.weights
        if (name := stored_name(weight, state, spaces)) in state
        for key in weight.keys
    }
    places: dict[Place, _Where] = {}
    for point in points:
        for layer in range(spaces.layers):
            keys = [weight_key(role, layer) for role in _SCALED[point]]
            key = next((key for key in keys if key in stored), None)
            down = stored.get(weight_key("down", layer))
            if key is None or down is None:
                raise IncompatibleModelsError(
                    f"layer {layer} has no tensor for '{keys[-1]}', so its units cannot be "
                    "repaired",
                    hint="leave out repair for models of this family",
                )
            gated = point == "mlp_hidden" and weight_key("gate", layer) in stored
            weight, name = stored[key]
            _, bias = stored.get(f"{key}_bias", (None, None))
            places[point, layer + 1] = _Where(
                module=(down[1] if gated else name).removesuffix(".weight"),
                reads_input=gated,
                weight=name,
                out_axis=_out_axis(weight),
                bias=bias,
                # Behind a gate a bias of `up` is multiplied by the gate: it cannot shift a unit.
                shifts=bias is not None and not gated,
                first_row=spaces.sizes["mlp"] if len(weight.roles) > 1 else 0,
                offset=spaces.gain_offset if key.endswith("norm") else 0.0,
            )
    return places


def _out_axis(weight: StoredWeight) -> int:
    """Axis of the stored matrix that holds what it gives: the stream of a writer, or the units."""
    if weight.stored == "resid":
        return 1
    given = "resid" if weight.writes else "mlp"
    return 0 if weight.stored.startswith(given) else 1


def _correct(
    model: nn.Module, where: _Where, values: torch.Tensor, met: _Statistics, wanted: _Statistics
) -> torch.Tensor:
    """Fold scale and shift into the model's parameters; the values as they are from now on."""
    import torch

    alive = met.std > DEAD * wanted.std
    scale = torch.where(alive, wanted.std / torch.where(alive, met.std, 1.0), 1.0)
    shift = torch.where(alive, wanted.mean - scale * met.mean, 0.0)
    if not where.shifts:
        shift = torch.zeros_like(shift)
    parameter = model.get_parameter(where.weight)[where.first_row :]
    by_unit = (scale if where.out_axis == 1 else scale[:, None]).to(parameter)
    parameter.mul_(by_unit).add_(where.offset * (by_unit - 1.0))
    if where.bias is not None:
        bias = model.get_parameter(where.bias)
        bias.copy_((scale * bias.double() + shift).to(bias))
    return values * scale.to(values) + shift.to(values)


def _run(
    model: nn.Module,
    places: Mapping[Place, _Where],
    ids: torch.Tensor,
    mask: torch.Tensor,
    visit: Callable[[Place, torch.Tensor], torch.Tensor],
) -> None:
    """One forward pass; what `visit` returns takes the place of what a place gave."""
    import torch

    def before(place: Place, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (visit(place, args[0]), *args[1:])

    def after(place: Place, _: Any, args: Any, output: Any) -> Any:
        return visit(place, output)

    # The head is left out: logits of a whole calibration text are larger than many models.
    body: Any = getattr(model, "base_model", model)
    with contextlib.ExitStack() as stack, torch.no_grad():
        for place, where in places.items():
            module = model.get_submodule(where.module)
            if where.reads_input:
                handle = module.register_forward_pre_hook(functools.partial(before, place))
            else:
                handle = module.register_forward_hook(functools.partial(after, place))
            stack.callback(handle.remove)
        body(input_ids=ids, attention_mask=mask)


def _measure(
    model: nn.Module, places: Mapping[Place, _Where], ids: torch.Tensor, mask: torch.Tensor
) -> dict[Place, _Statistics]:
    found: dict[Place, _Statistics] = {}

    def visit(place: Place, values: torch.Tensor) -> torch.Tensor:
        found[place] = _statistics(values, mask)
        return values

    _run(model, places, ids, mask, visit)
    return found


def _statistics(values: torch.Tensor, mask: torch.Tensor) -> _Statistics:
    """Over all tokens but padding; `[batch, tokens, units]` or the same with rows flattened."""
    rows = values.reshape(mask.numel(), -1)[mask.reshape(-1).bool()].double()
    return _Statistics(rows.mean(0), rows.std(0, correction=0))


def _interpolate(
    parents: Sequence[Mapping[Place, _Statistics]], shares: Sequence[float]
) -> dict[Place, _Statistics]:
    def average(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        total: Any = sum(share * tensor for share, tensor in zip(shares, tensors, strict=True))
        return total

    return {
        place: _Statistics(
            average(parent[place].mean for parent in parents),
            average(parent[place].std for parent in parents),
        )
        for place in parents[0]
    }


def _shares(weights: Sequence[float] | None, parents: int) -> list[float]:
    if parents == 0:
        raise UsageError("repair needs the parents of the merged model, and none is given")
    given = [1.0] * parents if weights is None else [float(weight) for weight in weights]
    if len(given) != parents or min(given) < 0 or sum(given) <= 0:
        raise UsageError(
            f"weights {given} do not fit {parents} parents",
            hint="give one weight per parent, none negative and not all zero",
        )
    return [weight / sum(given) for weight in given]


def _report(
    place: Place, where: _Where, met: _Statistics, wanted: _Statistics, after: _Statistics
) -> RepairReport:
    alive = (met.std > DEAD * wanted.std) & (wanted.std > 0)
    target = wanted.std[alive]
    ratio = met.std[alive] / target
    off = (after.std[alive] - target).abs() / target
    shift = (after.mean[alive] - wanted.mean[alive]).abs() / target
    return RepairReport(
        point=place[0],
        tensor=where.weight,
        layer=place[1],
        std_ratio_before=float(ratio.median()) if len(ratio) else 1.0,
        std_error_after=float(off.max()) if len(off) else 0.0,
        mean_error_after=(float(shift.max()) if len(shift) else 0.0) if where.shifts else None,
        dead=int((~alive).sum()),
    )
