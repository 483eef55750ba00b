import pytest
import torch

from repsim.core import IncompatibleModelsError
from repsim.models.arch import HookPoint
from repsim.models.hooks import evaluating, hooked

IDS = torch.tensor([[0, 17, 33, 90, 41, 5]])


def read_all(loaded, points=("resid",), ids=IDS):
    seen = {}
    hooks = loaded.spec.hook_points(loaded.model, points)
    body = loaded.spec.body(loaded.model)
    with torch.inference_mode(), hooked(body, hooks, lambda h, x: seen.update({h: x.clone()})):
        body(input_ids=ids)
    return {(hook.point, hook.layer): value for hook, value in seen.items()}


def test_reading_changes_nothing_and_hooks_are_removed(fresh):
    loaded = fresh("llama")
    with torch.inference_mode():
        before = loaded.model(input_ids=IDS).last_hidden_state
        seen = read_all(loaded, ("resid", "attn", "mlp", "heads", "mlp_hidden"))
        assert len(seen) == 3 + 4 * 2
        assert torch.equal(loaded.model(input_ids=IDS).last_hidden_state, before)
    assert count_hooks(loaded.model) == 0


def test_hooks_are_removed_when_the_pass_fails(fresh):
    loaded = fresh("gpt2")

    def fail(hook, hidden):
        raise ValueError("on purpose")

    hooks = loaded.spec.hook_points(loaded.model, ("resid",))
    with pytest.raises(ValueError, match="on purpose"), hooked(loaded.model, hooks, fail):
        loaded.model(input_ids=IDS)
    assert count_hooks(loaded.model) == 0


def test_hooks_are_removed_when_a_module_is_missing(fresh):
    loaded = fresh("gpt2")
    hooks = [HookPoint("resid", 1, "h.0", "output"), HookPoint("resid", 2, "h.77", "output")]
    with pytest.raises(AttributeError), hooked(loaded.model, hooks, lambda h, x: None):
        pass
    assert count_hooks(loaded.model) == 0


def test_a_part_that_gives_no_tokens_is_named():
    body = torch.nn.Sequential(torch.nn.Unflatten(2, (2, 2)))
    hooks = [HookPoint("resid", 1, "0", "output")]
    with (
        pytest.raises(IncompatibleModelsError, match=r"'0' gives \(3, 5, 2, 2\) where \[3, tokens"),
        hooked(body, hooks, lambda h, x: None),
    ):
        body(torch.zeros(3, 5, 4))


def test_modes_are_put_back_module_by_module(fresh):
    model = fresh("gpt2").model
    model.h[1].train()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def count_hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
