"""Tensors read in parts: cuts found in one pass, types of files, and merges without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from repsim.core.errors import InputError, UsageError
from repsim.merging import arrays, merge
from repsim.merging.arrays import Stream
from repsim.merging.base import TensorContext, WholeModels
from repsim.merging.methods.cuts import Cut, Kept, cuts_of, kth_largest, sample_step
from repsim.merging.methods.spherical import slerp
from repsim.merging.methods.task_vectors import ties

MakeModel = Callable[..., Path]
NORM = "model.norm.weight"


def draw(count: int, entries: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=entries).astype(np.float32) for _ in range(count)]


def sizes_of(part: arrays.Part) -> list[Any]:
    return [abs(tensor) for tensor in part.tensors]


# -- cuts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.001, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("entries", [7, 100_003])
def test_as_many_are_kept_as_are_asked_for_and_of_equal_ones_the_first(
    density: float, entries: int
) -> None:
    # Eighths: thousands of entries lie exactly at the cut, and single ones on either side count.
    values = np.round(8 * draw(1, entries)[0]) / np.float32(8)
    kept = max(1, int(density * entries))
    stream = Stream([values], (entries,), size=4099)
    ((cut, largest),) = cuts_of(stream, sizes_of, [[kept, 1]])
    marks = Kept(cut)
    found = np.concatenate([marks(sizes_of(part)[0]) for part in stream.parts()])
    order = np.lexsort((np.arange(entries), -np.abs(values)))
    assert set(np.flatnonzero(found)) == set(order[:kept])
    assert largest.value == abs(values).max()


def test_of_values_half_of_which_are_equal_hardly_any_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = draw(1, 200_000)[0]
    values[::2] = 0.25
    held: list[int] = []
    whole = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda x: held.append(sum(map(len, x))) or whole(x))
    stream = Stream([values], values.shape)
    for kept in range(20_000, 200_000, 20_000):
        ((cut,),) = cuts_of(stream, sizes_of, [[kept]])
        ordered = np.sort(abs(values))
        assert cut.value == ordered[-kept]
        assert cut.equal == int((ordered[-kept:] == cut.value).sum())
    assert max(held) < 0.1 * len(values)


def test_a_misleading_sample_is_noticed_and_changes_nothing() -> None:
    # Every seventh entry is looked at first, and all of those are small.
    values = draw(1, 100_002)[0]
    assert sample_step(len(values)) == 7
    values[::7] *= 1e-3
    stream, kept = Stream([values], values.shape), int(0.4 * len(values))
    reads = []
    found = cuts_of(stream, lambda part: reads.append(part.start) or sizes_of(part), [[kept]])
    exact = float(np.sort(abs(values))[-kept])
    assert found == [[Cut(exact, 1, 0)]]
    assert len(reads) > 10, "digits were counted"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kth_largest_magnitude_is_exact(dtype: str) -> None:
    # Many equal magnitudes, and zeros of both signs.
    values = np.concatenate([draw(1, 5000)[0], np.round(draw(1, 1000)[0]), [0.0, -0.0]])
    values = values.astype(dtype)
    ordered = np.sort(np.abs(values))[::-1]
    for kept in (1, 2, 1500, 5999, 6002):
        assert kth_largest(lambda: np.array_split(values, 9), kept) == ordered[kept - 1]
    for kept in (0, 3):
        with pytest.raises(UsageError, match=f"no entry of rank {kept}"):
            kth_largest(lambda: [np.ones(2, np.float32)], kept)


def test_what_holds_for_a_whole_model_is_one_value() -> None:
    whole = WholeModels(
        ["a", "b"], [{"density": [1.0, 0.5]}, {"density": [1.0, 0.4]}], 2, lambda: 0
    )
    assert whole.common("density", 0) == 1.0
    with pytest.raises(UsageError, match="'density' of model 'b' holds for the whole model"):
        whole.common("density", 1)


# -- arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-4, 0.03, 0.0316, 0.032, 0.04, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_in_float32_is_the_formula_from_parallel_to_antipodal(near: float, sign: int) -> None:
    a, noise = draw(2, 50_000)
    b = (sign * (a + np.float32(near) * noise)).astype(np.float32)
    contexts = TensorContext(), TensorContext()
    found = slerp([a, b], t=0.3, context=contexts[0])
    exact = slerp([a.astype(float), b.astype(float)], t=0.3, context=contexts[1])
    assert found.dtype == np.float32
    assert float(np.abs(found - exact).max()) < 2e-6 * float(np.abs(exact).max() + 1)
    assert contexts[0].notes == contexts[1].notes
    assert bool(contexts[0].notes) == (sign < 0 and near < 0.0318)  # cosine 0.9995


def test_slerp_of_very_large_tensors() -> None:
    large = [each * np.float32(1e30) for each in draw(2, 5000)]  # their squares leave float32
    exact = slerp([each.astype(float) for each in large])
    assert float(np.abs(slerp(large) / exact - 1).max()) < 1e-4


def test_numpy_and_torch_trim_alike_where_magnitudes_are_equal() -> None:
    *models, base = (np.round(8 * each) / np.float32(8) for each in draw(3, 100_003))
    found = ties(models, base=base, density=0.3)
    there = ties([torch.from_numpy(m) for m in models], base=torch.from_numpy(base), density=0.3)
    assert np.array_equal(found, there.numpy())


# -- from files ----------------------------------------------------------------------------------

RECIPES: list[dict[str, Any]] = [
    {"method": "linear", "models": [{"model": "a", "weight": 0.3}, "b"]},
    {"method": "slerp", "models": ["a", "b"], "parameters": {"t": 0.3}},
    {"method": "ties", "models": ["a", "b"], "base_model": "c", "parameters": {"density": 0.4}},
    {"method": "task_arithmetic", "models": ["a", "b"], "base_model": "c"},
]


def test_bfloat16_is_rounded_to_nearest_even_over_its_whole_range() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F7F_0000, 20_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF_0000)) | np.uint32(0x8000)  # exactly between two
    values = np.concatenate([bits, ties]).view(np.float32)
    stored, finite = arrays.narrow(values, "BF16")
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy()
    assert finite
    assert np.array_equal(stored, expected.view(np.uint16))
    largest = np.array([np.finfo(np.float32).max], np.float32)  # rounds to infinity
    assert not arrays.narrow(largest, "BF16")[1]
    back = arrays.widen(stored, "float32")
    assert np.array_equal(back, torch.from_numpy(values.copy()).bfloat16().float().numpy())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["b", "c"])
@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe["method"] for recipe in RECIPES])
def test_a_damaged_parent_is_named_whatever_the_method(
    make_model: MakeModel, recipe: dict[str, Any], broken: str, bad: float
) -> None:
    if broken == "c" and "base_model" not in recipe:
        pytest.skip("no base")
    for seed, name in enumerate("abc"):
        folder = make_model(name, seed)
        if name == broken:
            state = load_file(folder / "model.safetensors")
            state["model.layers.1.mlp.up_proj.weight"][2, 3] = bad
            (folder / "model.safetensors").unlink()
            folder.rename(f"{name}-whole")
            make_model(name, tensors=state)
    message = rf"'model.layers.1.mlp.up_proj.weight' of model '{broken}' holds 1 values"
    with pytest.raises(InputError, match=message):
        merge(recipe, "out", any_base=True)


def test_torch_is_not_imported_for_them(make_model: MakeModel) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    code = (
        "import sys; from repsim.merging import merge\n"
        "merge({'method': 'slerp', 'models': ['a', 'b']}, 'out')\n"
        "thin = {'method': 'dare_ties', 'models': ['a'], 'base_model': 'b'}\n"
        "merge(thin, 'thin', any_base=True)\n"
        "heavy = {'torch', 'transformers', 'scipy', 'pandas', 'pyarrow', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_file("out/model.safetensors")[NORM].shape == (8,)
