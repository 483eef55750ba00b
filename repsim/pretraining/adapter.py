"""Low-rank adapters by `peft`: attached for training, merged into the weights, written beside them.

LoRA: Hu et al. 2022, arXiv:2106.09685.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repsim.core.errors import UsageError, optional
from repsim.core.files import read_json, write_json
from repsim.core.model_ref import ModelRef
from repsim.merging.card import UP
from repsim.models.adapters import CONFIG
from repsim.models.inspect import PROVENANCE_FILE
from repsim.models.packages import list_models
from repsim.pretraining.config_training import LoraConfig

_BEFORE, _BASE = "base_model.model.", ".base_layer."
_UP = ".lora_B."


def attach(model: nn.Module, lora: LoraConfig, seed: int) -> nn.Module:
    """The model with an adapter that is trained in its place; at first it changes nothing."""
    peft = optional("peft", "training.lora", "repsim-lm[peft]")
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft speaks of names of transformers that will change
        torch.manual_seed(seed)
        try:
            attached: nn.Module = peft.get_peft_model(model, settings)
        except ValueError as error:
            raise UsageError(
                f"the adapter does not fit the model: {str(error).splitlines()[0][:200]}",
                hint="training.lora.targets names modules of the model, as q_proj",
            ) from None
    return attached.train()


def of_adapter(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The trained part of what a model with an adapter holds."""
    return {name: tensor for name, tensor in weights.items() if ".lora_" in name}


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the plain model, base and adapter in one, on the CPU, under its own names."""
    updates = {
        f"{path}{_BASE}weight": module.get_delta_weight("default")
        for path, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    return {
        plain_name(name): (p.detach() + updates[name] if name in updates else p.detach()).cpu()
        for name, p in model.named_parameters()
        if ".lora_" not in name
    }


def plain_name(name: str) -> str:
    """The name of a parameter in the model without the adapter."""
    return name.removeprefix(_BEFORE).replace(_BASE, ".")


def absorbed(
    weights: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """`plain` weights under an adapter that adds nothing; `weights` gives names and shapes."""
    return {
        name: plain.get(plain_name(name), torch.zeros_like(tensor) if _UP in name else tensor)
        for name, tensor in weights.items()
    }


def write_adapter(
    model: Any, weights: Mapping[str, torch.Tensor], folder: Path, base: str,
    history: Mapping[str, Any],
) -> None:  # fmt: skip
    """What `peft.PeftModel.from_pretrained(base, folder)` reads, and the history beside it."""
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder, state_dict=dict(weights), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    write_json(folder / PROVENANCE_FILE, dict(history))
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files for the owner alone


def base_name(base: ModelRef, folder: Path) -> str:
    """How an adapter in `folder` names its base: a name, or a path from there if that is near."""
    path = Path(base.path).expanduser()
    if not path.exists():
        return base.path
    if any(found.folder == path for found in list_models()):
        return base.name
    near = os.path.relpath(path.resolve(), folder.resolve())
    return near if near.count("..") <= UP else base.name


def state_base(folder: Path, base: ModelRef) -> None:
    """Name the base anew in an adapter whose folder was moved."""
    path = folder / CONFIG
    write_json(path, read_json(path) | {"base_model_name_or_path": base_name(base, folder)})
