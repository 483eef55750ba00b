"""Folding norms keeps the function and makes the residual stream free to rotate."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.align.checking import output_difference
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.weights import pack, unpack
from repsim.models.arch import spec_for
from repsim.models.arch.spaces import GAINS, split_key
from repsim.testing.tiny_models import tiny_model


def parts(kind: str, **options: Any) -> tuple[Any, dict[str, torch.Tensor], Any]:
    model = tiny_model(kind, head=kind != "bert", **options)
    return model.config, dict(model.state_dict()), spec_for(kind.partition("+")[0]).spaces(
        model.config
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "llama+tied", "qwen2", "gemma", "gpt2", "gpt_neox"])
def test_folding_keeps_the_function_and_leaves_no_gain(kind: str) -> None:
    config, state, spaces = parts(kind)
    folded, untied = fold_norms(unpack(state, spaces), spaces)
    after = copy.deepcopy(config)
    after.tie_word_embeddings = False
    packed = pack(folded, state, untied)
    assert output_difference(config, state, packed, after_config=after) < 1e-5
    gains = [weight for key, weight in folded.items() if split_key(key)[1] in GAINS]
    assert all(bool((gain == 1 - spaces.gain_offset).all()) for gain in gains)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_writers_of_a_layernorm_model_add_zero_mean(kind: str) -> None:
    _, state, spaces = parts(kind)
    folded, _ = fold_norms(unpack(state, spaces), spaces)
    for key in ("embed", "0.o", "0.o_bias", "1.down", "1.down_bias"):
        assert float(folded[key].mean(-1).abs().max()) < 1e-12


def test_a_norm_whose_readers_have_biases_keeps_none() -> None:
    _, state, spaces = parts("gpt2")
    folded, _ = fold_norms(unpack(state, spaces), spaces)
    assert not bool(folded["0.attn_norm_bias"].any())
    # The head has no bias to take over that of the final norm.
    assert bool(folded["final_norm_bias"].any())


def test_folding_untied_the_head_and_left_what_it_was_given() -> None:
    _, state, spaces = parts("llama+tied")
    weights = unpack(state, spaces)
    before = {key: weight.clone() for key, weight in weights.items()}
    folded, untied = fold_norms(weights, spaces)
    assert not untied.tied
    assert not torch.equal(folded["head"], folded["embed"])
    assert all(torch.equal(weights[key], before[key]) for key in before)


def test_post_norm_models_are_refused() -> None:
    _, state, spaces = parts("bert")
    with pytest.raises(IncompatibleModelsError, match="gains of its norms stand on the stream"):
        fold_norms(unpack(state, spaces), spaces)


def test_a_body_without_a_head_is_refused() -> None:
    model = tiny_model("llama")
    spaces = spec_for("llama").spaces(model.config)
    with pytest.raises(IncompatibleModelsError, match="without its language-model head cannot be"):
        fold_norms(unpack(model.state_dict(), spaces), spaces)


def test_a_gain_of_zero_beside_a_bias_is_refused_where_it_would_be_divided_by() -> None:
    _, state, spaces = parts("gpt2")
    state["transformer.ln_f.weight"] = state["transformer.ln_f.weight"].clone()
    state["transformer.ln_f.weight"][3] = 0
    with pytest.raises(IncompatibleModelsError, match="'final_norm' has a bias and a gain of zero"):
        fold_norms(unpack(state, spaces), spaces)
