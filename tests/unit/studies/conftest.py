"""A study of two models and one merge, and its commands."""

from pathlib import Path

import pytest

from repsim.cli.main import main
from tests.planted.configurations import study


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["study", *arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def micro(tmp_path: Path) -> str:
    (tmp_path / "micro.yaml").write_text(study())
    return str(tmp_path / "micro.yaml")
