"""The command line as tests call it."""

from __future__ import annotations

import pytest

from repsim.cli.main import main


def exit_code(*arguments: object) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)
