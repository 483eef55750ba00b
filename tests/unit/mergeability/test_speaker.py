"""Logits from last hidden states: those of the model, in few passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config

from repsim.evaluation.bits_per_byte import cut
from repsim.mergeability.features import activation_features
from repsim.mergeability.features.opened import OpenedParents
from repsim.mergeability.features.speaker import Speaker
from repsim.testing.tiny_models import tiny_model

DOCUMENTS = (np.arange(5, 25), np.array([7, 9, 7, 3]), np.arange(30, 41))
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def passes_of(model: Any) -> list[int]:
    """Grows by the rows of each pass through the body of a model."""
    seen: list[int] = []
    # The module that embeds is part of every pass, with a head or without.
    model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: seen.append(len(args[0]))
    )
    return seen


def ask(speaker: Speaker, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a speaker, and those of its model."""
    windows = cut(DOCUMENTS, context, bos=1)
    found = speaker.logits(windows.tokens, windows.scored)
    ids = torch.from_numpy(windows.tokens)
    with torch.no_grad():
        whole = speaker.model(input_ids=ids[:, :-1]).logits[torch.from_numpy(windows.scored)]
    return found, whole


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("context", [64, 8])
def test_logits_are_those_of_the_model(family: str, context: int) -> None:
    speaker = Speaker(tiny_model(family, head=True))
    for _ in range(2):  # the second time from what was kept
        found, whole = ask(speaker, context)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.05),
     CohereConfig(**SMALL, logit_scale=0.1)],
)  # fmt: skip
def test_a_model_that_caps_or_scales_its_logits_is_run_as_a_whole(config: Any) -> None:
    torch.manual_seed(0)
    speaker = Speaker(AutoModelForCausalLM.from_config(config).eval())
    found, whole = ask(speaker, 64)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    found, whole = ask(speaker, 64)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)


def test_what_was_read_once_is_not_read_again() -> None:
    speaker = Speaker(tiny_model("llama", head=True))
    passes = passes_of(speaker.model)
    windows = cut(DOCUMENTS, 64, bos=1)
    speaker.logits(windows.tokens, windows.scored)
    before = len(passes)
    speaker.logits(windows.tokens, windows.scored)
    assert len(passes) == before


def test_outputs_come_from_the_pass_that_extracts(tmp_path: Path) -> None:
    with OpenedParents(["zoo:eng-fork", "zoo:deu-fork"], device="cpu") as parents:
        passes = [passes_of(parent.head) for parent in parents.loaded]
        activation_features(
            parents, languages=["eng_Latn"], limit=40, text=None, cache=tmp_path / "cache"
        )
        of_weights = sum(p.numel() * 4 for p in parents.loaded[0].head.parameters())
        assert parents.models[0].held >= of_weights + parents.loaded[0].speaker.held
        assert parents.loaded[0].speaker.held > 40 * 4 * parents.loaded[0].head.config.hidden_size
        rows = [sum(seen) for seen in passes]
        # Each sentence once, and one window twice to see whether the head alone gives the logits.
        assert rows == [42, 42]
