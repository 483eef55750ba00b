"""Dumps on the command line: table, figures and report; what cannot be is refused by exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repsim.core import SimilarityTable
from tests.planted.commands import exit_code


def _run(*arguments: object) -> int:
    return exit_code("compare", "--arrays", *arguments)


def test_dumps_of_two_tools_become_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(60, 8)).astype(np.float32) for _ in range(3)]
    np.savez(tmp_path / "a.npz", **{f"layer_{i}": x for i, x in enumerate(layers)})
    np.save(tmp_path / "short.npy", layers[0][:50])
    np.save(tmp_path / "nan.npy", np.full((60, 8), np.nan))
    cache = {f"blocks.{i}.hook_resid_post": torch.tensor(2 * x[:, None]).expand(-1, 2, -1)
             for i, x in enumerate(layers)}  # fmt: skip
    save_file({key: one.contiguous() for key, one in cache.items()}, tmp_path / "lens.safetensors")
    (tmp_path / "lens.yaml").write_text("lengths: full\n")
    dumps = [f"a={tmp_path / 'a.npz'}", f"lens={tmp_path / 'lens.safetensors'}"]
    out = tmp_path / "out"
    assert _run(*dumps, "-m", "cka", "--permutations", 19, "-o", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["summary"][0]["best"] == pytest.approx(1, abs=1e-6)
    table = SimilarityTable.load(out / "similarity.parquet")
    grid = table.grid("a", "lens", measure="cka")
    assert np.diag(grid.values) == pytest.approx(np.ones(3), abs=1e-6)
    assert (out / "report.html").is_file()
    assert (out / "figures" / "heatmap-cka.svg").is_file()
    for arguments, code, words in (
        ([dumps[0], f"b={tmp_path / 'none.npz'}"], 3, "does not exist"),
        ([dumps[0], f"b={tmp_path / 'short.npy'}"], 3, "hold 60 and 50 sentences"),
        ([dumps[0], f"b={tmp_path / 'nan.npy'}"], 3, "are NaN"),
        ([*dumps, "--corpus", "kolibri"], 2, "no meaning with --arrays"),
        ([dumps[0], dumps[0]], 2, "two dumps are called 'a'"),
    ):
        assert _run(*arguments, "-m", "cka", "--permutations", 0) == code
        assert words in capsys.readouterr().err
