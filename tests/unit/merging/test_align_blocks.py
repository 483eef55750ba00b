"""Models are aligned block by block, with the result of models that are in memory as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from repsim.merging.align import align, blocks, build_model, output_difference
from repsim.merging.align.apply import apply_map
from repsim.merging.align.attention import Method
from repsim.merging.align.blocks import Held, open_blocks, total_distance, whole
from repsim.merging.align.checking import as_source, model_output, open_model, random_tokens
from repsim.merging.align.fold import fold_norms
from repsim.merging.align.matching import match_weights
from repsim.merging.align.weights import pack, unpack
from repsim.merging.checkpoint import StateDict
from repsim.models.arch import spec_for
from repsim.testing.tiny_models import tiny_model

#: Plain, with learned positions and LayerNorm, tied with fewer key-value heads, parallel parts.
FAMILIES = ("llama", "gpt2", "qwen2", "gpt_neox")


class Watched(StateDict):
    """A source that remembers what was asked of it."""

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        found = super().read(tensor, rows)
        asked.append((tensor, found.shape))
        return found


asked: list[tuple[str, torch.Size]] = []


def states(family: str, **config: Any) -> tuple[Any, list[dict[str, torch.Tensor]]]:
    models = [tiny_model(family, head=True, seed=seed, **config) for seed in (0, 1)]
    return models[0].config, [dict(model.state_dict()) for model in models]


@pytest.mark.parametrize("method", ["permutation", "orthogonal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_give_what_whole_models_give(
    family: str, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repsim.merging.align.blocks.ENTRIES", 32 * 7)  # vocabulary: 7 rows a time
    config, pair = states(family)
    spaces = spec_for(config.model_type).spaces(config)
    folded = method == "orthogonal"
    weights = [unpack(state, spaces) for state in pair]
    if folded:
        weights = [fold_norms(each, spaces)[0] for each in weights]
    own = spaces.untied() if folded else spaces
    at_once = match_weights(*weights, own, method=method, max_iterations=3)
    result = align(*pair[:1], pair[1:], config, method=method, max_iterations=3)
    assert result.maps[0].keys() == at_once.maps.keys()
    for key, element in at_once.maps.items():
        torch.testing.assert_close(result.maps[0][key], element, rtol=0, atol=1e-9)
    expected = pack(apply_map(weights[1], own, at_once.maps), pair[1], own)
    assert result.states[1].keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(result.states[1][name], tensor, rtol=1e-5, atol=1e-6)
    assert result.report[0].function_kept


@pytest.mark.parametrize("folded", [False, True])
def test_parts_are_the_whole(folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim.merging.align.blocks.ENTRIES", 100)
    config, pair = states("gpt2")
    spaces = spec_for(config.model_type).spaces(config)
    blocks = [open_blocks(as_source(state), spaces, folded=folded) for state in pair]
    weights = [unpack(state, spaces) for state in pair]
    if folded:
        weights = [fold_norms(each, spaces)[0] for each in weights]
    for found, expected in zip(blocks, weights, strict=True):
        together = whole(found, spaces.layers)
        assert together.keys() == expected.keys()
        assert all(torch.equal(together[key], expected[key]) for key in expected)
    held = [Held(each) for each in weights]
    apart = total_distance(blocks[0], blocks[1], spaces, {})
    assert apart == pytest.approx(total_distance(held[0], held[1], spaces, {}), rel=1e-12)


def test_no_more_than_some_rows_and_one_block_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("repsim.merging.align.blocks.ENTRIES", 32 * 8)
    monkeypatch.setattr("repsim.merging.align.heads.ROWS", 8)
    config, pair = states("llama")
    sources = [Watched(f"m{i}", state) for i, state in enumerate(pair)]
    asked.clear()
    result = align(sources[0], sources[1:], config, check=False, max_iterations=1)
    assert max(shape[0] for name, shape in asked if "embed" in name or "lm_head" in name) == 8
    name = "model.layers.1.mlp.up_proj.weight"
    asked.clear()
    moved = result.sources[1].read(name)
    assert {n.split(".")[2] for n, _ in asked} == {"1"}
    assert torch.equal(result.sources[1].read(name, slice(3, 9)), moved[3:9])
    rows = result.sources[1].read("lm_head.weight", slice(5, 30))
    assert torch.equal(rows, result.sources[1].read("lm_head.weight")[5:30])


@pytest.mark.parametrize("family", [*FAMILIES, "bert", "mamba"])
def test_a_model_that_reads_its_blocks_computes_the_same(family: str) -> None:
    config, (state, _) = states(family)
    ids = random_tokens(config)
    opened = open_model(config, as_source(state))
    assert all(parameter.is_meta for parameter in opened.parameters())
    assert torch.equal(model_output(opened, ids), model_output(build_model(config, state), ids))
    assert all(parameter.is_meta for parameter in opened.parameters())
    assert output_difference(config, state, state) == 0.0


@pytest.mark.parametrize("entries", [1, 7 * 16, 1 << 19])
def test_a_vocabulary_is_read_some_rows_at_a_time(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ENTRIES", entries)
    config, (a, b) = states("llama")
    moved = align(a, [b], config, check=False).sources[1]
    name = next(name for name in a if "embed" in name)
    whole_one, flat = moved.read(name).reshape(-1).numpy(), moved.array(name)
    assert len(flat) == whole_one.size
    for wanted in (slice(None), slice(5, 90), slice(3, None, 7), slice(0, 40), slice(20, 21)):
        np.testing.assert_array_equal(flat[wanted], whole_one[wanted])
