"""A group of parents is opened once, whatever is measured of it, and let go of afterwards."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from repsim.core.errors import UsageError
from repsim.mergeability.features.catalogue import FEATURES, specs
from repsim.mergeability.features.declared import Declared, read_declared
from repsim.mergeability.features.opened import OpenedModel, OpenedParents
from repsim.mergeability.features.tiers import FORECASTING, TIERS
from repsim.mergeability.forecast import predict_merge
from repsim.mergeability.matrix import _make_room, predict_matrix
from repsim.merging.checkpoint import Checkpoint
from repsim.merging.vocabulary import Vocabulary, read_vocabulary
from repsim.models import causal
from repsim.models.inspect import Located
from repsim.testing.predictors import planted_predictor

FORKS = ["zoo:eng-fork", "zoo:deu-fork"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """How often each model was read: what it states, its tensors, itself into memory."""
    found: collections.Counter[str] = collections.Counter()
    load = causal.load_causal_lm
    module = "repsim.mergeability.features.opened"

    def count_load(model: object, **options: object) -> object:
        found[f"load {model}"] += 1
        return load(model, **options)  # type: ignore[arg-type]

    def count_open(folder: Path, name: str) -> Checkpoint:
        found[f"open {name}"] += 1
        return Checkpoint(folder, name)

    def count_declared(located: Located, vocabulary: Vocabulary | None) -> Declared:
        found[f"declared {located.name}"] += 1
        return read_declared(located, vocabulary)

    def count_vocabulary(folder: Path, name: str) -> Vocabulary | None:
        found[f"vocabulary {name}"] += 1
        return read_vocabulary(folder, name)

    monkeypatch.setattr(f"{module}.read_declared", count_declared)
    monkeypatch.setattr(f"{module}.read_vocabulary", count_vocabulary)
    monkeypatch.setattr(causal, "load_causal_lm", count_load)
    monkeypatch.setattr(f"{module}.Checkpoint", count_open)
    return found


def test_a_forecast_with_every_tier_opens_each_parent_once(
    counted: collections.Counter[str], tmp_path: Path
) -> None:
    found = predict_merge(
        FORKS, tiers=FORECASTING, limit=20, languages=["eng_Latn"], device="cpu",
        cache=tmp_path, predictor=planted_predictor(),
    )  # fmt: skip
    assert found.tiers == ("T0", "T1", "T2", "T3")
    assert dict(counted) == {
        f"{what}{name}": 1
        for name in ("eng-fork", "deu-fork")
        for what in ("load zoo:", "open ", "declared ", "vocabulary ")
    }


def test_a_model_of_several_combinations_is_opened_once(
    counted: collections.Counter[str],
) -> None:
    predict_matrix([*FORKS, "zoo:eng-1"], tiers=("T0",), predictor=planted_predictor())
    assert set(counted.values()) == {1}
    assert len(counted) == 6  # what each of three models states, and its vocabulary


def test_memory_is_given_back_when_combinations_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = {name: OpenedModel(f"zoo:{name}", device="cpu") for name in ("eng-1", "deu-1")}
    for model in pool.values():
        _ = model.loaded
    _make_room(pool, ["eng-1"])
    assert all(model.held for model in pool.values())
    monkeypatch.setattr("repsim.mergeability.matrix.MOST_KEPT", 1000)
    _make_room(pool, ["eng-1"])
    assert (pool["eng-1"].held > 0, pool["deu-1"].held) == (True, 0)


def test_what_is_open_is_shared_and_let_go_of() -> None:
    with OpenedParents(FORKS, device="cpu") as parents:
        first, again = parents.loaded[0], parents.loaded[0]
        assert first is again
        assert parents.weights()[0].source is parents.weights()[0].source
        assert parents.models[0].held > 1_000_000
    assert parents.models[0].held == 0
    with OpenedParents(FORKS, device="cpu", loading={"dtype": "bfloat16"}) as parents:
        assert {p.dtype for p in parents.loaded[0].base.model.parameters()} == {torch.bfloat16}


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match="two models or more"):
        OpenedParents(["zoo:eng-1"])
    state = OpenedModel({}, number=2)
    with pytest.raises(UsageError, match="model 2 is in memory"):
        _ = state.declared
    with pytest.raises(UsageError, match="cannot be run"):
        _ = state.loaded


def test_features_are_declared_once_and_each_belongs_to_a_tier() -> None:
    assert {spec.tier for spec in specs()} == set(TIERS.names())
    for spec in specs():
        for measured in spec.by_alignment.values():
            assert FEATURES[measured].tier == spec.tier
        if spec.worst:
            assert f"{spec.name}_worst" in FEATURES
