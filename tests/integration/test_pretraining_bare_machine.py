"""Training runs where nothing but torch, transformers and their own libraries is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = """
import sys
for name in "pyarrow click datasets matplotlib jinja2 scipy sklearn".split():
    sys.modules[name] = None
from repsim.pretraining.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_family_is_trained_without_the_other_libraries(
    document: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(document(training={"steps": 2, "batch": 4})), encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, str(path), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "eng" / "model.safetensors").is_file()
    assert "eng  step 2" in done.stderr
