"""Quantised checkpoints: weights as small numbers and their scales, unpacked when they are read.

Matrices are recognised by the names of their parts (`schemes`). What is not written there is
refused with the command that unpacks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, InputError
from repsim.core.files import read_json, write_json
from repsim.models.headers import TensorHeader, weight_files
from repsim.models.schemes import SCHEMES
from repsim.models.stored import StoredWeights
from repsim.models.views import copy_tokenizer

if TYPE_CHECKING:
    import torch

#: Keys of a config that say how weights are packed.
KEYS = ("quantization_config", "compression_config")
#: Endings of tensors that scale activations, not weights.
_OF_ACTIVATIONS = (
    ".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale", ".weight_format",
    ".input_zero_point", ".input_global_scale", ".weight.bitsandbytes_stats",
)  # fmt: skip
_NUMBERS = ("F64", "F32", "F16", "BF16", "I64")


def is_quantised(folder: Path) -> bool:
    """Whether a folder's config says that its weights are packed."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    config = read_json(path)
    return isinstance(config, dict) and any(config.get(key) for key in KEYS)


def write_quantised_view(source: Path, folder: Path) -> dict[str, Any]:
    """Write config and tokenizer of a quantised checkpoint; give the document of its view."""
    config = read_json(source / "config.json")
    told = [config.pop(key, None) for key in KEYS]
    settings = next((value for value in told if isinstance(value, dict)), {})
    weights = StoredWeights(weight_files(source))
    found = _matched(weights)
    method = str(settings.get("quant_method", "unknown"))
    used = {name for _, parts in found.values() for name in parts.values()}
    left = [name for name in weights.headers.keys() - used if not name.endswith(_OF_ACTIVATIONS)]
    odd = sorted(name for name in left if weights.headers[name].dtype not in _NUMBERS)
    other = method == "awq" and settings.get("version", "gemm") != "gemm"
    if odd or other or settings.get("transform_config"):
        what = f"tensor {odd[0]} of type {weights.headers[odd[0]].dtype}" if odd else "its settings"
        raise IncompatibleModelsError(
            f"'{source}' is quantised by {method} in a way that is not unpacked here ({what})",
            hint=unpacking_command(source, method),
        )
    write_json(folder / "config.json", config)
    copy_tokenizer(source, folder)
    return {
        "settings": {"block": _block(settings), **{
            key: settings[key] for key in ("checkpoint_format",) if key in settings}},
        "tensors": {target: {"scheme": number, "parts": parts,
                             "shape": _shape(weights, number, parts)}
                    for target, (number, parts) in found.items()},
        "plain": sorted(left),
    }  # fmt: skip


def _shape(weights: StoredWeights, number: int, parts: Mapping[str, str]) -> tuple[int, ...]:
    """Shape of an unpacked tensor, of which at most a small part is read."""
    headers = {part: weights.headers[name] for part, name in parts.items()}
    return SCHEMES[number].shape(headers, lambda part: weights.read(parts[part]))


def unpacking_command(folder: Path, method: str) -> str:
    """What unpacks a checkpoint where the library of its method is installed."""
    load = f"A.from_pretrained('{folder}', device_map='auto').dequantize()"
    return (
        f'unpack it where the library of {method} is installed: python -c "from transformers '
        f"import AutoModelForCausalLM as A; {load}.save_pretrained('unpacked')\""
    )


def _block(settings: Mapping[str, Any]) -> list[int]:
    """Rows and columns of a block with one scale, as far as they are stated."""
    stated = settings.get("weight_block_size")
    for group in (settings.get("config_groups") or {}).values():
        stated = stated or ((group or {}).get("weights") or {}).get("block_structure")
    if isinstance(stated, str):
        stated = stated.split("x")
    return [int(n) for n in stated] if stated and len(stated) == 2 else []


def _matched(weights: StoredWeights) -> dict[str, tuple[int, dict[str, str]]]:
    """Unpacked tensor -> number of its scheme, and ending -> tensor of each part."""
    found: dict[str, tuple[int, dict[str, str]]] = {}
    headers = weights.headers
    for number, scheme in enumerate(SCHEMES):
        for name in headers:
            if not name.endswith(scheme.mark):
                continue
            stem = name.removesuffix(scheme.mark)
            target = stem + scheme.target
            names = {
                part.lstrip("?"): stem + scheme.root + part.lstrip("?") for part in scheme.parts
            }
            optional = {part[1:] for part in scheme.parts if part.startswith("?")}
            parts = {part: name for part, name in names.items() if name in headers}
            if target in found or names.keys() - parts.keys() - optional:
                continue
            if scheme.fits({part: headers[name] for part, name in parts.items()}):
                found[target] = number, parts
    return found


class QuantisedWeights:
    """The weights of a quantised checkpoint, unpacked to float32 when they are read."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.files = [Path(file) for file in document["files"]]
        self._stored = StoredWeights(self.files)
        self._settings: Mapping[str, Any] = document["settings"]
        self._tensors: Mapping[str, Any] = document["tensors"]
        self.headers = {name: self._stored.headers[name] for name in document["plain"]}
        self.headers |= {
            name: TensorHeader("F32", tuple(told["shape"])) for name, told in self._tensors.items()
        }

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor, unpacked if it is packed."""
        told = self._tensors.get(tensor)
        if told is None:
            return self._stored.read(tensor)
        parts = {part: self._stored.read(name) for part, name in told["parts"].items()}
        found = SCHEMES[told["scheme"]].unpack(parts, self._settings)
        if tuple(found.shape) != self.headers[tensor].shape:
            raise InputError(f"the parts of '{tensor}' in '{self.files[0].parent}' do not fit")
        return found.contiguous()
