"""What data-aware merge methods weigh by: second moments of inputs, and the diagonal Fisher."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, UsageError
from repsim.merging.base import Gram
from repsim.models.hooks import evaluating
from repsim.models.identity import place_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Batch = Mapping[str, "torch.Tensor"]

#: Key of the safetensors header.
HEADER = "repsim_statistics"
#: Gradient entries that the exact Fisher information holds at a time.
HELD = 1 << 26


@contextlib.contextmanager
def _requiring_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients of every weight within the block; afterwards of those that asked for them."""
    import torch

    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter in required:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            yield
    finally:
        for parameter, needed in required.items():
            parameter.requires_grad_(needed)


# -- Gram matrices -------------------------------------------------------------------------------


class _InputRecorder:
    """Sums second moments of what enters linear layers; layers with one input share one sum."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = layers
        #: Layer -> the layer whose sum it shares (often itself), decided when it first runs.
        self.shares: dict[str, str] = {}
        #: Layer -> sum over tokens of `x x^T`, and their number.
        self.moments: dict[str, tuple[torch.Tensor, int]] = {}
        self.real: torch.Tensor | None = None
        self._latest: tuple[str, torch.Tensor] | None = None

    def start(self, real: torch.Tensor | None) -> None:
        """Begin a batch; `real` marks the tokens that are no padding, `[batch, token]`."""
        self.real = real
        self._latest = None

    def hook(self, name: str) -> Callable[..., None]:
        """Pre-hook of one layer."""

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._record(name, args[0] if args else next(iter(kwargs.values())))

        return record

    def _record(self, name: str, x: torch.Tensor) -> None:
        import torch

        if name not in self.shares:
            same = self._latest is not None and self._latest[1] is x
            self.shares[name] = self._latest[0] if same and self._latest else name
        if self.shares[name] != name:
            return
        self._latest = (name, x)
        rows = self._real_rows(name, x).to(torch.float64)
        total, tokens = self.moments.get(name, (0.0, 0))
        self.moments[name] = (total + rows.T @ rows, tokens + len(rows))

    def _real_rows(self, name: str, x: torch.Tensor) -> torch.Tensor:
        rows = rearrange(x, "... d -> (...) d")
        if self.real is None or bool(self.real.all()):
            return rows
        if len(rows) == self.real.numel():
            return rows[self.real.flatten()]
        if len(rows) == len(self.real):
            return rows
        raise InputError(
            f"layer '{name}' sees {len(rows)} rows of a padded batch of {self.real.numel()} tokens",
            hint="give batches without padding (one text at a time)",
        )


def collect_gram(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Gram]:
    """Second moments of the inputs of every linear layer, for RegMean.

    Layers that receive the same tensor (query, key and value; gate and up) share one matrix. The
    mean over tokens is taken, so that models count equally however much text they saw; it is summed
    in float64.

    Args:
        model: A `transformers` model, or any module that takes a batch as keywords.
        batches: Keywords of the model, `[batch, token]`; tokens whose `attention_mask` is 0 are
            left out.

    Returns:
        Name of the weight in the state dict -> its matrix. Tied heads are embeddings and have none.

    Raises:
        UsageError: There is no batch.
        InputError: The model has no linear layer, or hides which tokens are padding.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
        >>> grams = collect_gram(model, [{"input": torch.tensor([[1.0, 2.0]])}])
        >>> grams["0.weight"].matrix.tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    recorder = _InputRecorder(_linear_layers(model))
    handles = [
        layer.register_forward_pre_hook(recorder.hook(name), with_kwargs=True)
        for name, layer in recorder.layers.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                here = {key: value.to(place_of(model)) for key, value in batch.items()}
                mask = here.get("attention_mask")
                recorder.start(None if mask is None else mask.bool())
                model(**here)
    finally:
        for handle in handles:
            handle.remove()
    if not recorder.moments:
        raise UsageError("no batch was given to collect Gram matrices from")
    means = {name: total / max(n, 1) for name, (total, n) in recorder.moments.items()}
    return {
        f"{name}.weight": Gram(means[leader], 0 if isinstance(recorder.layers[name], Conv1D) else 1)
        for name, leader in recorder.shares.items()
    }


def _linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> linear layer whose weight is stored under its own name."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    stored = {name for name, _ in model.named_parameters()}
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and f"{name}.weight" in stored
    }
    if not found:
        raise InputError(f"{type(model).__name__} has no linear layer to collect inputs of")
    return found


# -- Fisher information --------------------------------------------------------------------------


def collect_fisher(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    labels: Literal["sampled", "exact"] = "sampled",
    samples: int = 1,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Diagonal Fisher information, `E_x E_{y ~ p(y|x)} (d log p(y|x) / d w)^2`, mean per token.

    Gradients are squared per text, never for a batch, and labels come from the model, never from
    the text ("empirical Fisher", another quantity). Scores of sampled labels are uncorrelated
    between tokens, so that the squared gradient of a whole text estimates the sum over its tokens
    without bias.

    Args:
        model: A model whose output has `logits`, `[batch, token, entry]`.
        batches: Keywords of the model; tokens whose `attention_mask` is 0 are left out.
        labels: "sampled" draws from the model, "exact" takes the expectation over the vocabulary:
            one backward pass per token and entry, for tiny models.
        samples: Draws per text, one backward pass each.
        seed: Seed of the draws; how texts are cut into batches does not matter.

    Returns:
        Name of each parameter -> float32 tensor of its shape.

    Raises:
        UsageError: There is no batch, or an option that does not exist.
        InputError: The model has no logits.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> import torch
        >>> model = tiny_model("llama", head=True)
        >>> fisher = collect_fisher(model, [{"input_ids": torch.tensor([[0, 5, 9]])}])
        >>> bool((fisher["model.norm.weight"] > 0).any())
        True
    """
    if labels not in ("sampled", "exact"):
        raise UsageError(f"labels '{labels}' do not exist", hint="use one of: sampled, exact")
    if samples < 1:
        raise UsageError(f"samples must be at least 1, got {samples}")
    with evaluating(model), _requiring_gradients(model):
        total, tokens = _squared_scores(
            model, _texts(batches, place_of(model)), 0 if labels == "exact" else samples, seed
        )
    if tokens == 0:
        raise UsageError("no batch was given to collect Fisher information from")
    return {name: (square / tokens).float() for name, square in total.items()}


def _squared_scores(
    model: nn.Module, texts: Iterable[dict[str, torch.Tensor]], samples: int, seed: int
) -> tuple[dict[str, torch.Tensor], int]:
    """Sum over texts of squared scores by parameter (no samples: expected ones), and tokens."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    tokens = 0
    for text in texts:
        log_p = _log_probabilities(model, text)
        tokens += len(log_p)
        if samples:
            _add_sampled(total, log_p, parameters, samples, generator)
        else:
            _add_exact(total, log_p, parameters)
    return total, tokens


def _texts(batches: Iterable[Batch], device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """The rows of all batches, one at a time."""
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            yield {key: value[row : row + 1].to(device) for key, value in batch.items()}


def _log_probabilities(model: nn.Module, text: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of one text, `[token, entry]`, without padding."""
    logits = getattr(model(**text), "logits", None)
    if logits is None:
        raise InputError(
            f"{type(model).__name__} gives no logits",
            hint="load it with its head, e.g. AutoModelForCausalLM",
        )
    rows = rearrange(logits, "1 token entry -> token entry")
    mask = text.get("attention_mask")
    return (rows if mask is None else rows[mask[0].bool()]).log_softmax(-1)


def _add_sampled(
    total: dict[str, torch.Tensor],
    log_p: torch.Tensor,
    parameters: Mapping[str, torch.Tensor],
    samples: int,
    generator: torch.Generator,
) -> None:
    import torch

    # Drawn on the CPU, so that all devices draw the same.
    share = log_p.detach().to("cpu", torch.float64).exp()
    drawn = torch.multinomial(share, samples, replacement=True, generator=generator).to(
        log_p.device
    )
    for sample in range(samples):
        score = log_p.gather(1, drawn[:, sample : sample + 1]).sum()
        gradients = torch.autograd.grad(
            score, list(parameters.values()), retain_graph=sample + 1 < samples, allow_unused=True
        )
        _add(total, gradients, lambda square: square / samples)


def _add_exact(
    total: dict[str, torch.Tensor], log_p: torch.Tensor, parameters: Mapping[str, torch.Tensor]
) -> None:
    import torch

    entries = log_p.shape[1]
    at_once = max(1, HELD // sum(p.numel() for p in parameters.values()))
    directions = torch.eye(entries, dtype=log_p.dtype, device=log_p.device)
    for token in log_p:
        share = token.detach().to(torch.float64).exp()
        for chosen, weight in zip(directions.split(at_once), share.split(at_once), strict=True):
            gradients = torch.autograd.grad(
                token,
                list(parameters.values()),
                grad_outputs=chosen,
                is_grads_batched=True,
                retain_graph=True,
                allow_unused=True,
            )
            _add(total, gradients, functools.partial(torch.tensordot, weight, dims=1))


def _add(
    total: dict[str, torch.Tensor], gradients: Iterable[torch.Tensor | None],
    weighed: Callable[[torch.Tensor], torch.Tensor],
) -> None:  # fmt: skip
    for name, gradient in zip(total, gradients, strict=True):
        if gradient is not None:
            total[name] += weighed(gradient.double().square())


# -- files ---------------------------------------------------------------------------------------


def save_statistics(
    path: str | os.PathLike[str], statistics: Mapping[str, Gram | torch.Tensor]
) -> Path:
    """Write Gram matrices or Fisher information as safetensors; shared matrices are written once.

    Raises:
        UsageError: There is nothing to write.

    Example:
        >>> import tempfile
        >>> import torch
        >>> path = save_statistics(tempfile.mkdtemp() + "/fisher.safetensors", {"w": torch.ones(2)})
        >>> load_statistics(path)["w"].tolist()
        [1.0, 1.0]
    """
    from safetensors.torch import save_file

    if not statistics:
        raise UsageError("there are no statistics to save")
    tensors: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    axes: dict[str, int] = {}
    same_as: dict[str, str] = {}
    for name, item in statistics.items():
        tensor = item.matrix if isinstance(item, Gram) else item
        if isinstance(item, Gram):
            axes[name] = item.input_axis
        leader = first.setdefault(id(tensor), name)
        if leader == name:
            tensors[name] = tensor.contiguous()
        else:
            same_as[name] = leader
    header = json.dumps({"axes": axes, "same_as": same_as}, sort_keys=True)
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"format": "pt", HEADER: header})
    return Path(path)


class _Stored(Mapping[str, "Gram | torch.Tensor"]):
    """Statistics in a file, each read when it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="pt")
        except (FileNotFoundError, SafetensorError) as error:
            raise InputError(f"statistics '{path}' cannot be read: {error}") from None
        header = (self._file.metadata() or {}).get(HEADER)
        if header is None:
            raise InputError(
                f"file '{path}' holds no statistics",
                hint="write it with repsim.merging.save_statistics",
            )
        described = json.loads(header)
        self._axes: dict[str, Literal[0, 1]] = described["axes"]
        self._stored = {name: name for name in self._file.keys()} | described["same_as"]  # noqa: SIM118

    def __getitem__(self, name: str) -> Gram | torch.Tensor:
        tensor: torch.Tensor = self._file.get_tensor(self._stored[name])
        return Gram(tensor, self._axes[name]) if name in self._axes else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def load_statistics(path: str | os.PathLike[str]) -> Mapping[str, Gram | torch.Tensor]:
    """Name of a weight -> its matrix or tensor, of a file that `save_statistics` wrote.

    Each is read when it is asked for.

    Raises:
        InputError: The file is missing or holds something else.

    Example:
        >>> load_statistics("nowhere.safetensors")
        Traceback (most recent call last):
            ...
        repsim.core.errors.InputError: ...
    """
    return _Stored(path)
