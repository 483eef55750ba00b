"""After repair the merged model's units have the statistics of the parents."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repsim.core.errors import UsageError
from repsim.merging.align import RepairResult, build_model, repair_state_dict
from repsim.models.arch import spec_for
from repsim.models.check import read_streams
from repsim.testing.tiny_models import tiny_model

State = dict[str, torch.Tensor]
WITHOUT_BIASES = ("llama", "gemma2", "phi3")


def family(kind: str) -> tuple[Any, State, list[State]]:
    models = [tiny_model(kind, head=kind != "bert", seed=seed) for seed in (0, 1)]
    parents = [dict(model.state_dict()) for model in models]
    merged = {name: (parents[0][name] + parents[1][name]) / 2 for name in parents[0]}
    return models[0].config, merged, parents


def text(seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 260, (8, 20), generator=torch.Generator().manual_seed(seed))


def statistics(config: Any, state: State, point: str, layer: int) -> torch.Tensor:
    """Mean and standard deviation, read by the hooks that extraction uses, `[2, units]`."""
    spec, ids = spec_for(config.model_type), text()
    streams, _ = read_streams(
        spec, build_model(config, state), ids, torch.ones_like(ids), (point,)
    )  # fmt: skip
    rows = streams[point, layer].reshape(ids.numel(), -1).double()
    return torch.stack([rows.mean(0), rows.std(0, correction=0)])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi3", "gpt2", "gpt_neox", "bert"])
def test_what_is_written_to_the_stream_varies_as_in_the_parents(kind: str) -> None:
    config, merged, parents = family(kind)
    repaired = repair_state_dict(merged, parents, config, text()).state
    for point in ("attn", "mlp"):
        for layer in (1, 2):
            wanted = sum(statistics(config, parent, point, layer) for parent in parents) / 2
            before = statistics(config, merged, point, layer)
            after = statistics(config, repaired, point, layer)
            torch.testing.assert_close(after[1], wanted[1], rtol=1e-3, atol=1e-5)
            if kind != "gemma2":  # behind a norm there is nothing that averaging shrinks
                assert float((before[1] / wanted[1]).median()) < 0.95
            if kind not in WITHOUT_BIASES:
                torch.testing.assert_close(after[0], wanted[0], rtol=1e-3, atol=1e-4)


def test_gated_units_vary_as_in_the_parents() -> None:
    config, merged, parents = family("llama")
    repaired = repair_state_dict(merged, parents, config, text()).state
    for layer in (1, 2):
        wanted = sum(statistics(config, parent, "mlp_hidden", layer) for parent in parents) / 2
        after = statistics(config, repaired, "mlp_hidden", layer)
        torch.testing.assert_close(after[1], wanted[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi3", "gpt2", "bert"])
def test_the_report_states_what_is_left(kind: str) -> None:
    config, merged, parents = family(kind)
    report = repair_state_dict(merged, parents, config, text()).report
    assert len(report) == 3 * spec_for(config.model_type).n_layers(config)
    for entry in report:
        assert entry.std_error_after < 1e-3
        assert entry.dead == 0
        # Without biases there is nothing to shift a mean with.
        assert (entry.mean_error_after is None) == (kind in WITHOUT_BIASES)
        assert entry.mean_error_after is None or entry.mean_error_after < 1e-3


def test_a_model_repaired_to_itself_stays_as_it_is() -> None:
    config, _, parents = family("gpt2")
    repaired = repair_state_dict(parents[0], [parents[0]], config, text()).state
    torch.testing.assert_close(repaired, parents[0], rtol=1e-4, atol=1e-5)


def test_weights_decide_between_the_parents() -> None:
    config, merged, parents = family("gpt2")
    repaired = repair_state_dict(merged, parents, config, text(), weights=[3, 0]).state
    wanted = statistics(config, parents[0], "mlp", 2)
    torch.testing.assert_close(
        statistics(config, repaired, "mlp", 2), wanted, rtol=1e-3, atol=1e-4
    )  # fmt: skip


def test_only_what_is_asked_for_is_touched() -> None:
    config, merged, parents = family("llama")
    repaired = repair_state_dict(merged, parents, config, text(), points=["mlp_hidden"]).state
    changed = {name for name in merged if not torch.equal(merged[name], repaired[name])}
    assert changed == {f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)}


def test_padding_does_not_count() -> None:
    config, merged, parents = family("gpt2")
    ids = text()
    padded = torch.cat([ids, torch.full((8, 4), 9)], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(8, 4, dtype=torch.long)], dim=1)
    plain = repair_state_dict(merged, parents, config, ids)
    with_padding = repair_state_dict(merged, parents, config, padded, mask)
    torch.testing.assert_close(with_padding.state, plain.state, rtol=1e-3, atol=1e-4)


def test_units_that_do_not_vary_are_left_and_counted() -> None:
    config, merged, parents = family("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    merged[name] = merged[name].clone()
    merged[name][5] = 0
    result: RepairResult = repair_state_dict(merged, parents, config, text())
    first = result.report[0]
    assert (first.point, first.layer, first.dead) == ("mlp_hidden", 1, 1)
    assert not bool(result.state[name][5].any())
    assert all(bool(tensor.isfinite().all()) for tensor in result.state.values())


def test_types_stay_as_they_were() -> None:
    config, merged, parents = family("llama")
    low = {name: tensor.to(torch.bfloat16) for name, tensor in merged.items()}
    repaired = repair_state_dict(low, parents, config, text()).state
    assert {tensor.dtype for tensor in repaired.values()} == {torch.bfloat16}


def test_impossible_arguments_are_refused() -> None:
    config, merged, parents = family("llama")
    with pytest.raises(UsageError, match="needs the parents of the merged model"):
        repair_state_dict(merged, [], config, text())
    with pytest.raises(UsageError, match=r"weights \[1.0\] do not fit 2 parents"):
        repair_state_dict(merged, parents, config, text(), weights=[1])
    with pytest.raises(UsageError, match=r"weights \[0.0, 0.0\] do not fit 2 parents"):
        repair_state_dict(merged, parents, config, text(), weights=[0, 0])
    with pytest.raises(UsageError, match="unknown place to repair 'units'"):
        repair_state_dict(merged, parents, config, text(), points=["units"])
