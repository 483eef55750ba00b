"""Training states are whole, checked, and fall back to the one before."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
import torch

from repsim.core.errors import InputError, ResourceError
from repsim.pretraining import checkpoint
from repsim.pretraining.checkpoint import (
    TrainingState,
    latest_state,
    read_state,
    save_state,
    steps_in,
)


def state(step: int) -> TrainingState:
    weights = {"a": torch.full((3, 2), float(step))}
    return TrainingState(step, weights, {"a/exp_avg": torch.ones(3, 2)}, "key", {"torch": "1"})


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, state(7))
    back = latest_state(tmp_path)
    assert back is not None
    assert (back.step, back.run_key, back.versions) == (7, "key", {"torch": "1"})
    assert torch.equal(back.weights["a"], state(7).weights["a"])
    assert torch.equal(back.optimizer["a/exp_avg"], torch.ones(3, 2))


def test_two_states_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, state(step))
    assert steps_in(tmp_path) == [2, 3]
    for step in (4, 5):
        save_state(tmp_path, state(step), keep=None)
    assert steps_in(tmp_path) == [2, 3, 4, 5]
    assert latest_state(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["flip a bit", "lose a file", "cut a file", "lose the manifest"])
def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, state(1))
    newest = save_state(tmp_path, state(2))
    weights = newest / "weights.safetensors"
    if damage == "flip a bit":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "lose a file":
        (newest / "optimizer.safetensors").unlink()
    elif damage == "cut a file":
        weights.write_bytes(weights.read_bytes()[:-5])
    else:
        (newest / "manifest.json").unlink()
    with pytest.raises(InputError, match="damaged|incomplete|does not exist"):
        read_state(newest)
    with caplog.at_level(logging.WARNING, logger="repsim.pretraining"):
        back = latest_state(tmp_path)
    assert back is not None
    assert back.step == 1
    assert "falling back to the state before it" in caplog.text


def test_what_was_being_written_is_not_taken_for_a_state(tmp_path: Path) -> None:
    save_state(tmp_path, state(1))
    half = tmp_path / ".step-000002.abcd.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    back = latest_state(tmp_path)
    assert back is not None
    assert back.step == 1


def test_a_full_disk_leaves_the_states_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, state(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(ResourceError, match="disk is full: the training state of step 2 could not"):
        save_state(tmp_path, state(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert read_state(tmp_path / "step-000001").step == 1


def test_other_errors_of_the_disk_are_not_called_full(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), checkpoint.disk_errors("a file"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(InputError, match="there is no training state"):
        read_state(tmp_path / "step-000009")


def test_states_of_another_schema_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SCHEMA", "repsim/training-state/99")
    folder = save_state(tmp_path, state(1))
    monkeypatch.undo()
    with pytest.raises(InputError, match="is not of schema"):
        read_state(folder)
