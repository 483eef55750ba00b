"""Methods on arrays are the methods: the same numbers as with torch, without importing it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from repsim.core.errors import InputError, UsageError
from repsim.merging import arrays, merge, to_disk
from repsim.merging.base import TensorContext
from repsim.merging.methods import on_arrays
from repsim.merging.recipe import find_method

MakeModel = Callable[..., Path]
NORM = "model.norm.weight"


class Given:
    """Arrays as a streamed tensor, in parts of an odd length."""

    def __init__(self, *models: Any, part: int = 4099) -> None:
        self.models = [np.asarray(model) for model in models]
        self.entries, self.part = len(self.models[0]), part

    def parts(self) -> Iterator[list[Any]]:
        for start in range(0, self.entries, self.part):
            yield [model[start : start + self.part] for model in self.models]

    def sample(self, step: int) -> list[Any]:
        return [model[::step] for model in self.models]


def draw(count: int, entries: int, *, rounded: bool = False) -> list[Any]:
    rng = np.random.default_rng(0)
    found = [rng.normal(size=entries).astype(np.float32) for _ in range(count)]
    return [np.round(8 * each) / np.float32(8) for each in found] if rounded else found


def both(
    name: str, models: list[Any], base: Any, parameters: dict[str, Any]
) -> tuple[Any, Any, list[list[str]]]:
    """A merge on arrays and with torch in float64, and what each noted."""
    method, contexts = find_method(name), [TensorContext(), TensorContext()]
    values = method.resolve(parameters)
    for key in method.model_defaults:
        value = values[key]
        values[key] = value if isinstance(value, list) else [value] * len(models)
    given = Given(*models, *([base] if base is not None else []))
    assert on_arrays.ON_ARRAYS[name].fits(values)
    parts = list(on_arrays.ON_ARRAYS[name].merge(given, values, contexts[0]))
    wide = [torch.from_numpy(model).double() for model in models]
    origin = None if base is None else torch.from_numpy(base).double()
    exact = method(wide, base=origin, context=contexts[1], **parameters).numpy()
    return np.concatenate(parts), exact, [context.notes for context in contexts]


CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("linear", 3, {"weight": [0.3, 0.5, 1.7]}),
    ("linear", 2, {"weight": [0.3, -0.5], "normalize": False}),
    ("task_arithmetic", 2, {"weight": [0.3, 0.9], "lambda": 1.3}),
    ("task_arithmetic", 2, {"weight": [0.3, 0.9], "normalize": True}),
    ("task_arithmetic", 2, {"weight": [1.0, -1.0], "normalize": True}),
    ("slerp", 2, {"t": 0.37}),
    ("slerp", 2, {"t": 1.0}),
    ("ties", 2, {}),
    ("ties", 3, {"density": [0.2, 0.77, 1.0], "weight": [1.0, 0.5, 0.25], "lambda": 0.7}),
    ("ties", 2, {"density": 0.0001, "normalize": False}),
]


@pytest.mark.parametrize("entries", [1, 7, 100_003])
@pytest.mark.parametrize(
    ("name", "count", "parameters"), CASES, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(CASES)]
)
def test_they_are_the_methods(
    name: str, count: int, parameters: dict[str, Any], entries: int
) -> None:
    *models, base = draw(count + 1, entries)
    needed = base if find_method(name).needs_base else None
    found, exact, notes = both(name, models, needed, parameters)
    assert found.dtype == np.float32
    assert float(np.abs(found - exact).max()) < 2e-6
    assert notes[0] == notes[1]


@pytest.mark.parametrize("density", [0.001, 0.3, 0.77])
def test_of_equal_magnitudes_the_first_ones_stay(density: float) -> None:
    # Eighths: thousands of entries lie exactly at the cut, and single ones on either side count.
    *models, base = draw(3, 100_003, rounded=True)
    found, exact, _ = both("ties", models, base, {"density": density})
    assert float(np.abs(found - exact).max()) < 2e-6


def test_a_misleading_sample_does_not_change_what_is_kept() -> None:
    # Every sixth entry is looked at first, and all of those are small.
    delta = np.random.default_rng(0).normal(size=100_002).astype(np.float32)
    delta[::6] *= 1e-3
    zero = np.zeros_like(delta)
    assert len(delta) // on_arrays.SAMPLE == 6
    found, exact, _ = both("ties", [delta, delta], zero, {"density": 0.4})
    assert np.count_nonzero(found) == int(0.4 * len(delta))
    assert np.array_equal(found, exact.astype(np.float32))


@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-4, 0.03, 0.0316, 0.032, 0.04, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_is_the_formula_from_parallel_to_antipodal(near: float, sign: int) -> None:
    a, noise = draw(2, 50_000)
    b = (sign * (a + np.float32(near) * noise)).astype(np.float32)
    found, exact, notes = both("slerp", [a, b], None, {"t": 0.3})
    assert float(np.abs(found - exact).max()) < 2e-6 * float(np.abs(exact).max() + 1)
    assert notes[0] == notes[1]
    assert bool(notes[0]) == (sign < 0 and near < 0.0318)  # cosine 0.9995


def test_slerp_of_zero_and_of_very_large_tensors() -> None:
    (a,) = draw(1, 5000)
    found, exact, notes = both("slerp", [a, np.zeros_like(a)], None, {})
    assert float(np.abs(found - exact).max()) < 1e-6
    assert notes[0] == notes[1] == ["a zero tensor has no direction: straight line taken"]
    large = [each * np.float32(1e30) for each in draw(2, 5000)]  # their squares leave float32
    with np.errstate(over="ignore"):
        found, exact, _ = both("slerp", large, None, {})
    assert float(np.abs(found / exact - 1).max()) < 1e-4


def test_what_cannot_be_averaged_is_refused_as_with_torch() -> None:
    tensor = Given(*draw(2, 10))
    with pytest.raises(UsageError, match="add up to 0: no average"):
        list(on_arrays.linear(tensor, {"weight": [1, -1], "normalize": True}, TensorContext()))
    with pytest.raises(UsageError, match=r"slerp needs t in \[0, 1\], got 1.5"):
        list(on_arrays.slerp(tensor, {"t": 1.5}, TensorContext()))
    values = {"weight": [1, 1], "lambda": 1.0, "normalize": True, "density": [1.5, 0.5]}
    with pytest.raises(UsageError, match=r"density must lie in \(0, 1\]"):
        list(on_arrays.ties(Given(*draw(3, 10)), values, TensorContext()))


@pytest.mark.parametrize(
    ("changed", "fits"),
    [({}, True), ({"scope": "model"}, False), ({"weighting": "after"}, False),
     ({"rescale": "l1"}, False), ({"weight": [1.0, -1.0]}, False)],
)  # fmt: skip
def test_what_ties_on_arrays_covers(changed: dict[str, Any], fits: bool) -> None:
    values = {**find_method("ties").resolve({}), "weight": [1.0, 1.0], **changed}
    assert on_arrays.ON_ARRAYS["ties"].fits(values) is fits


# -- from files ----------------------------------------------------------------------------------

RECIPES: list[dict[str, Any]] = [
    {"method": "linear", "models": [{"model": "a", "weight": 0.3}, "b"]},
    {"method": "slerp", "models": ["a", "b"], "parameters": {"t": 0.3}},
    {"method": "ties", "models": ["a", "b"], "base_model": "c", "parameters": {"density": 0.4}},
    {"method": "task_arithmetic", "models": ["a", "b"], "base_model": "c"},
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe["method"] for recipe in RECIPES])
def test_files_are_those_that_torch_would_write(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any],
    dtype: torch.dtype,
) -> None:  # fmt: skip
    for seed, name in enumerate("abc"):
        make_model(name, seed, dtype=dtype)
    here = load_file(merge(recipe, "here") / "model.safetensors")
    monkeypatch.setattr(to_disk, "merged_on_arrays", lambda job, plan: False)
    there = load_file(merge(recipe, "there", device="cpu") / "model.safetensors")
    # The last digit of a sum may be rounded otherwise: one step of the type, or of float32.
    step = max(torch.finfo(dtype).eps, 2.4e-7)
    for name, tensor in there.items():
        assert here[name].dtype == dtype
        assert torch.allclose(here[name].double(), tensor.double(), rtol=step, atol=1e-6)


def test_bfloat16_is_rounded_to_nearest_even_over_its_whole_range() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F7F_0000, 20_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF_0000)) | np.uint32(0x8000)  # exactly between two
    values = np.concatenate([bits, ties]).view(np.float32)
    stored, finite = arrays._narrow(values, "BF16")
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy()
    assert finite
    assert np.array_equal(stored, expected.view(np.uint16))
    largest = np.array([np.finfo(np.float32).max], np.float32)  # rounds to infinity
    assert not arrays._narrow(largest, "BF16")[1]
    back = arrays._widen(stored, np.dtype("float32"))
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
        merge(recipe, "out")


def test_torch_is_not_imported_for_them(make_model: MakeModel) -> None:
    for seed, name in enumerate("ab"):
        make_model(name, seed)
    code = (
        "import sys; from repsim.merging import merge\n"
        "merge({'method': 'slerp', 'models': ['a', 'b']}, 'out')\n"
        "heavy = {'torch', 'transformers', 'scipy', 'pandas', 'pyarrow', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert load_file("out/model.safetensors")[NORM].shape == (8,)
