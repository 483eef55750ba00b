"""A study on a machine that has torch and transformers and little else, as many with GPUs do."""

import json
import os
import subprocess
import sys
from pathlib import Path

from repsim.core.atlas import Atlas
from tests.planted.commands import exit_code
from tests.planted.configurations import study

#: What such a machine does not have.
MISSING = ("pyarrow", "datasets", "ray", "submitit", "pandas", "tensorboard")


def test_a_study_runs_without_arrow_and_its_tables_are_made_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text(
        study(
            arms={"A": [{"fractions": [0.5]}]},
            merging={"methods": ["linear"], "aligned_methods": ["linear"],
                     "alignments": ["permutation"]},
            features={"tiers": ["T0", "T1", "T2", "T3"], "sentences": 30},
            paths={"points": 3, "alignments": []},
        )
    )  # fmt: skip
    out = tmp_path / "out"
    program = f"import sys; sys.modules.update(dict.fromkeys({MISSING}))\n"
    program += "from repsim.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "study", "run", str(tmp_path / "bare.yaml"), "-o", str(out),
         "--json"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "REPSIM_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    assert "repsim study collect" in done.stderr
    assert not (out / "atlas").exists()
    assert exit_code("study", "collect", out) == 0
    atlas = Atlas.load(out / "atlas")
    assert set(atlas.features.unique("tier")) == {"T0", "T1", "T2", "T3"}
    assert len(atlas.merges) > 0
    assert len(atlas.paths) > 0
