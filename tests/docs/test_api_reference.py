"""The API reference is made from docstrings, public names that load on first use included."""

import importlib.util
from pathlib import Path

import repsim.evaluation


def test_the_reference_holds_the_public_names(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "api_reference", Path(__file__).with_name("api_reference.py")
    )
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    names = maker.write_reference(tmp_path, repsim.evaluation)
    assert "repsim.evaluation.path" in names
    page = (tmp_path / "repsim/evaluation.html").read_text(encoding="utf-8")
    for name in repsim.evaluation.__all__:
        assert f'id="{name}"' in page
    assert "straight path from one model to another" in page
