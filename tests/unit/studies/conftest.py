"""A study of two models and one merge, and its commands."""

from pathlib import Path

import pytest

from tests.planted.commands import exit_code
from tests.planted.configurations import study


def run(*arguments: str) -> int:
    return exit_code("study", *arguments)


@pytest.fixture
def micro(tmp_path: Path) -> str:
    (tmp_path / "micro.yaml").write_text(study())
    return str(tmp_path / "micro.yaml")
