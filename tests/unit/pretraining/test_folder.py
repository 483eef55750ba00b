"""Reading model folders that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from repsim.core.errors import InputError
from repsim.pretraining.folder import model_ref, read_provenance, read_weights


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) is None
    with pytest.raises(InputError, match=r"has no repsim_provenance.json"):
        model_ref(tmp_path)
    with pytest.raises(InputError, match=r"there is no model.safetensors in"):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"schema": "another/1"}'])
def test_provenance_of_another_schema_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "repsim_provenance.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="is not a provenance of schema"):
        read_provenance(tmp_path)
