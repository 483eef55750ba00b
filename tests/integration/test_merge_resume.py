"""A merge that was killed goes on, and gives the same bytes in any process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SCRIPT = """
import os, signal, sys
from repsim.merging import execute, merge, output
kill_after, out = int(sys.argv[1]), sys.argv[2]
output.SYNC_BYTES = 0
done, real = [], output.Output.finish
def finish(self, tensor, **facts):
    real(self, tensor, **facts)
    done.append(tensor)
    if len(done) == kill_after:
        self._flush()  # what is being forced to disk beside the merge
        os.kill(os.getpid(), signal.SIGKILL)
output.Output.finish = finish
merge("recipe.yml", out, device="cpu", any_base=True)
print("merged", len(done))
"""
RECIPE = """
method: dare_ties
models: [a, b]
base_model: base
seed: 3
"""


def write_model(folder: Path, seed: int) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    state = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(16, 8, generator=generator)
        for i in range(6)
    }
    save_file(state, folder / "model.safetensors")
    config = {"model_type": "llama", "num_hidden_layers": 6, "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))


def run(
    folder: Path, kill_after: int, out: str, hash_seed: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "REPSIM_CACHE": str(folder / "cache"),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(kill_after), out],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_killed_merge_goes_on_and_no_bit_differs(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "base")):
        write_model(tmp_path / name, seed)
    (tmp_path / "recipe.yml").write_text(RECIPE)

    killed = run(tmp_path, 4, "resumed", "1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "resumed").exists()
    journal = tmp_path / ".resumed.merging" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 4
    # What a kill in the middle of a line leaves.
    with journal.open("a", encoding="utf-8") as handle:
        handle.write('{"tensor": "model.layers.4.mlp')

    resumed = run(tmp_path, 0, "resumed", "2")
    assert resumed.stdout.strip() == "merged 2", resumed.stderr
    whole = run(tmp_path, 0, "whole", "3")
    assert whole.stdout.strip() == "merged 6", whole.stderr

    def read(folder: str) -> dict[str, bytes]:
        files = (tmp_path / folder).iterdir()
        return {file.name: file.read_bytes() for file in files}

    first, second = read("resumed"), read("whole")
    assert first.keys() == second.keys()
    assert first["model.safetensors"] == second["model.safetensors"]
    assert first["repsim_provenance.json"] == second["repsim_provenance.json"]
    assert len(load_file(tmp_path / "whole" / "model.safetensors")) == 6
    assert not journal.parent.exists()
