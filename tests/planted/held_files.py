"""Tiny models as users hold them beside safetensors: GGUF, GPTQ and AWQ with known weights."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from repsim.core.aside import written_aside
from repsim.core.files import read_json, write_json


def write_tiny_gguf(
    file: str | Path, model: Any, tokenizer: Any, *,
    packing: Callable[[str, tuple[int, ...]], str] = lambda name, shape: "F32", per_part: int = 0,
) -> Path:  # fmt: skip
    """A Llama as GGUF; `packing` names a tensor's type (Q4_0 ...), `per_part` splits it."""
    from gguf import GGMLQuantizationType, GGUFWriter, quantize
    from transformers import modeling_gguf_pytorch_utils as tables

    config = model.config
    processor = tables.LlamaTensorProcessor(config=config.to_dict())
    whole = Path(file)
    with contextlib.nullcontext(whole) if per_part else written_aside(whole) as target:
        writer = GGUFWriter(target, "llama", split_max_tensors=per_part,
                            small_first_shard=per_part > 0)  # fmt: skip
        _describe(writer, config)
        _add_tokenizer(writer, tokenizer)
        state = model.state_dict()
        for name, own in tables.get_gguf_hf_weights_map(model, processor).items():
            if name == "output.weight" and config.tie_word_embeddings:
                continue
            values = state[own].float().numpy()
            if ".attn_q." in name or ".attn_k." in name:
                heads = config.num_attention_heads
                heads = heads if ".attn_q." in name else config.num_key_value_heads
                values = _interleaved(values, heads)
            kind = packing(name, values.shape) if values.ndim > 1 else "F32"
            packed = GGMLQuantizationType[kind]
            data = values if kind == "F32" else quantize(values, packed)
            writer.add_tensor(name, data, raw_dtype=packed)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return min(whole.parent.glob(f"{whole.stem}-00001-of-*.gguf")) if per_part else whole


def _interleaved(values: Any, heads: int) -> Any:
    """Rows of a head in the order of llama.cpp: the two of a rotated pair beside each other."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _describe(writer: Any, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any) -> None:
    from gguf import TokenType

    document = tokenizer.backend_tokenizer
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_tokens)
    merges = json.loads(document.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    kinds = [TokenType.CONTROL if token in special else TokenType.NORMAL for token, _ in vocabulary]
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)


#: What the two ways to pack 4-bit numbers state in a config.
PACKED = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
}
#: Which column of eight AWQ puts into which four bits of a word, the lowest first.
_AWQ = (0, 2, 4, 6, 1, 3, 5, 7)


def write_packed(source: str | Path, target: str | Path, method: str) -> dict[str, Any]:
    """Pack the projections of a model folder as GPTQ or AWQ stores them, by rounding."""
    import torch
    from safetensors.torch import load_file, save_file

    source, target = Path(source), Path(target)
    shutil.copytree(source, target)
    tensors, known = load_file(source / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        columns = tensors.pop(name).float().numpy().T  # input x output
        groups = np.repeat(np.arange(len(columns) // 32), 32)
        parts = columns.reshape(-1, 32, columns.shape[1])
        low, high = parts.min(1), parts.max(1)
        scale = ((high - low) / 15).astype(np.float16)
        zero = np.clip(np.rint(-low / scale.astype(np.float32)), 1, 15)
        q = np.clip(np.rint(columns / scale[groups].astype(np.float32)) + zero[groups], 0, 15)
        known[name] = torch.tensor((q - zero[groups]) * scale[groups].astype(np.float32)).T
        stem = name.removesuffix("weight")
        if method == "gptq":  # eight rows in a word; zero points less one
            held = {"qweight": _words(q.T).T, "qzeros": _words(zero - 1), "g_idx": groups}
        else:
            held = {key: _words(all_.reshape(len(all_), -1, 8)[..., _AWQ].reshape(len(all_), -1))
                    for key, all_ in (("qweight", q), ("qzeros", zero))}  # fmt: skip
        for key, values in (held | {"scales": scale}).items():
            kept = values.astype(np.int32) if key == "g_idx" else values
            tensors[stem + key] = torch.tensor(np.ascontiguousarray(kept))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = read_json(target / "config.json")
    write_json(target / "config.json", config | {"quantization_config": PACKED[method]})
    return known


def _words(values: Any) -> Any:
    """Eight numbers of four bits of a row in each word, the first one lowest."""
    eights = values.astype(np.uint32).reshape(len(values), -1, 8)
    return (eights << (4 * np.arange(8, dtype=np.uint32))).sum(-1, dtype=np.uint32).view(np.int32)
