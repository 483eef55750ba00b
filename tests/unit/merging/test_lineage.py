"""Lineage and the parts of a merge, on models whose history is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays

from repsim.core.errors import UsageError
from repsim.merging.align.twins import planted_twin
from repsim.merging.in_memory import merge_state_dicts
from repsim.merging.lineage import ONE_ORIGIN, lineage
from repsim.merging.parts import take_apart

#: Initial weights and trunk of the zoo's models, as their provenance states.
SEEDS = {"eng-1": 1, "deu-1": 1, "mixed": 1, "eng-fork": 1, "deu-fork": 1, "eng-2": 2, "deu-2": 2}
TRUNK = {"mixed", "eng-fork", "deu-fork"}


def test_every_pair_of_the_zoo_is_told_right() -> None:
    table = lineage([f"zoo:{name}" for name in SEEDS])
    for a, b in itertools.combinations(SEEDS, 2):
        expected = "shared training" if {a, b} <= TRUNK else "shared initialisation"
        assert table.relation(a, b) == (expected if SEEDS[a] == SEEDS[b] else "unrelated")


def state(folder: str) -> dict[str, torch.Tensor]:
    from repsim.models import load_causal_lm

    return load_causal_lm(folder).model.state_dict()


@pytest.fixture(scope="module")
def parents() -> list[dict[str, torch.Tensor]]:
    return [state("zoo:eng-fork"), state("zoo:deu-fork"), state("zoo:mixed")]


def test_a_copy_is_the_same_and_a_noisy_one_is_fine_tuned(
    parents: list[dict[str, torch.Tensor]],
) -> None:
    noise = torch.Generator().manual_seed(0)
    tuned = {
        name: t + 0.002 * t.std() * torch.randn(t.shape, generator=noise)
        for name, t in parents[0].items()
    }
    table = lineage([parents[0], dict(parents[0]), tuned])
    assert table["relation"].tolist() == ["same weights", "fine-tuned", "fine-tuned"]


@pytest.mark.parametrize(
    ("spaces", "told"), [(["mlp_units"], "re-ordered copy"), (["residual_rotation"], "unrelated")]
)
def test_a_copy_in_other_coordinates_is_not_called_one_origin(spaces: list[str], told: str) -> None:
    from repsim.models import load_causal_lm

    model = load_causal_lm("zoo:eng-1").model
    original = model.state_dict()
    twin, _ = planted_twin(model.config, original, spaces, seed=3)
    mlp = {name for name in original if ".mlp." in name or "norm" in name}
    (row,) = lineage([{n: m[n] for n in mlp} for m in (original, twin)]).rows()
    assert row["relation"] == told


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b, base: 0.5 * a + 0.5 * b,
        lambda a, b, base: 0.3 * a + 0.7 * b,
        lambda a, b, base: base + 0.7 * (a - base) + 0.7 * (b - base),
    ],
    ids=["mean", "weighted", "task arithmetic"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_of_a_linear_merge_are_found(
    parents: list[dict[str, torch.Tensor]], mix: Callable[..., torch.Tensor], dtype: torch.dtype
) -> None:
    merge = {name: mix(*(p[name].float() for p in parents)).to(dtype) for name in parents[0]}
    residual = 1e-5 if dtype == torch.float32 else 0.15  # rounding to bfloat16 is not linear
    expected = mix(*np.eye(3))  # the same mix of unit vectors: the weight of each model
    table = take_apart(merge, parents)
    for part in table.unique("part"):
        np.testing.assert_allclose(table.where(part=part)["weight"], expected, atol=0.01)
        assert table.where(part=part)["residual"].max() < residual
        assert table.linear(part)
    assert table.describe().startswith("linear: ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("method", "parameters", "linear"),
    [("slerp", {"t": 0.3}, True), ("ties", {"density": 0.5}, False),
     ("dare_linear", {"density": 0.5}, False), ("dare_ties", {"density": 0.5}, False),
     ("sce", {"select_topk": 0.3}, False)],
)  # fmt: skip
def test_what_is_not_linear_is_said(
    parents: list[dict[str, torch.Tensor]], method: str, parameters: dict[str, float],
    linear: bool, dtype: torch.dtype,
) -> None:  # fmt: skip
    *models, base = [{k: t.float() for k, t in p.items()} for p in parents]
    made = merge_state_dicts(models, method, base=None if linear else base, parameters=parameters)
    table = take_apart({k: t.to(dtype) for k, t in made.items()}, parents)
    assert table.linear() == linear
    assert ("not linear in the models named" in table.describe()) != linear
    if method == "slerp":  # nearly parallel models: hardly more than the mean
        np.testing.assert_allclose(table.where(part="body")["weight"][:2], [0.7, 0.3], atol=0.01)


def test_weights_of_each_block_are_found(parents: list[dict[str, torch.Tensor]]) -> None:
    a, b, _ = parents
    share = {str(n): 0.2 + 0.2 * n for n in range(4)}
    merge = {}
    for name in a:
        w = share[name.split(".layers.")[1][0]] if ".layers." in name else 0.5
        merge[name] = (w * a[name].float() + (1 - w) * b[name].float()).bfloat16()
    table = take_apart(merge, [a, b])
    for part, weight in share.items():
        np.testing.assert_allclose(table.where(part=part)["weight"], [weight, 1 - weight],
                                   atol=0.01)  # fmt: skip
        assert table.linear(part)
    assert not table.linear("body")  # no two numbers tell it


def test_weights_by_part_and_a_strange_parent_are_seen(
    parents: list[dict[str, torch.Tensor]],
) -> None:
    merge = {
        name: parents[0][name] if ".layers.0." in name else parents[1][name] for name in parents[0]
    }
    table = take_apart(merge, [parents[0], parents[1], state("zoo:eng-2")])
    first, later = table.where(part="0"), table.where(part="1")
    np.testing.assert_allclose(first["weight"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(later["weight"], [0, 1, 0], atol=1e-6)


def test_little_is_read_of_large_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [
        f"model.layers.{i}.mlp.{m}.weight" for i in range(12) for m in ("up_proj", "gate_proj")
    ]
    shared = {name: torch.randn(2048, 512, generator=generator) for name in names}
    other = {name: t + torch.randn(t.shape, generator=generator) for name, t in shared.items()}
    table = lineage([shared, other], max_megabytes=4)
    assert table["megabytes"][0] <= 4
    assert table["relation"].tolist() == ["shared training"]  # no gains: told by the matrices


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UsageError, match="one model has no lineage"):
        lineage(["zoo:eng-1"])
    table = lineage([{"a": torch.zeros(4, 4)}, {"b": torch.zeros(4, 4)}])
    assert table["relation"].tolist() == ["other shapes"]


def test_the_command_tells_pairs_parts_and_a_base(capsys: pytest.CaptureFixture[str]) -> None:
    from repsim.cli.main import main

    for arguments, code, text in (
        (["zoo:eng-fork", "zoo:deu-fork", "--base", "zoo:mixed"], 0, "shared training"),
        (["zoo:mixed", "--merge", "zoo:mixed"], 0, "body"),
        (
            ["zoo:eng-fork", "zoo:deu-fork", "--base", "zoo:deu-2", "--json"],
            4,
            '"plausible": false',
        ),
        (["zoo:eng-1"], 2, "name two models or more"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["lineage", *arguments])
        assert (stop.value.code or 0) == code
        shown = capsys.readouterr()
        assert text in shown.out + shown.err


def test_files_and_arrays_that_are_no_model_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start = {"encode.0.W": rng.normal(size=(96, 3, 96)), "encode.0.G": np.ones(96)}
    moved = {k: (v + 0.5 * rng.normal(size=v.shape)).astype(np.float32) for k, v in start.items()}
    other = {k: rng.normal(size=v.shape) for k, v in start.items()}
    save_arrays({k: np.ascontiguousarray(v) for k, v in moved.items()}, tmp_path / "en.safetensors")
    models = {"en": tmp_path / "en.safetensors", "fr": start, "other": other}
    table = lineage(models)
    assert table.models() == ["en", "fr", "other"]
    assert table.relation("en", "fr") in ONE_ORIGIN
    assert table.relation("en", "other") == "unrelated"
    (tmp_path / "folder").mkdir()
    (tmp_path / "en.safetensors").rename(tmp_path / "folder" / "weights.safetensors")
    table = lineage([tmp_path / "folder", moved])
    assert table.relation("folder", "model 2") == "same weights"


def test_units_of_gpt2_that_stand_in_another_order_are_found() -> None:
    """Its matrices are stored the other way round."""
    rng = np.random.default_rng(0)
    state = {"h.0.mlp.c_fc.weight": rng.normal(size=(48, 192)),
             "h.0.mlp.c_proj.weight": rng.normal(size=(192, 48))}  # fmt: skip
    order = rng.permutation(192)
    moved = {"h.0.mlp.c_fc.weight": state["h.0.mlp.c_fc.weight"][:, order],
             "h.0.mlp.c_proj.weight": state["h.0.mlp.c_proj.weight"][order]}  # fmt: skip
    assert lineage([state, moved])["relation"].tolist() == ["re-ordered copy"]


def test_one_state_dict_is_not_taken_for_several_models() -> None:
    with pytest.raises(UsageError, match="one state dict has no lineage"):
        lineage({"a": np.zeros((4, 4)), "b": np.zeros((4, 4))})
