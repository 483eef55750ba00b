"""Learned alignment: legal at every step, better than its start on its text, resumable."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from repsim.core.errors import IncompatibleModelsError, InputError, UsageError
from repsim.merging.align import Learning, align, output_difference
from repsim.merging.align.apply import apply_map, identity_element
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.learned import CONTINUOUS, Learned, Midpoint, composed, learn_maps
from repsim.merging.align.twins import random_element
from repsim.merging.align.weights import pack, unpack
from repsim.models.arch import spec_for
from repsim.testing.tiny_models import KINDS, tiny_config, tiny_model

QUICK = Learning(tokens=480, batch=2, learning_rate=3e-2)
State = dict[str, torch.Tensor]


def models(kind: str) -> tuple[Any, State, State]:
    a, b = (tiny_model(kind, head=True, seed=seed) for seed in (0, 1))
    return a.config, dict(a.state_dict()), dict(b.state_dict())


def text(config: Any, rows: int = 12, context: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    small = min(40, config.vocab_size)
    return torch.randint(small, (rows, context + 1), generator=generator)


@pytest.mark.parametrize("kind", ["llama+tied", "gpt2", "gpt_neox"])
def test_the_map_changes_no_output_and_lowers_the_loss_of_the_midpoint(kind: str) -> None:
    config, a, b = models(kind)
    result = align(a, [b], config, method="learned", windows=text(config), learning=QUICK)
    report = result.report[0]
    assert report.learned is not None
    assert report.function_kept
    assert report.output_change is not None
    assert report.output_change < 1e-5
    first, last = report.learned.ends
    assert last < first
    assert report.learned.gain(QUICK.tokens) > report.learned.gain(200) > 0
    assert len(report.learned.losses) == QUICK.updates(16) == 15


def rotatable() -> list[str]:
    """Every family with a head whose residual stream can be rotated, and so learned."""
    found = []
    for kind in KINDS:
        config = tiny_config(kind)
        spaces = getattr(spec_for(config.model_type), "spaces", None)
        try:
            names = {space.name for space in spaces(config).spaces} if spaces else set()
        except IncompatibleModelsError:
            continue
        if "residual_rotation" in names and hasattr(config, "vocab_size"):
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", rotatable())
def test_every_update_stands_on_a_legal_map(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, a, b = models(kind)
    spaces = spec_for(config.model_type).spaces(config)
    (one, untied), (two, _) = (fold_norms(unpack(state, spaces), spaces) for state in (a, b))
    after = copy.deepcopy(config)
    after.tie_word_embeddings = False
    midpoint, seen = Midpoint(one, two, untied, pack(one, a, untied), after), []
    true_loss = Midpoint.loss

    def watched(self: Midpoint, maps: Any, windows: torch.Tensor, share: float = 0.5) -> Any:
        double = {key: element.detach().double() for key, element in maps.items()}
        moved = pack(apply_map(two, untied, double), b, untied)
        seen.append(output_difference(config, b, moved, after_config=after))
        return true_loss(self, maps, windows, share)

    monkeypatch.setattr(Midpoint, "loss", watched)
    learn_maps(midpoint, text(config), Learning(tokens=128, batch=2, learning_rate=0.1))
    assert len(seen) == 4
    assert max(seen) < 1e-5


def test_a_rotated_twin_is_left_where_the_closed_form_brings_it() -> None:
    from repsim.merging.align.twins import planted_twin

    config, a, _ = models("llama")
    twin, _ = planted_twin(config, a, ["residual_rotation", "mlp_units", "kv_groups"])
    still = Learning(tokens=1, batch=1, learning_rate=1e-12, start="orthogonal")
    found = align(a, [twin], config, method="learned", windows=text(config), learning=still)
    assert found.report[0].distance_before > 0.1
    assert found.report[0].distance_after < 1e-6


def test_a_stopped_call_goes_on_to_the_same_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.merging.align.learned.STATE_EVERY", 4)
    config, a, b = models("llama")
    spaces = spec_for(config.model_type).spaces(config)
    (one, untied), (two, _) = (fold_norms(unpack(state, spaces), spaces) for state in (a, b))
    midpoint = Midpoint(one, two, untied, pack(one, a, untied), config)
    windows, cache = text(config), tmp_path / "state.safetensors"
    whole = learn_maps(midpoint, windows, QUICK)

    def stop(update: int, total: int, loss: float) -> None:
        if update == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_maps(midpoint, windows, QUICK, cache=cache, on_update=stop)
    asked: list[int] = []
    again = learn_maps(
        midpoint, windows, QUICK, cache=cache, on_update=lambda i, n, loss: asked.append(i)
    )
    assert asked[0] == 9
    assert again.losses == whole.losses
    assert all(torch.equal(whole.maps[key], again.maps[key]) for key in whole.maps)
    assert not cache.exists()


def test_a_damaged_or_foreign_state_is_not_gone_on_from(tmp_path: Path) -> None:
    config, a, b = models("llama")
    cache = tmp_path / "state.safetensors"
    cache.write_bytes(b"nothing of the kind")
    result = align(
        a, [b], config, method="learned", windows=text(config), learning=QUICK, cache=cache,
        check=False,
    )  # fmt: skip
    learned = result.report[0].learned
    assert isinstance(learned, Learned)
    assert len(learned.losses) == 15


@pytest.mark.parametrize("kind", ["llama", "phi", "gpt2"])
def test_two_maps_compose_to_one(kind: str) -> None:
    config, a, _ = models(kind)
    spaces = spec_for(config.model_type).spaces(config)
    weights, untied = fold_norms(unpack(a, spaces), spaces)
    generator = torch.Generator().manual_seed(0)
    first = {
        s.key: random_element(s, generator)
        for s in untied.spaces
        if s.name not in ("residual_permutation", "mlp_scale")
    }
    then = {s.key: random_element(s, generator) for s in untied.spaces if s.group in CONTINUOUS}
    apart = apply_map(apply_map(weights, untied, first), untied, then)
    joint = apply_map(weights, untied, composed(first, then))
    assert all(torch.allclose(apart[key], joint[key], atol=1e-9) for key in apart)


def test_learning_begins_at_the_identity() -> None:
    from repsim.merging.align.learned import _element, _zero

    for kind in ("llama", "phi", "gpt2"):
        config, _, _ = models(kind)
        for space in spec_for(config.model_type).spaces(config).spaces:
            if space.group in CONTINUOUS:
                element = _element(space, _zero(space)).double()
                assert torch.allclose(element, identity_element(space), atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"hidden_size": 64}, "'embed' is"),
        ({"intermediate_size": 64}, "'0.gate' is"),
        ({"num_hidden_layers": 3}, "has 2 blocks and model 2 has 3"),
    ],
)
def test_a_wider_or_deeper_partner_is_refused_before_anything_is_learned(
    shape: dict[str, int], words: str
) -> None:
    config, a, _ = models("llama")
    other = dict(tiny_model("llama", head=True, **shape).state_dict())
    asked: list[int] = []
    with pytest.raises(IncompatibleModelsError, match=words):
        align(
            a, [other], config, method="learned", windows=text(config), learning=QUICK,
            on_update=lambda i, n, loss: asked.append(i),
        )  # fmt: skip
    assert not asked


def test_what_cannot_be_learned_is_refused() -> None:
    config, a, b = models("llama")
    with pytest.raises(UsageError, match="needs text"):
        align(a, [b], config, method="learned")
    with pytest.raises(UsageError, match="nothing else does"):
        align(a, [b], config, windows=text(config))
    with pytest.raises(InputError, match="no text"):
        align(a, [b], config, method="learned", windows=text(config)[:0])
    for wrong in ({"tokens": 0}, {"learning_rate": float("nan")}, {"batch": 0}):
        with pytest.raises(UsageError):
            Learning(**wrong)  # type: ignore[arg-type]
