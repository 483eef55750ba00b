"""Learned alignment: maps inside the symmetry group, trained so that the merge models the text.

Weights of both models stay as they are; only coordinates of the second are learned, on top of a
closed-form start, by the language-model loss of the point between the two (after Theus et al. 2025,
arXiv:2506.22712, who learn such maps for transformers).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, ResourceError, UsageError
from repsim.core.files import hash_json
from repsim.merging.align.apply import AlignmentMap, apply_map
from repsim.merging.align.checking import build_model
from repsim.merging.align.weights import StateDict, Weights, as_built, pack
from repsim.models.arch.spaces import SymmetrySpace, WeightSpaces

if TYPE_CHECKING:
    import torch

#: Groups whose elements vary continuously; orders of units and heads stay as the start has them.
CONTINUOUS = ("rotation", "linear", "rotary", "scale")
#: Updates between two states of a run that can be resumed.
STATE_EVERY = 50
Say = Callable[[int, int, float], None]


@dataclasses.dataclass(frozen=True)
class Learning:
    """How maps are learned.

    Attributes:
        tokens: Tokens of text that are read, in all languages together.
        batch: Windows per update. Few: at one budget of tokens more updates bring more.
        learning_rate: Peak of AdamW, reached after a tenth of the updates, then a cosine to 0.
        path: Where the loss is taken: at the "midpoint", or at "random" points between the models.
        start: What the maps are learned on top of: the "orthogonal" solution, "identity" (models
            that share their initial weights), or "auto", that of the two whose midpoint has the
            lower loss on the first windows.
        seed: Of the order of windows and the random points.
    """

    tokens: int = 300_000
    batch: int = 2
    learning_rate: float = 1e-2
    path: Literal["midpoint", "random"] = "midpoint"
    start: Literal["auto", "orthogonal", "identity"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.batch < 1:
            raise UsageError("learned alignment needs at least one token and one window a batch")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"a learning rate of {self.learning_rate} is not possible")

    def updates(self, length: int) -> int:
        """How many updates over windows of `length` tokens."""
        return max(1, round(self.tokens / (self.batch * length)))


@dataclasses.dataclass(frozen=True)
class Learned:
    """Outcome of learning.

    Attributes:
        maps: Key of a space -> learned element, float64.
        losses: Nats per token of each update, before it was made.
        parameters: Numbers that were learned.
        start: What the maps stand on.
        tokens: Tokens of an update.
    """

    maps: AlignmentMap
    losses: tuple[float, ...]
    parameters: int
    start: str = "orthogonal"
    tokens: int = 1

    @property
    def ends(self) -> tuple[float, float]:
        """Mean loss of the first and of the last tenth of the updates, in nats per token."""
        n = max(1, len(self.losses) // 10)
        return sum(self.losses[:n]) / n, sum(self.losses[-n:]) / n

    def gain(self, tokens: int = 30_000) -> float:
        """Nats per token by which the loss of the midpoint fell within the first `tokens`.

        The mean of the (at most ten) updates around there is held against the first update. Pairs
        that begin worse gain more: it does not tell how far alignment will bring a pair.
        """
        at = min(max(1, tokens // self.tokens), len(self.losses) - 1)
        near = self.losses[max(1, at - 5) : at + 5] or self.losses
        return self.losses[0] - sum(near) / len(near)


class Midpoint:
    """The model between two, as a function of maps of the second; `shares`: its in token rows."""

    def __init__(
        self, a: Weights, b: Weights, spaces: WeightSpaces, state: StateDict, config: Any,
        shares: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.rows = None if shares is None else shares.float()[:, None]
        self.a = {key: weight.float() for key, weight in a.items()}
        self.b = {key: weight.float() for key, weight in b.items()}
        self.spaces, self.state = spaces, {name: t.float() for name, t in state.items()}
        self.model = build_model(config, pack(self.a, self.state, spaces))
        self.names = set(self.model.state_dict())

    def loss(self, maps: AlignmentMap, windows: torch.Tensor, share: float = 0.5) -> torch.Tensor:
        """Nats per token over windows `[b, context + 1]`, `share` of the way to the other model."""
        import torch

        moved = apply_map(self.b, self.spaces, maps)
        between = {key: self._between(key, moved[key], share) for key in self.a}
        state = as_built(pack(between, self.state, self.spaces), self.spaces)
        known = {name: tensor for name, tensor in state.items() if name in self.names}
        logits = torch.func.functional_call(
            self.model, known, (windows[:, :-1],), {"use_cache": False}
        ).logits
        return torch.nn.functional.cross_entropy(
            rearrange(logits, "b t v -> (b t) v").float(), rearrange(windows[:, 1:], "b t -> (b t)")
        )

    def _between(self, key: str, moved: torch.Tensor, share: float) -> torch.Tensor:
        """One weight so far on the way; rows of tokens as their shares have it at the midpoint."""
        import torch

        if self.rows is None or key not in ("embed", "head"):
            return torch.lerp(self.a[key], moved, share)
        return torch.lerp(self.a[key], moved, self.rows)


def learn_maps(
    midpoint: Midpoint,
    windows: torch.Tensor,
    learning: Learning,
    *,
    cache: Path | None = None,
    on_update: Say | None = None,
) -> Learned:
    """Learn maps of the second model by AdamW; with a `cache` file a stopped call goes on."""
    import torch

    total = learning.updates(windows.shape[1] - 1)
    spaces = [s for s in midpoint.spaces.spaces if s.group in CONTINUOUS]
    free = {space.key: _zero(space) for space in spaces}
    every = [parameter for parts in free.values() for parameter in parts]
    optimizer = torch.optim.AdamW(every, lr=learning.learning_rate, weight_decay=0.0)
    weighed = None if midpoint.rows is None else float(midpoint.rows.square().sum())
    key = hash_json(
        [dataclasses.asdict(learning), list(windows.shape), int(windows.sum()), weighed]
    )
    losses = _resume(cache, key, every, optimizer)
    draws = _draws(len(windows), learning, total)
    for update, (rows, share) in enumerate(draws):
        if update < len(losses):
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning.learning_rate * _shape(update / total)
        maps = {space.key: _element(space, free[space.key]) for space in spaces}
        loss = midpoint.loss(maps, windows[rows], share)
        if not bool(loss.isfinite()):
            raise InputError(
                f"the loss of learned alignment is {float(loss)} at update {update + 1} of {total}",
                hint="lower the learning rate",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(every, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if on_update:
            on_update(update + 1, total, losses[-1])
        if cache is not None and (update + 1) % STATE_EVERY == 0 and update + 1 < total:
            _store(cache, key, every, optimizer, losses)
    if cache is not None:
        cache.unlink(missing_ok=True)
    with torch.no_grad():
        found = {
            space.key: _element(space, [p.double() for p in free[space.key]]) for space in spaces
        }
    numbers = sum(parameter.numel() for parameter in every)
    per_update = learning.batch * (windows.shape[1] - 1)
    return Learned(found, tuple(losses), numbers, tokens=per_update)


def composed(first: Mapping[str, torch.Tensor], then: Mapping[str, torch.Tensor]) -> AlignmentMap:
    """One map that does what two do one after the other, where the second has no permutation."""
    joint = dict(first)
    for key, element in then.items():
        before = joint.get(key)
        if before is None:
            joint[key] = element
        else:
            joint[key] = element * before if element.ndim == 1 else element @ before.to(element)
    return joint


def _zero(space: SymmetrySpace) -> list[torch.Tensor]:
    """Free parameters of a space, at which its element changes nothing."""
    import torch

    n, turned = space.size, space.rotary
    shapes: list[tuple[int, ...]]
    if space.group == "scale":
        shapes = [(n,)]
    elif space.group == "rotation":
        shapes = [(n, n)]
    elif space.group == "rotary":
        rest = [(space.copies, n - turned, n - turned)] if n > turned else []
        shapes = [(space.copies, turned // 2), (space.copies, turned // 2), *rest]
    else:
        shapes = [(space.copies, n, n)]
    return [torch.zeros(shape, requires_grad=True) for shape in shapes]


def _element(space: SymmetrySpace, free: list[torch.Tensor]) -> torch.Tensor:
    """The element of free parameters: exponentials, which reach every element near the start."""
    import torch

    if space.group == "scale":
        return free[0].exp()
    if space.group == "rotation":
        skew = free[0] - free[0].mT
        if space.fixes_mean:  # the constant direction stays where it is
            skew = skew - skew.mean(0, keepdim=True)
            skew = skew - skew.mean(1, keepdim=True)
        return torch.linalg.matrix_exp(skew)
    if space.group == "linear":
        return torch.linalg.matrix_exp(free[0])
    scale, angle = free[0].exp(), free[1]
    cosine, sine = torch.diag_embed(scale * angle.cos()), torch.diag_embed(scale * angle.sin())
    turned = torch.cat(
        [torch.cat([cosine, -sine], dim=-1), torch.cat([sine, cosine], dim=-1)], dim=-2
    )
    if len(free) == 2:
        return turned
    rest = torch.linalg.matrix_exp(free[2])
    return torch.stack(
        [torch.block_diag(one, other) for one, other in zip(turned, rest, strict=True)]
    )


def _shape(done: float) -> float:
    """Share of the peak learning rate: up over a tenth, then a cosine to nothing."""
    if done < 0.1:
        return max(done / 0.1, 0.05)
    return 0.5 * (1.0 + math.cos(math.pi * (done - 0.1) / 0.9))


def _draws(count: int, learning: Learning, total: int) -> Iterator[tuple[torch.Tensor, float]]:
    """Rows and place on the path of each update; every window once before one comes twice."""
    import torch

    generator = torch.Generator().manual_seed(learning.seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(total):
        while len(order) < learning.batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        rows, order = order[: learning.batch], order[learning.batch :]
        share = float(torch.rand((), generator=generator))
        yield rows, share if learning.path == "random" else 0.5


def _store(
    cache: Path, key: str, every: list[torch.Tensor], optimizer: Any, losses: list[float]
) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for i, parameter in enumerate(every):
        tensors[f"{i}.value"] = parameter.detach().clone()
        for name, value in optimizer.state[parameter].items():
            tensors[f"{i}.{name}"] = value.clone()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(cache) as aside:
            save_file(tensors, aside, metadata={"key": key})
    except OSError as error:
        raise ResourceError(
            f"the state of learned alignment cannot be written to '{cache}': {error.strerror}"
        ) from error


def _resume(cache: Path | None, key: str, every: list[torch.Tensor], optimizer: Any) -> list[float]:
    """Losses so far, with parameters and optimizer as they were; none if nothing fits."""
    import torch
    from safetensors import SafetensorError, safe_open

    if cache is None or not cache.is_file():
        return []
    try:
        with safe_open(cache, framework="pt") as handle:
            if (handle.metadata() or {}).get("key") != key:
                return []
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except SafetensorError:
        return []
    with torch.no_grad():
        for i, parameter in enumerate(every):
            parameter.copy_(tensors[f"{i}.value"])
            optimizer.state[parameter] = {
                name: tensors[f"{i}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")
            }
    return [float(loss) for loss in tensors["losses"]]
