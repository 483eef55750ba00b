"""Every family that declares symmetries keeps the contract of `repsim.testing.symmetry_checks`."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import pytest
import torch

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.align.twins import random_element
from repsim.models.arch import ARCHITECTURES, spec_for
from repsim.models.arch.spaces import SymmetrySpace
from repsim.testing.symmetry_checks import check_symmetries, illegal_changes
from repsim.testing.tiny_models import KINDS, tiny_config, tiny_model

#: Name -> kind of tiny model and other values of its config: variants of those in the register.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in ("llama", "qwen3", "gemma2", "olmo2", "gpt2", "gpt_neox")},
    "llama, one key-value head": ("llama", {"num_key_value_heads": 1}),
    "llama, no groups": ("llama", {"num_key_value_heads": 4}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt_neox tied": ("gpt_neox", {"tie_word_embeddings": True}),
    "gpt_neox, no biases": ("gpt_neox", {"attention_bias": False}),
}
#: Verified without a head in the register.
ENCODERS = (
    "bert masked-lm", "roberta masked-lm", "distilbert masked-lm", "modernbert masked-lm",
)  # fmt: skip


@functools.cache
def model_of(kind: str) -> Any:
    if kind in DECODERS:
        name, overrides = DECODERS[kind]
        return tiny_model(name, head=True, num_hidden_layers=2, **overrides)
    if not kind.endswith("masked-lm"):
        return tiny_model(kind)
    from transformers import AutoModelForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(tiny_config(kind.partition(" ")[0]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("kind", [*(kind for kind in DECODERS if kind not in KINDS), *ENCODERS])
def test_legal_moves_change_nothing_and_illegal_ones_do(kind: str) -> None:
    model = model_of(kind)
    check_symmetries(model.config, model.state_dict(), seed=3)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "llama",
            (
                "query_heads_across_groups", "one_order_for_queries_and_keys",
                "value_basis_of_one_query_head", "gate_without_up",
            ),
        ),
        ("gpt_neox", ("rotation_off_the_mean", "invertible_residual")),
        ("bert", ("rotation_without_folding",)),
    ],
)  # fmt: skip
def test_illegal_moves_are_made_where_they_exist(kind: str, names: tuple[str, ...]) -> None:
    model = model_of(kind)
    found = illegal_changes(model.config, model.state_dict())
    assert min(found[name] for name in names) > 0.05


def test_families_with_symmetries_offer_the_spaces_that_their_structure_has() -> None:
    def names(kind: str) -> set[str]:
        config = model_of(kind).config
        return {space.name for space in spec_for(config.model_type).spaces(config).spaces}

    everything = {
        "kv_groups", "query_heads", "value_basis", "query_key_basis", "mlp_units", "mlp_scale",
        "residual_permutation", "residual_rotation",
    }  # fmt: skip
    assert names("llama") == everything
    # Queries and keys that are normalised have no basis to choose.
    assert names("qwen3") == everything - {"query_key_basis"}
    # Gains on what a branch adds cannot be folded into a reader.
    assert names("gemma2") == everything - {"residual_rotation"}
    assert names("olmo2") == everything - {"residual_rotation", "query_key_basis"}
    # Without shared keys each query head is its own group; only what is gated can be rescaled.
    assert names("gpt2") == names("gpt_neox") == everything - {"query_heads", "mlp_scale"}
    # Norms that stand on the residual stream let it be re-ordered only.
    assert names("bert") == everything - {"query_heads", "residual_rotation", "mlp_scale"}


def test_the_contract_notices_a_space_that_forgets_a_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, model = ARCHITECTURES["llama"], model_of("llama")

    def forgetful(config: Any) -> Any:
        spaces = spec.spaces(config)
        changed = tuple(_without_up(space) for space in spaces.spaces)
        return dataclasses.replace(spaces, spaces=changed)

    wrong = copy.copy(spec)
    object.__setattr__(wrong, "spaces", forgetful)
    monkeypatch.setattr("repsim.testing.symmetry_checks.spec_for", lambda name: wrong)
    with pytest.raises(AssertionError, match="'0.mlp_units' changes outputs"):
        check_symmetries(model.config, model.state_dict())


def _without_up(space: SymmetrySpace) -> SymmetrySpace:
    return dataclasses.replace(space, roles=tuple(role for role in space.roles if role != "up"))


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_random_elements_move_something(kind: str) -> None:
    from repsim.merging.align.apply import identity_element

    config = model_of(kind).config
    for space in spec_for(config.model_type).spaces(config).spaces:
        element = random_element(space, torch.Generator().manual_seed(0))
        assert not torch.equal(element, identity_element(space).to(element))


def test_a_family_without_declared_symmetries_is_refused() -> None:
    with pytest.raises(IncompatibleModelsError, match="'bloom' cannot be aligned: ALiBi"):
        ARCHITECTURES["bloom"].spaces(tiny_config("bloom"))
