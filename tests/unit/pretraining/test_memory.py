"""Memory of a step: logits in pieces, parts that fit, and what is said where nothing fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from repsim.core.errors import ResourceError
from repsim.core.pool import one_thread
from repsim.pretraining import memory
from repsim.pretraining.config_training import LoraConfig, TrainingConfig
from repsim.pretraining.distributed import World
from repsim.pretraining.engine import build_engine
from repsim.pretraining.memory import (
    LOGITS_ON_CPU,
    PLAIN_HEADS,
    logits_at_once,
    memory_errors,
    more_parts,
    no_room_for_state,
)
from repsim.pretraining.step import NextTokenLoss

VOCABULARY, ROWS, CONTEXT = 300, 4, 8
CPU = torch.device("cpu")
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip


def tiny(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE)).eval()


def windows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, VOCABULARY, (ROWS, CONTEXT + 1), generator=generator)


def loss_and_gradients(model: Any, tokens_at_once: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    losses = NextTokenLoss(model, tokens_at_once)(windows())
    model.zero_grad()
    # Tokens with weights of their own: the gradient of a mean would not show a mix-up.
    (losses * torch.linspace(0.5, 2, losses.numel()).view_as(losses)).sum().backward()
    return losses.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", PLAIN_HEADS)
def test_pieces_have_the_losses_and_the_gradients_of_the_whole(kind: str) -> None:
    model = tiny(kind)
    whole, gradients = loss_and_gradients(model, 0)
    for tokens_at_once in (5, 1000):  # the last piece is shorter; one piece
        pieces, theirs = loss_and_gradients(model, tokens_at_once)
        torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(theirs, gradients, rtol=1e-5, atol=1e-6)


def test_pieces_are_of_an_adapters_model_too() -> None:
    pytest.importorskip("peft", reason="the extra 'peft' is not installed")
    training = TrainingConfig(steps=1, batch=ROWS, lora=LoraConfig(rank=2))
    engine = build_engine(tiny("llama").config, training, World(0, 1, CPU), CONTEXT)
    with one_thread():  # more sum in another order
        whole, gradients = loss_and_gradients(engine.model, 0)
        pieces, theirs = loss_and_gradients(engine.model, 5)
    assert len(gradients) == len(theirs) > 0
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(theirs, gradients, rtol=1e-5, atol=1e-7)


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation makes, backward ones too."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return out


def test_no_more_logits_than_those_of_a_piece_are_made() -> None:
    model = tiny("llama")
    largest = {}
    for tokens_at_once in (0, 4):
        with Largest() as seen:
            loss_and_gradients(model, tokens_at_once)
        largest[tokens_at_once] = seen.elements
    assert largest[0] == ROWS * CONTEXT * VOCABULARY
    assert largest[4] == VOCABULARY * SHAPE["hidden_size"], "weights are larger than a piece"


def test_pieces_are_one_graph() -> None:
    model = tiny("llama")
    module = NextTokenLoss(model, 5)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(compiled(windows()), module(windows()))
    compiled(windows()).mean().backward()


def test_logits_are_cut_by_a_stated_rule() -> None:
    config = tiny("llama").config
    fits = LOGITS_ON_CPU // (4 * VOCABULARY)
    assert logits_at_once(config, fits, CPU) == 0
    pieces = logits_at_once(config, fits + 1, CPU)
    assert 0 < pieces * 4 * VOCABULARY < LOGITS_ON_CPU / 4
    config.model_type = "gemma2"  # whose logits are capped after the product
    assert logits_at_once(config, fits + 1, CPU) == 0


def test_the_engine_follows_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    training = TrainingConfig(steps=1, batch=ROWS, accumulation=2)
    seen = {}
    for limit in (4 * VOCABULARY * ROWS // 2 * CONTEXT, 4 * VOCABULARY):
        monkeypatch.setattr(memory, "LOGITS_ON_CPU", limit)
        engine = build_engine(tiny("llama").config, training, World(0, 1, CPU), CONTEXT)
        seen[limit] = engine.losses.tokens_at_once  # type: ignore[attr-defined]
    assert list(seen.values()) == [0, 1]


def test_parts_are_equal_and_at_least_twice_as_many() -> None:
    assert [more_parts(12, n) for n in (1, 2, 3, 4, 6, 12)] == [2, 4, 6, 12, 12, None]
    assert more_parts(7, 1) == 7


def test_memory_that_runs_out_names_the_setting_that_saves_it() -> None:
    training = TrainingConfig(steps=1, batch=6, accumulation=3)
    with (
        pytest.raises(ResourceError, match=r"in 3 parts .*set training.accumulation to 6 and run"),
        memory_errors(training),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with (
        pytest.raises(ResourceError, match=r"state of the optimizer does not fit.*lora"),
        no_room_for_state(),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(training):
        raise RuntimeError("shapes do not fit")
