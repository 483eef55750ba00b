import numpy as np
import pytest
from scipy.spatial.distance import pdist

from repsim.core import Activations
from repsim.core.errors import UsageError
from repsim.measures import dissimilarities, measure
from repsim.plots.rdm import rdm_info

LANGUAGES = ("eng_Latn", "deu_Latn")


def read_by(name, seed, rows=12):
    rng = np.random.default_rng(seed)
    documents = [f"d{k // 2}" for k in range(rows)]
    return [Activations.from_arrays(name, [rng.normal(size=(rows, 6)) for _ in range(3)],
                                    language=language, documents=documents)
            for language in LANGUAGES]  # fmt: skip


@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
def test_dissimilarities_are_those_of_scipy_over_all_languages(metric):
    acts = read_by("m", 0)
    table = dissimilarities(acts, point="", by="sentence", metric=metric)
    rows = np.concatenate([one.array("", 1) for one in acts])  # half of the depth
    np.testing.assert_allclose(table["value"], pdist(rows, metric), rtol=1e-6)


def test_an_item_is_the_mean_of_its_document():
    acts = read_by("m", 0)
    table = dissimilarities(acts, point="", layer=2, metric="euclidean")
    means = [one.array("", 2).reshape(6, 2, 6).mean(axis=1) for one in acts]
    np.testing.assert_allclose(table["value"], pdist(np.concatenate(means)), rtol=1e-6)
    info = rdm_info(table)
    assert info.groups == (("eng", 6), ("deu", 6))
    assert info.items[0] == "eng d0"
    np.testing.assert_allclose(info.panels[0].values, info.panels[0].values.T)


def test_two_models_agree_as_rsa_says():
    a, b = read_by("a", 0)[:1], read_by("b", 1)[:1]
    table = dissimilarities(a + b, point="", layer=0, by="sentence", metric="euclidean")
    (_, _, rho) = rdm_info(table).agreement[0]
    assert rho == pytest.approx(measure(a[0].array("", 0), b[0].array("", 0), "rsa"), abs=1e-9)


def test_what_cannot_be_drawn_is_said():
    a, b = read_by("a", 0), read_by("b", 1, rows=8)
    with pytest.raises(UsageError, match="not those of 'a'"):
        rdm_info(dissimilarities(a + b, point=""))
    with pytest.raises(UsageError, match="layer 7 of 'a' was not extracted"):
        dissimilarities(a, point="", layer=7)
    with pytest.raises(UsageError, match="0 models"):
        rdm_info(dissimilarities(a, point="").where(model="nobody"))
