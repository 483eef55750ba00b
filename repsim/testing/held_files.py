"""Tiny models as users hold them beside safetensors: GGUF files with known weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repsim.core.aside import written_aside


def write_tiny_gguf(
    file: str | Path, model: Any, tokenizer: Any, *,
    packing: Callable[[str, tuple[int, ...]], str] = lambda name, shape: "F32",
) -> Path:  # fmt: skip
    """Write a model of the Llama family as a GGUF file, as llama.cpp does.

    Args:
        file: Where to.
        model: A `LlamaForCausalLM`.
        tokenizer: Its byte-level BPE tokenizer.
        packing: The type of a tensor, from its name in the file and its shape: F32, F16, BF16,
            Q4_0, Q4_1, Q8_0. Tensors of one dimension are float32 whatever it says.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import tiny_model, tiny_tokenizer
        >>> model = tiny_model("llama", head=True)
        >>> file = write_tiny_gguf(tempfile.mkdtemp() + "/a.gguf", model, tiny_tokenizer("<s> $A"))
        >>> file.read_bytes()[:4]
        b'GGUF'
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quantize
    from transformers import modeling_gguf_pytorch_utils as tables

    config = model.config
    processor = tables.LlamaTensorProcessor(config=config.to_dict())
    with written_aside(file) as aside:
        writer = GGUFWriter(aside, "llama")
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
    return Path(file)


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
