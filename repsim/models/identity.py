"""What tells one set of weights from another: a hash of them as they are in memory."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from repsim.core.files import hash_bytes, hash_json

if TYPE_CHECKING:
    import torch
    from torch import nn


def of_tensor(tensor: torch.Tensor) -> str:
    """CRC-32 of a tensor's bytes, eight hexadecimal digits."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of one entry or none, which count as contiguous
        flat = flat.new_empty(flat.shape).copy_(flat)
    return f"{zlib.crc32(flat.view(torch.uint8).numpy().data):08x}"


def weights_in_memory(model: nn.Module) -> str:
    """Hash of a model's weights and buffers as they are now; empty where some are on disk."""
    tensors = sorted(model.state_dict().items())
    if any(tensor.is_meta for _, tensor in tensors):
        return ""
    return hash_json([[n, str(t.dtype), list(t.shape), of_tensor(t)] for n, t in tensors])


def place_of(model: nn.Module) -> torch.device:
    """Where a model takes its input: where its first weights are that are in memory."""
    import torch

    held = (p.device for p in model.parameters() if not p.is_meta)
    return next(held, torch.device("cpu"))


def weight_versions(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Place and version of each tensor of a model; they change when it is trained or moved."""
    tensors = model.state_dict(keep_vars=True).values()
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def tokenizer_in_memory(tokenizer: Any) -> str:
    """Hash of how a `transformers` tokenizer cuts text."""
    if getattr(tokenizer, "is_fast", False):
        document = json.loads(tokenizer.backend_tokenizer.to_str())
        # What the last call asked for, not what the tokenizer is.
        text = json.dumps(document | {"padding": None, "truncation": None}, sort_keys=True)
    else:
        text = json.dumps([type(tokenizer).__name__, tokenizer.get_vocab()], sort_keys=True)
    return hash_bytes(text.encode())
