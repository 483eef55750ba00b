"""A task vector as a LoRA adapter: the leading singular triples of what each matrix moved by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repsim.core.aside import make_folder, written_aside
from repsim.core.errors import UsageError
from repsim.core.files import read_json, write_json, write_text
from repsim.core.formatting import markdown_name
from repsim.core.progress import progress
from repsim.core.provenance import shown_path, versions
from repsim.merging.base import check_tensors
from repsim.merging.check import check_models, refuse_errors
from repsim.merging.checkpoint import FLOATS, Checkpoint
from repsim.merging.tensors import is_tied, merged_names
from repsim.models.inspect import locate

if TYPE_CHECKING:
    import torch

#: What was extracted, and how near it is: beside the adapter.
REPORT_FILE = "repsim_lora.json"


@dataclasses.dataclass(frozen=True)
class AdaptedModule:
    """One linear layer of an extracted adapter."""

    name: str  # As `transformers` names it
    rank: int  # Columns of B and rows of A
    moved: float  # Frobenius norm of its task vector W - W_0
    error: float  # ||W - W_0 - B A|| / ||W - W_0|| for A and B as they are stored


@dataclasses.dataclass(frozen=True)
class ExtractedLora:
    """An adapter that was written, and how much of the task vector it holds."""

    folder: Path
    modules: tuple[AdaptedModule, ...]  # The layers that have factors
    saved: tuple[str, ...]  # Tensors that are stored whole
    left: tuple[str, ...]  # Tensors that differ from the base and are not in the adapter
    error: float  # Norm of what is missing of the whole task vector, over the norm of that

    @property
    def energy(self) -> float:
        """Share of the squared norm of the whole task vector that the adapter holds."""
        return 1 - self.error**2


@dataclasses.dataclass
class _Harvest:
    """What is gathered, tensor by tensor."""

    modules: list[AdaptedModule] = dataclasses.field(default_factory=list)
    tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
    saved: list[str] = dataclasses.field(default_factory=list)
    left: list[str] = dataclasses.field(default_factory=list)
    moved: float = 0.0
    missing: float = 0.0


def extract_lora(
    model: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    save_rest: bool = True,
    device: str = "cpu",
) -> ExtractedLora:
    """Write the low-rank part of a model's task vector as an adapter that `peft` loads.

    Each linear layer's W - W_0 is replaced by its best approximation of a rank, B A (Eckart and
    Young 1936), its singular values shared out evenly between B and A. What is no linear layer
    (embeddings, heads, norms, biases) and differs is stored whole. The error is measured, not
    derived from the spectrum.

    Args:
        model: Folder or name of the model.
        base: The model that it was fine-tuned from.
        out: Folder of the adapter; must not exist.
        rank: Largest rank of a layer.
        energy: Share of each layer's squared norm that is to be kept, by the least rank that does;
            `rank` then bounds it.
        save_rest: Whether what is no linear layer is stored, or left as in the base.
        device: Where the decompositions are made, in float64.

    Raises:
        IncompatibleModelsError: The models do not fit each other.
        InputError: A model is missing or damaged.
        UsageError: Neither rank nor energy, values that are none, or models that do not differ.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> root = tempfile.mkdtemp()
        >>> base, tuned = (write_tiny_model("llama", f"{root}/{n}", seed=n) for n in (0, 1))
        >>> found = extract_lora(tuned, base, root + "/adapter", energy=0.5)
        >>> 0.5 <= found.energy < 1, (found.folder / "adapter_config.json").is_file()
        (True, True)
    """
    target = Path(out)
    _check_request(rank, energy, target)
    refuse_errors(check_models([base, model]))
    located = [locate(each) for each in (base, model)]
    sources = [Checkpoint(each.folder, each.name) for each in located]
    config = read_json(located[0].folder / "config.json")
    layers = _layers(config, sources[0].headers)
    harvest = _Harvest()
    names = merged_names(config, sources[0].headers)
    with progress("decomposing", total=len(names), unit="tensors") as bar:
        for name in names:
            _decompose(name, sources, layers, harvest, rank, energy, save_rest, device)
            bar.update(1)
    if not harvest.modules:
        raise UsageError(
            f"no linear layer of '{located[1].name}' differs from '{located[0].name}'",
            hint="name the model that was fine-tuned first, and then its base",
        )
    error = math.sqrt(harvest.missing / harvest.moved)
    found = ExtractedLora(
        target, tuple(harvest.modules), tuple(harvest.saved), tuple(harvest.left), error
    )
    stated = str(Path(base).resolve()) if Path(base).exists() else str(base)
    make_folder(target.parent)
    with written_aside(target) as aside:
        aside.mkdir()
        _write(aside, found, harvest.tensors, _peft_config(found, layers, stated))
        write_text(aside / "README.md", _card(found, located[1].name, located[0].name))
    return found


def _check_request(rank: int | None, energy: float | None, target: Path) -> None:
    if rank is None and energy is None:
        raise UsageError("an adapter needs a rank", hint="--rank 16, or --energy 0.9")
    if rank is not None and rank < 1:
        raise UsageError(f"rank must be at least 1, got {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"energy must lie in (0, 1], got {energy:g}")
    if target.exists():
        raise UsageError(f"'{target}' exists", hint="choose another folder")


class _Layers(NamedTuple):
    """Linear layers (and whether stored as [in, out]), token embedding, and head if it is tied."""

    linear: dict[str, bool]
    embedding: str
    head: str

    def owner(self, tensor: str) -> str | None:
        """The linear layer that a tensor is the weight or bias of."""
        module = tensor.rpartition(".")[0]
        return next((each for each in self.linear if f".{module}".endswith(f".{each}")), None)


def _layers(config: dict[str, Any], headers: Collection[str]) -> _Layers:
    """The layers of a model, from its config alone."""
    import torch
    import transformers
    from transformers.pytorch_utils import Conv1D

    own = transformers.AutoConfig.for_model(**config)
    named = own.architectures or ["CausalLM"]
    decoder = any("CausalLM" in name or "LMHead" in name for name in named)
    loader = transformers.AutoModelForCausalLM if decoder else transformers.AutoModel
    with torch.device("meta"):
        model = loader.from_config(own)
    names = {module: name for name, module in model.named_modules()}
    head = names.get(model.get_output_embeddings(), "")
    linear = {
        name: isinstance(module, Conv1D)
        for module, name in names.items()
        if isinstance(module, torch.nn.Linear | Conv1D) and name != head
    }
    tied = is_tied(config, headers)
    return _Layers(linear, names.get(model.get_input_embeddings(), ""), head if tied else "")


def _decompose(
    name: str, sources: Sequence[Checkpoint], layers: _Layers, harvest: _Harvest,
    rank: int | None, energy: float | None, save_rest: bool, device: str,
) -> None:  # fmt: skip
    """Take account of one tensor."""
    base, model = (source.read(name) for source in sources)
    if sources[0].headers[name].dtype not in FLOATS:
        return
    check_tensors([model, base], name, [source.name for source in reversed(sources)])
    module, _, part = name.rpartition(".")
    inside = layers.owner(name)
    moved = sum(_squares(each) for each in _deltas(model, base))
    if moved == 0:
        return
    harvest.moved += moved
    if inside is not None and part == "weight":
        delta = model.double() - base.double()
        turned = layers.linear[inside]
        b, a = _factors((delta.T if turned else delta).to(device), rank, energy)
        missing = _squares((delta.T if turned else delta) - b.double() @ a.double())
        harvest.missing += missing
        harvest.tensors[f"base_model.model.{inside}.lora_A.weight"] = a
        harvest.tensors[f"base_model.model.{inside}.lora_B.weight"] = b
        row = AdaptedModule(inside, len(a), math.sqrt(moved), math.sqrt(missing / moved))
        harvest.modules.append(row)
    elif save_rest:
        # A bias beside factors belongs to the layer that they are put on.
        layer = f"{inside}.base_layer" if inside is not None else module
        harvest.tensors[f"base_model.model.{layer}.{part}"] = model.contiguous()
        if layers.head and module.endswith(layers.embedding):  # peft stores both
            harvest.tensors[f"base_model.model.{layers.head}.{part}"] = model.clone()
        harvest.saved.append(name)
    else:
        harvest.missing += moved
        harvest.left.append(name)


def _deltas(model: torch.Tensor, base: torch.Tensor) -> Iterator[torch.Tensor]:
    """The difference in pieces of some megabytes, float64."""
    rows = [each.reshape(-1).split(1 << 20) for each in (model, base)]
    return (one.double() - other.double() for one, other in zip(*rows, strict=True))


def _squares(tensor: torch.Tensor) -> float:
    return float(tensor.square().sum())


def _factors(
    delta: torch.Tensor, rank: int | None, energy: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """B `[out, r]` and A `[r, in]` by float64 eigenvectors of products: to 1e-8 of the largest."""
    import torch

    tall = delta.shape[0] > delta.shape[1]
    squares, vectors = torch.linalg.eigh(delta.T @ delta if tall else delta @ delta.T)
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    kept = int((squares > squares[0] * 1e-15).sum())
    if energy is not None:
        shares = squares.cumsum(0) / squares.sum()
        kept = min(kept, int((shares < energy).sum()) + 1)
    kept = min(kept, rank or kept)
    values, vectors = squares[:kept].sqrt(), vectors[:, :kept]
    roots = values.sqrt()
    if tall:
        b, a = (delta @ vectors) / roots, (vectors * roots).T
    else:
        b, a = vectors * roots, (vectors.T @ delta) / roots[:, None]
    return b.float().cpu().contiguous(), a.float().cpu().contiguous()


# -- files ---------------------------------------------------------------------------------------


def _peft_config(found: ExtractedLora, layers: _Layers, base: str) -> dict[str, Any]:
    """The adapter's config: `lora_alpha` is the rank, so that the factors count as they are."""
    ranks = {module.name: module.rank for module in found.modules}
    most = max(ranks.values())
    ends = sorted({name.rpartition(".")[2] for name in ranks})
    chosen = {name for name in layers.linear if name.rpartition(".")[2] in ends}
    biases = [name for name in found.saved if layers.owner(name)]
    whole = {name.rpartition(".")[0] for name in found.saved if name not in biases}
    tied = layers.head and next((name for name in whole if name.endswith(layers.embedding)), "")
    if tied:
        whole.add(layers.head)
    other = {name: rank for name, rank in ranks.items() if rank != most}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "r": most, "lora_alpha": most, "rank_pattern": other, "alpha_pattern": other,
        "target_modules": ends if chosen == set(ranks) else sorted(ranks),
        "modules_to_save": sorted(whole) or None,
        "bias": "all" if biases else "none", "lora_dropout": 0.0, "use_rslora": False,
        "fan_in_fan_out": any(layers.linear[name] for name in ranks), "inference_mode": True,
    }  # fmt: skip
    if tied.endswith("embed_tokens"):  # under other names peft does not see that they are one
        config["ensure_weight_tying"] = True
    return config


def _write(
    folder: Path, found: ExtractedLora, tensors: dict[str, Any], config: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)
    write_json(
        folder / REPORT_FILE,
        {
            "error": found.error, "energy": found.energy, "saved": found.saved, "left": found.left,
            "modules": [dataclasses.asdict(module) for module in found.modules],
            "versions": versions(),
        },
    )  # fmt: skip


def _card(found: ExtractedLora, model: str, base: str) -> str:
    ranks = sorted(module.rank for module in found.modules)
    worst = max(found.modules, key=lambda module: module.error)
    spread = f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
    left = f" {len(found.left)} tensors that differ are left as in the base." if found.left else ""
    return (
        f"---\nlibrary_name: peft\n---\n\n# LoRA extracted from {markdown_name(shown_path(model))}"
        f"\n\nThe low-rank part of what it moved from {markdown_name(shown_path(base))}: "
        f"{len(found.modules)} layers of rank {spread}, {len(found.saved)} tensors stored whole."
        f"{left}\n\nHeld of the squared norm of the whole task vector: {found.energy:.4f}. "
        f"Relative error: {found.error:.4f}; of the worst layer, `{worst.name}`: "
        f"{worst.error:.4f}. All layers: `{REPORT_FILE}`.\n"
    )
