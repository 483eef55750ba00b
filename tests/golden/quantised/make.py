"""Make the golden values of quantised matrices, with the libraries that define their formats.

    pip install bitsandbytes==0.50.2 compressed-tensors==0.20.1   # and the sources of
    PYTHONPATH=gptqmodel-7.7.0:autoawq-0.2.9/awq/utils python tests/golden/quantised/make.py

Writes `values.safetensors`: for each case its parts, as they stand in a checkpoint, and `=`, the
matrix that the library itself unpacks. The settings that a config would state are in the metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

ROWS, COLUMNS, GROUP = 32, 128, 32


def by_bitsandbytes(w: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    import bitsandbytes.functional as bnb

    found = {}
    for name, kind, nested in (
        ("nf4", "nf4", False),
        ("nf4 nested", "nf4", True),
        ("fp4", "fp4", False),
    ):
        packed, state = bnb.quantize_4bit(
            w, blocksize=64, compress_statistics=nested, quant_type=kind
        )
        parts = {f".{key}": value for key, value in state.as_dict(packed=True).items()}
        unpacked = bnb.dequantize_4bit(packed, state)
        found[f"bitsandbytes {name}"] = {"": packed, **parts, "=": unpacked}
    packed, scale, _ = bnb.int8_vectorwise_quant(w.half())
    unpacked = bnb.int8_vectorwise_dequant(packed, scale)
    found["bitsandbytes int8"] = {".weight": packed, ".SCB": scale, "=": unpacked}
    return found


def by_compressed_tensors(w: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams
    from compressed_tensors.quantization.utils.helpers import generate_gparam

    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "fp8, one scale": ("float-quantized", {
            "num_bits": 8, "type": "float", "strategy": "tensor"}),
        "fp8, rows": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
        "int8, zero points": ("int-quantized", {
            "num_bits": 8, "symmetric": False, "strategy": "channel"}),
        "packed 4": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": GROUP}),
        "packed 8": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
        "packed 4, zero points": ("pack-quantized", {
            "num_bits": 4, "strategy": "group", "group_size": GROUP, "symmetric": False}),
        "nvfp4": ("nvfp4-pack-quantized", {
            "num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}),
    }  # fmt: skip
    found = {}
    for name, (form, settings) in cases.items():
        args = QuantizationArgs(**{"symmetric": True, "dynamic": False, **settings})
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)
        if args.strategy == "tensor":
            low, high = w.min(), w.max()
        else:
            grouped = w.unflatten(1, (-1, args.group_size or COLUMNS))
            low, high = grouped.amin(-1), grouped.amax(-1)
        extra = {}
        if args.strategy == "tensor_group":
            extra["global_scale"] = generate_gparam(w.min(), w.max())
        scale, zero = calculate_qparams(low, high, args, **extra)
        state = {
            "weight": w,
            "weight_scale": scale.reshape(-1, scale.shape[-1] if scale.ndim else 1),
        }
        if args.strategy == "tensor":
            state["weight_scale"] = scale.reshape(1)
        if not args.symmetric:
            state["weight_zero_point"] = zero.reshape(state["weight_scale"].shape)
        if extra:
            state["weight_global_scale"] = extra["global_scale"].reshape(1)
        compressor = BaseCompressor.get_value_from_registry(form)
        parts = compressor.compress(state, scheme)
        unpacked = compressor.decompress(parts, scheme)["weight"]
        parts = {key.removeprefix("weight"): value for key, value in parts.items()}
        found[f"compressed-tensors {name}"] = {**parts, "=": unpacked}
    return found


def grouped(w: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points [rows, groups] of an asymmetric quantiser."""
    parts = w.unflatten(1, (-1, GROUP))
    low, high = parts.amin(-1), parts.amax(-1)
    scale = ((high - low) / (2**bits - 1)).half().float()
    return scale, (-low / scale).round().clamp(1, 2**bits - 1)


def by_gptqmodel(w: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    found = {}
    linear = nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = w
    for bits, order in ((4, False), (4, True), (8, False)):
        scale, zero = grouped(w, bits)
        groups = torch.arange(COLUMNS, dtype=torch.int32) // GROUP
        if order:
            groups = groups[torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(1))]
        module = TorchLinear(
            bits=bits, group_size=GROUP, sym=False, desc_act=order, in_features=COLUMNS,
            out_features=ROWS, bias=False, register_buffers=True)  # fmt: skip
        module.pack_block(linear, scale, zero, groups)
        module.post_init()
        unpacked = module.dequantize_weight().T.float()
        for version in ("gptq_v2", "gptq"):
            if version == "gptq":
                convert_gptq_v2_to_v1_format_module(
                    module, QuantizeConfig(bits=bits, group_size=GROUP)
                )
            parts = {
                f".{key}": getattr(module, key).clone()
                for key in ("qweight", "qzeros", "scales", "g_idx")
            }
            found[f"gptq {bits}{', order' if order else ''}, {version}"] = {**parts, "=": unpacked}
    return found


def by_autoawq(w: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    from packing_utils import AWQ_ORDER, dequantize_gemm  # of awq.utils

    scale, zero = grouped(w, 4)
    wide, middle = scale.repeat_interleave(GROUP, 1), zero.repeat_interleave(GROUP, 1)
    q = (w / wide + middle).round().clamp(0, 15).int().T.contiguous()

    def packed(numbers: torch.Tensor) -> torch.Tensor:  # as WQLinear_GEMM.from_linear packs them
        words = torch.zeros(len(numbers), numbers.shape[1] // 8, dtype=torch.int32)
        for column in range(words.shape[1]):
            for i in range(8):
                words[:, column] |= numbers[:, column * 8 + AWQ_ORDER[i]] << (i * 4)
        return words

    parts = {".qweight": packed(q), ".qzeros": packed(zero.int().T.contiguous()),
             ".scales": scale.T.contiguous().half()}  # fmt: skip
    unpacked = dequantize_gemm(parts[".qweight"], parts[".qzeros"], parts[".scales"], 4, GROUP)
    return {"awq 4": {**parts, "=": unpacked.T.float()}}


def main() -> None:
    w = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.1
    cases = by_bitsandbytes(w) | by_compressed_tensors(w) | by_gptqmodel(w) | by_autoawq(w)
    tensors = {
        f"{case}|{part}": value.detach().clone().contiguous()
        for case, parts in cases.items() for part, value in parts.items()
    } | {"original": w}  # fmt: skip
    save_file(
        tensors, Path(__file__).parent / "values.safetensors", {"cases": json.dumps(sorted(cases))}
    )


if __name__ == "__main__":
    main()
