"""Zoo models merged with repair, naive and aligned: what repair does, whatever it is worth.

Whether retention gets better is no property of repair (here it moves either way), so none is
asserted. That units vary as the parents' do, and that the result is a model, is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repsim.evaluation import evaluate
from repsim.merging import merge, read_recipe
from repsim.merging.align import build_model
from repsim.merging.prepare import prepare
from repsim.models.arch import spec_for
from repsim.models.check import read_streams
from repsim.models.inspect import read_config

PAIR = ["zoo:eng-1", "zoo:deu-2"]
REPAIR = {"corpus": "bible", "limit": 4}


@pytest.mark.parametrize("align", ["none", "permutation"])
def test_a_repaired_merge_varies_as_its_parents_and_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, align: str
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {"method": "linear", "models": PAIR, "align": align, "out_dtype": "float32"}
    recipe = read_recipe(document | {"repair": REPAIR})
    prepared = prepare(recipe)
    assert prepared.calibration is not None
    assert prepared.calibration.languages == {"eng_Latn": 4, "deu_Latn": 4}
    ids = torch.tensor(prepared.calibration.windows)
    plain = load_file(merge(document, "plain", device="cpu") / "model.safetensors")
    folder = merge(recipe, "repaired", device="cpu")
    config, _ = read_config(folder)
    repaired = load_file(folder / "model.safetensors")
    parents = [
        {name: source.read(name).float() for name in source.headers}
        for source in prepared.sources.values()
    ]
    for point in ("attn", "mlp"):
        wanted = sum(deviations(config, parent, ids, point) for parent in parents) / 2
        torch.testing.assert_close(
            deviations(config, repaired, ids, point), wanted, rtol=1e-3, atol=1e-5
        )
        assert float((deviations(config, plain, ids, point) / wanted).median()) < 0.9

    table = evaluate(["plain", "repaired"], languages=["eng_Latn", "deu_Latn"], max_bytes=5000)
    kept = {
        (row["model"], row["language"]): row["value"]
        for row in table.rows()
        if row["metric"] == "retention" and row["value"] is not None
    }
    for language in ("eng_Latn", "deu_Latn"):
        assert kept["repaired", language] != kept["plain", language]


def deviations(config: Any, state: dict[str, torch.Tensor], ids: torch.Tensor, point: str) -> Any:
    """Standard deviations over tokens, all layers, `[layers, units]`."""
    spec = spec_for(config.model_type)
    streams, _ = read_streams(
        spec, build_model(config, state), ids, torch.ones_like(ids), (point,)
    )  # fmt: skip
    layers = range(1, spec.n_layers(config) + 1)
    return torch.stack(
        [streams[point, i].reshape(ids.numel(), -1).double().std(0, correction=0) for i in layers]
    )
