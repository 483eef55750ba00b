"""Extraction on an accelerator against the same extraction on the CPU."""

import numpy as np
import pytest
import torch

from repsim.activations import extract, reader
from repsim.core import ParallelCorpus
from repsim.models import load_model
from repsim.testing.tiny_models import write_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

TEXT = tuple("the winter and " * (1 + i * i % 5) + str(i) for i in range(300))
CORPUS = ParallelCorpus("made", tuple(map(str, range(300))), {"eng_Latn": TEXT})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model("llama", tmp_path_factory.mktemp("model") / "tiny")


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_float32_on_the_device_equals_the_cpu(folder, tmp_path):
    here = extract(folder, CORPUS, device="cpu", cache=tmp_path)[0]
    there = extract(load_model(folder, device="cuda"), CORPUS, precision="float32",
                    cache=tmp_path / "gpu")[0]  # fmt: skip
    for layer in here.layers["resid"]:
        np.testing.assert_allclose(
            there.array("resid", layer), here.array("resid", layer), atol=1e-4
        )


def test_autocast_is_the_default_and_is_near_float32(folder, tmp_path):
    here = extract(folder, CORPUS, device="cpu", cache=tmp_path)[0]
    there = extract(folder, CORPUS, cache=tmp_path)[0]
    assert there.info["precision"] == "bfloat16 autocast"
    assert not there.info["cached"]
    assert relative_error(there.array(), here.array()) < 0.02


def test_batches_shrink_until_they_fit(tmp_path, monkeypatch):
    wide = write_tiny_model("llama", tmp_path / "wide", hidden_size=512, intermediate_size=4096)
    model = load_model(wide, device="cuda")
    roomy = extract(model, CORPUS, precision="float32", cache=tmp_path / "roomy")[0]
    shrunk = []
    shrink = reader.ChunkReader._shrink
    monkeypatch.setattr(
        reader.ChunkReader, "_shrink", lambda *args: (shrunk.append(args[1]), shrink(*args))
    )
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # One batch of 256 sentences needs about 100 MiB for each hidden layer of an MLP.
    allowed = torch.cuda.memory_reserved() + 64 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        tight = extract(model, CORPUS, precision="float32", cache=tmp_path / "tight")[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert shrunk
    np.testing.assert_allclose(tight.array(), roomy.array(), atol=1e-3)


def test_only_rows_leave_the_device(folder, monkeypatch, tmp_path):
    sizes = []
    forward = reader.ChunkReader._forward

    def watched(self, batch):
        rows = forward(self, batch)
        sizes.extend(block.shape[0] - len(batch) for block in rows.values())
        assert all(block.is_cuda for block in rows.values())
        return rows

    monkeypatch.setattr(reader.ChunkReader, "_forward", watched)
    extract(folder, CORPUS, cache=tmp_path)
    assert sizes
    assert set(sizes) == {0}
