import numpy as np
import pytest

from repsim.core.errors import UsageError
from repsim.plots.checkpoints import checkpoints_info
from repsim.testing.tables import synthetic_table

STEPS = {"s0": 0, "s1": 1, "s8": 8, "s64": 64}


@pytest.fixture(scope="module")
def run():
    return synthetic_table(
        dict.fromkeys(STEPS, 4), languages=("eng_Latn", "deu_Latn"), measures=("cka", "procrustes")
    )


@pytest.mark.parametrize(("to", "others"), [("last", [0, 1, 8]), ("s1", [0, 8, 64])])
def test_each_checkpoint_is_held_against_the_reference(run, to, others):
    info = checkpoints_info(run, to=to, steps=STEPS, languages=["eng_Latn"])
    reference = {"last": "s64"}.get(to, to)
    assert (info.reference, info.at.tolist()) == (reference, others)
    names = [name for name in STEPS if name != reference]
    for curve in info.panels[0].curves:
        grids = [run.grid(reference, name, measure="cka").values for name in names]
        expected = [grid[curve.layer, curve.layer] for grid in grids]
        np.testing.assert_allclose(curve.value, expected)


def test_steps_are_those_that_models_state(run):
    models = {name: of | {"tokens": 1000 * STEPS[name]} for name, of in run.info["models"].items()}
    stated = type(run)(run.to_arrow(), {**run.info, "models": models})
    info = checkpoints_info(stated)
    assert (info.unit, info.at.tolist()) == ("tokens", [0, 1000, 8000])


def test_what_is_missing_is_said(run):
    with pytest.raises(UsageError, match="0 checkpoints state their steps"):
        checkpoints_info(run)
    with pytest.raises(UsageError, match="unknown checkpoint 's2'"):
        checkpoints_info(run, to="s2", steps=STEPS)
    rest = run.where(model_a=["s0", "s1"], model_b=["s1", "s64"])
    with pytest.raises(UsageError, match="does not compare s8 with s64"):
        checkpoints_info(rest, steps=STEPS)
