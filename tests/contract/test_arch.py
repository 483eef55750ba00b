"""Every architecture keeps the contract of `repsim.testing.arch_checks`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import IncompatibleModelsError
from repsim.merging.tensors import token_tensors
from repsim.models.arch import ARCHITECTURES, spec_for, supported_model_types
from repsim.models.arch.register import verified_families
from repsim.models.arch.template import text_of
from repsim.testing.arch_checks import check_arch
from repsim.testing.family_register import register_model, verified_kind
from repsim.testing.tiny_models import KINDS


def model_of(kind: str, head: bool = False) -> Any:
    return register_model(kind, head=head)


def spec_of(kind: str) -> Any:
    return spec_for(kind.partition("+")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_keeps_the_contract_and_the_register_says_so(kind: str) -> None:
    model_type, _, variant = kind.partition("+")
    (row,) = [
        row
        for row in verified_families()["families"]
        if (row["model_type"], row["variant"]) == (model_type, variant)
    ]
    assert verified_kind(kind) == row, "write it again: python -m repsim.testing.family_register"


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_with_a_row_per_token_are_told_by_their_names(kind: str) -> None:
    model = model_of(kind, head=spec_of(kind).decoder)
    rows = text_of(model.config).vocab_size
    named = {n for n, t in model.state_dict().items() if t.ndim and t.shape[0] == rows}
    assert token_tensors(model.state_dict()) == named


def test_the_register_is_of_the_pinned_versions() -> None:
    root = Path(__file__).parents[2]
    pinned = dict(line.split("==") for line in (root / "constraints.txt").read_text().splitlines()
                  if "==" in line)  # fmt: skip
    versions = verified_families()["versions"]
    assert versions == {name: pinned[name] for name in versions}
    assert len(verified_families()["families"]) == len(KINDS)


@pytest.mark.parametrize("kind", ["llama+tied", "gemma2", "gpt2", "gpt_neox", "opt", "bloom"])
def test_a_model_with_its_head_keeps_the_contract(kind: str) -> None:
    check_arch(spec_of(kind), model_of(kind, head=True))


def test_every_supported_model_type_has_a_tiny_model() -> None:
    assert {kind.partition("+")[0] for kind in KINDS} == set(supported_model_types())


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_registry_lines_and_specs_name_the_same_model_types(name: str) -> None:
    aliases = {alias for alias, canonical in ARCHITECTURES.aliases().items() if canonical == name}
    assert set(ARCHITECTURES[name].model_types) == {name, *aliases}
    assert ARCHITECTURES[name].name == name


def test_the_contract_notices_attn_read_before_a_norm_that_follows_it() -> None:
    spec = ARCHITECTURES["gemma2"]
    wrong = dataclasses.replace(spec, block={**spec.block, "attn": "self_attn.o_proj"})
    with pytest.raises(AssertionError, match="do not add up to resid"):
        check_arch(wrong, model_of("gemma2"))


def test_the_contract_notices_a_forgotten_final_norm() -> None:
    wrong = dataclasses.replace(ARCHITECTURES["llama"], stream={})
    with pytest.raises(AssertionError, match=re.escape("resid 2 is not hidden_states[2]")):
        check_arch(wrong, model_of("llama"))


def test_the_contract_notices_a_post_norm_block_called_additive() -> None:
    wrong = dataclasses.replace(ARCHITECTURES["bert"], post_norm=False)
    with pytest.raises(AssertionError, match="do not add up to resid"):
        check_arch(wrong, model_of("bert"))


def test_a_model_built_otherwise_is_refused_by_the_name_of_the_missing_part() -> None:
    spec = ARCHITECTURES["llama"]
    wrong = dataclasses.replace(spec, block={**spec.block, "mlp": "mlp.no_such_projection"})
    with pytest.raises(IncompatibleModelsError, match="no part 'layers.0.mlp.no_such_projection'"):
        check_arch(wrong, model_of("llama"))


def test_an_unknown_model_type_is_refused_with_what_is_supported() -> None:
    with pytest.raises(IncompatibleModelsError, match="no spec for model type 'rwkv'") as raised:
        spec_for("rwkv")
    assert raised.value.exit_code == 4
    assert "xlm-roberta" in str(raised.value)
    assert "generic=True" in str(raised.value)
