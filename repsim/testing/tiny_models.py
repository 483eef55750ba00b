"""Tiny models with random weights, one per family, saved as Hugging Face folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from repsim.core.aside import written_aside
from repsim.core.errors import unknown_name
from repsim.core.files import write_json

WIDTH = 32
HEADS = 4
BOS, EOS, PAD, UNK = 0, 1, 2, 3
_SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
#: Merges of the tiny tokenizer, so that tokens of one to four bytes occur ("Ġ" = space).
_MERGES = ("t h", "th e", "Ġ the", "i n", "e r", "Ġ d", "Ġd er", "Ð ¸", "a n", "an d")


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """How a tiny model of one kind is built."""

    config_class: str
    config: dict[str, Any]
    template: str = "<s> $A"


_LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_BERT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 130,
}
_OPT = {
    "hidden_size": WIDTH,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 128,
    "word_embed_proj_dim": WIDTH,
}
_T5 = {
    "d_model": WIDTH,
    "d_ff": 48,
    "d_kv": 8,
    "num_layers": 2,
    "num_heads": HEADS,
    "decoder_start_token_id": PAD,
}
_GPT_NEOX = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 128,
}
# The head size of Gemma and Qwen 3 is not width / heads.
_WIDE_HEADS = {**_LLAMA, "head_dim": 16}
_HALF_ROTARY = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
}

_EXPERTS = {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LOCAL_EXPERTS = {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
_FALCON = {
    "hidden_size": WIDTH,
    "ffn_hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "bias": True,
}
_DEEPSEEK = {
    **_LLAMA,
    "num_key_value_heads": HEADS,
    "moe_intermediate_size": 24,
    "num_experts_per_tok": 2,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

#: Kind -> recipe. The key is a model type, or a model type with a variant after "+".
_RECIPES: dict[str, _Recipe] = {
    "llama": _Recipe("LlamaConfig", _LLAMA),
    "llama+tied": _Recipe("LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}),
    "mistral": _Recipe("MistralConfig", {**_LLAMA, "sliding_window": 16}),
    "ministral": _Recipe("MinistralConfig", {**_LLAMA, "sliding_window": 16, "head_dim": 8}),
    "ministral3": _Recipe("Ministral3Config", {**_LLAMA, "head_dim": 16}),
    "qwen2": _Recipe("Qwen2Config", _LLAMA, "$A"),
    "qwen3": _Recipe("Qwen3Config", _WIDE_HEADS, "$A"),
    "gemma": _Recipe("GemmaConfig", _WIDE_HEADS),
    "gemma2": _Recipe("Gemma2Config", {**_WIDE_HEADS, "sliding_window": 16}),
    "gemma3_text": _Recipe("Gemma3TextConfig", {**_WIDE_HEADS, "sliding_window": 16}),
    "gemma3": _Recipe(
        "Gemma3Config",
        {
            "text_config": {**_WIDE_HEADS, "sliding_window": 16},
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
        },
    ),
    "mistral3": _Recipe(
        "Mistral3Config",
        {
            "text_config": {**_LLAMA, "head_dim": 8, "model_type": "mistral"},
            "vision_config": {**_VISION, "head_dim": 8, "model_type": "pixtral"},
        },
    ),
    "cohere": _Recipe("CohereConfig", _LLAMA, "$A"),
    "cohere2": _Recipe("Cohere2Config", {**_LLAMA, "sliding_window": 16}, "$A"),
    "cohere+qk-norm": _Recipe("CohereConfig", {**_LLAMA, "use_qk_norm": True}, "$A"),
    "glm": _Recipe("GlmConfig", {**_LLAMA, "head_dim": 16}, "$A"),
    "glm4": _Recipe("Glm4Config", {**_LLAMA, "head_dim": 16}, "$A"),
    "helium": _Recipe("HeliumConfig", {**_LLAMA, "head_dim": 8}, "$A"),
    "ernie4_5": _Recipe("Ernie4_5Config", {**_LLAMA, "head_dim": 8}, "$A"),
    "granite": _Recipe("GraniteConfig", {**_LLAMA, "embedding_multiplier": 2.0}),
    "granite+scaled": _Recipe("GraniteConfig", {**_LLAMA, "residual_multiplier": 0.5}),
    "olmo2": _Recipe("Olmo2Config", _LLAMA, "$A"),
    "olmo3": _Recipe("Olmo3Config", {**_LLAMA, "sliding_window": 16}, "$A"),
    "phi": _Recipe("PhiConfig", {**_LLAMA, **_HALF_ROTARY}, "$A"),
    "phi+qk-norm": _Recipe("PhiConfig", {**_LLAMA, **_HALF_ROTARY, "qk_layernorm": True}, "$A"),
    "phi3": _Recipe("Phi3Config", _LLAMA),
    "phi3+partial": _Recipe(
        "Phi3Config", {**_LLAMA, "rope_parameters": {**_HALF_ROTARY["rope_parameters"]}}
    ),
    "smollm3": _Recipe("SmolLM3Config", {**_LLAMA, "no_rope_layer_interval": 2}),
    "stablelm": _Recipe("StableLmConfig", {**_LLAMA, **_HALF_ROTARY}, "$A"),
    "stablelm+parallel": _Recipe("StableLmConfig", {**_LLAMA, "use_parallel_residual": True}, "$A"),
    "stablelm+qk-norm": _Recipe("StableLmConfig", {**_LLAMA, "qk_layernorm": True}, "$A"),
    "starcoder2": _Recipe("Starcoder2Config", {**_LLAMA, "sliding_window": 16}, "$A"),
    "falcon": _Recipe("FalconConfig", _FALCON, "$A"),
    "falcon+serial": _Recipe(
        "FalconConfig", {**_FALCON, "multi_query": False, "parallel_attn": False}, "$A"
    ),
    "falcon+grouped": _Recipe(
        "FalconConfig", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, "$A"
    ),
    "mixtral": _Recipe("MixtralConfig", _LOCAL_EXPERTS),
    "qwen2_moe": _Recipe(
        "Qwen2MoeConfig", {**_EXPERTS, "shared_expert_intermediate_size": 40}, "$A"
    ),
    "qwen3_moe": _Recipe("Qwen3MoeConfig", {**_EXPERTS, "mlp_only_layers": [1]}, "$A"),
    "olmoe": _Recipe("OlmoeConfig", {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2}, "$A"),
    "gpt_oss": _Recipe(
        "GptOssConfig", {**_LOCAL_EXPERTS, "head_dim": 8, "sliding_window": 16}, "$A"
    ),
    "deepseek_v3": _Recipe("DeepseekV3Config", _DEEPSEEK),
    "mamba": _Recipe(
        "MambaConfig", {"hidden_size": WIDTH, "state_size": 6, "num_hidden_layers": 2}, "$A"
    ),
    "gpt2": _Recipe(
        "GPT2Config", {"n_embd": WIDTH, "n_layer": 3, "n_head": HEADS, "n_positions": 128}, "$A"
    ),
    "gpt_neox": _Recipe("GPTNeoXConfig", _GPT_NEOX, "$A"),
    "gpt_neox+serial": _Recipe(
        "GPTNeoXConfig", {**_GPT_NEOX, "use_parallel_residual": False}, "$A"
    ),
    "opt": _Recipe("OPTConfig", _OPT),
    "opt+post-norm": _Recipe(
        "OPTConfig", {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16}
    ),
    "bloom": _Recipe("BloomConfig", {"hidden_size": WIDTH, "n_layer": 2, "n_head": HEADS}, "$A"),
    "bert": _Recipe("BertConfig", _BERT, "<s> $A </s>"),
    "roberta": _Recipe("RobertaConfig", _BERT, "<s> $A </s>"),
    "xlm-roberta": _Recipe("XLMRobertaConfig", _BERT, "<s> $A </s>"),
    "camembert": _Recipe("CamembertConfig", _BERT, "<s> $A </s>"),
    "distilbert": _Recipe(
        "DistilBertConfig",
        {
            "dim": WIDTH,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": HEADS,
            "max_position_embeddings": 128,
        },
        "<s> $A </s>",
    ),
    "modernbert": _Recipe(
        "ModernBertConfig",
        {
            **_BERT,
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 0,
            "sep_token_id": 1,
        },
        "<s> $A </s>",
    ),
    "t5": _Recipe("T5Config", _T5, "$A </s>"),
    "mt5": _Recipe("MT5Config", {**_T5, "feed_forward_proj": "gated-gelu"}, "$A </s>"),
}

#: What `tiny_model` can build.
KINDS: tuple[str, ...] = tuple(_RECIPES)


def tiny_tokenizer(template: str = "<s> $A") -> Any:
    """A byte-level BPE tokenizer of a few hundred tokens that encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(a, b) for a, b in (line.split() for line in _MERGES)]
    pieces += [a + b for a, b in merges]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def tiny_config(kind: str, **overrides: Any) -> Any:
    """The `transformers` config of a tiny model."""
    import transformers

    if kind not in _RECIPES:
        raise unknown_name("kind of tiny model", kind, _RECIPES)
    recipe = _RECIPES[kind]
    vocabulary = -(-(len(_SPECIAL) + 256 + len(_MERGES)) // 8) * 8
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    own = recipe.config.get("text_config", recipe.config)
    values = {**ids, **own, "vocab_size": vocabulary, **overrides}
    if "text_config" in recipe.config:
        values = {**recipe.config, "text_config": values}
    return getattr(transformers, recipe.config_class)(**values)


def tiny_model(kind: str, *, seed: int = 0, head: bool = False, **overrides: Any) -> Any:
    """A tiny model with random weights, norms and biases in evaluation mode."""
    import torch
    import transformers

    config = tiny_config(kind, **overrides)
    sees = getattr(config, "vision_config", None) is not None
    whole = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
    auto_class = getattr(transformers, whole if head else "AutoModel")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class.from_config(config)
        with torch.no_grad():
            # Wide, norms and biases too: a term left out, or a norm read on the wrong side, shows.
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def write_tiny_model(
    kind: str, folder: str | Path, *, seed: int = 0, head: bool = False, **overrides: Any
) -> Path:
    """Save a tiny model with its tokenizer as a Hugging Face folder."""
    from repsim.models.load import quiet_transformers

    target = Path(folder)
    model = tiny_model(kind, seed=seed, head=head, **overrides)
    with written_aside(target) as aside, quiet_transformers():
        model.save_pretrained(aside)
        tiny_tokenizer(_RECIPES[kind].template).save_pretrained(aside)
    return target


def write_provenance(folder: str | Path, **fields: Any) -> Path:
    """State the history of a model beside its weights, as pretraining does."""
    return write_json(Path(folder) / "repsim_provenance.json", fields)
