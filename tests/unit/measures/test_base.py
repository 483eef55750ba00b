import dataclasses

import numpy as np
import pytest

from repsim.core import InputError, Measure, UsageError
from repsim.core.registry import DuplicateNameError
from repsim.measures import (
    MEASURES,
    MeasureWarning,
    as_features,
    caution,
    compute_grid,
    get_measure,
    list_measures,
    measure,
    similarity_measure,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 3))


def test_an_alias_that_binds_parameters_keeps_its_name() -> None:
    bound = get_measure("knn_jaccard_euclidean_k10")
    assert (bound.name, bound.params) == (
        "knn_jaccard_euclidean_k10",
        {"k": 10, "metric": "euclidean"},
    )
    assert get_measure("cka_linear") is get_measure("cka_biased")
    assert get_measure(bound) is bound


def test_every_alias_leads_to_a_measure() -> None:
    assert set(MEASURES.aliases().values()) <= set(MEASURES.names())
    for alias in MEASURES.aliases():
        assert np.isfinite(measure(np.vstack([X, X + 1]), np.vstack([Y, Y - 1]), alias)) or (
            alias == "cka_minibatch50"
        )


def test_parameters_are_passed() -> None:
    assert measure(X, Y, "mutual_knn", k=8) != measure(X, Y, "mutual_knn", k=2)


def test_cca_at_n_under_d_warns_and_is_refused_when_strict() -> None:
    wide = RNG.normal(size=(30, 40))
    with pytest.warns(MeasureWarning, match="'cca' says little at n=30 rows of width 40"):
        assert measure(wide, Y, "cca") == pytest.approx(1.0)
    with pytest.raises(InputError, match="says little .*use more sentences, or cka"):
        measure(wide, Y, "cca", strict=True)
    assert caution(get_measure("cka"), 30, 40, 3) == ""


def test_a_neighbourhood_of_most_rows_warns_and_is_refused_when_strict() -> None:
    x, y = RNG.normal(size=(2, 5, 4))
    with pytest.warns(MeasureWarning, match="k=10 neighbours it needs 30 .k is at most n - 2"):
        measure(x, y, "mutual_knn")
    with pytest.raises(InputError, match="'mutual_knn' says little at n=5 rows"):
        measure(x, y, "mutual_knn", strict=True)


@pytest.mark.parametrize("name", ["cka_biased", "bures", "procrustes", "distance_correlation"])
def test_what_width_alone_lifts_warns_where_units_outnumber_rows(name: str) -> None:
    x, y = RNG.normal(size=(2, 40, 60))
    with pytest.warns(MeasureWarning, match="unrelated data look alike too"):
        measure(x, y, name)
    with pytest.raises(InputError, match="d/n = 1.5 exceeds 1"):
        measure(x, y, name, strict=True)


def test_rows_that_outweigh_the_others_are_said() -> None:
    x, y = RNG.normal(size=(2, 60, 8))
    x[[7, 20]] *= 20
    y[[7, 20]] *= 20
    with pytest.warns(MeasureWarning, match=r"2 of 60 .* is 7\) hold 9\d % and 9\d %"):
        measure(x, y, "cka")
    with pytest.raises(InputError, match="the value is theirs"):
        measure(x, y, "cka", strict=True)
    measure(x, y, "mutual_knn")


def test_repeated_rows_are_said_where_both_sides_repeat_them() -> None:
    x, y = RNG.normal(size=(2, 100, 8)).astype(np.float32)
    x[90:] = x[:10]
    measure(x, y, "cka", strict=True)
    y[90:] = y[:10]
    with pytest.warns(MeasureWarning, match="10 of 100 rows repeat another on both sides"):
        measure(x, y, "cka")


def declare(name: str, **fields: object) -> Measure:
    described = {
        "label": "-", "rung": None, "direction": "similarity", "range": (None, None),
        "invariances": (), "min_samples": 1, "definition": "-", "reference": "-", "estimator": "-",
        "undefined_on_constant": False,
    }  # fmt: skip

    @similarity_measure(name=name, **{**described, **fields})  # type: ignore[arg-type]
    def product(x: object, y: object, *, power: float = 1.0) -> float:
        return float((x.x.sum() * y.x.sum()) ** power)  # type: ignore[attr-defined]

    return product


def test_a_declared_measure_is_found_by_name_and_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))
    monkeypatch.setattr(MEASURES, "_aliases", dict(MEASURES._aliases))
    mine = declare("mine", aliases={"mine_squared": {"power": 2.0}})
    assert list_measures()[-1] is mine
    assert measure([[2.0]], [[3.0]], "mine_squared") == 36
    with pytest.raises(DuplicateNameError, match="'mine' is registered twice"):
        declare("mine")
    with pytest.raises(DuplicateNameError, match="'cka_linear' is registered twice"):
        declare("another", aliases={"cka_linear": {}})
    assert "another" not in MEASURES


def test_a_grid_without_a_fast_path_asks_for_each_pair() -> None:
    xs, ys = [as_features(X), as_features(X[:, :2])], [as_features(Y)]
    grid = compute_grid(get_measure("soft_match"), xs, ys)
    expected = [[measure(x, y, "soft_match") for y in ys] for x in xs]
    np.testing.assert_array_equal(grid, expected)


def test_a_symmetric_measure_of_one_list_is_asked_once_per_unordered_pair() -> None:
    calls = []

    def spy(x: object, y: object) -> float:
        calls.append((x, y))
        return float(len(calls))

    layers = [as_features(X), as_features(Y), as_features(X + 1)]
    spied = dataclasses.replace(get_measure("soft_match"), function=spy, grid=None)
    grid = compute_grid(spied, layers, layers)
    assert len(calls) == 6
    np.testing.assert_array_equal(grid, grid.T)


def test_constant_layers_are_undefined_in_a_grid_as_they_are_alone() -> None:
    flat = as_features(np.full((30, 3), 0.1))
    grid = compute_grid(get_measure("cka"), [as_features(X), flat], [as_features(Y), flat])
    np.testing.assert_array_equal(np.isnan(grid), [[False, True], [True, True]])


@pytest.mark.parametrize(
    ("x", "y", "name", "error", "message"),
    [
        (X, Y, "linear_cka", UsageError, "'linear_cka' .*did you mean 'cka' or"),  # not cka_biased
        (X, Y, "svca", UsageError, "unknown measure 'svca' .*did you mean .*'svcca'"),
        (X, Y[:-1], "cka", InputError, r"\[30, 4\] and \[29, 3\].*same sentence"),
        (X[:3], Y[:3], "cka", InputError, "'cka' needs at least 4 rows, got 3"),
        (X, Y, "unit_correlation", InputError, "needs equal widths, got 4 and 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    x: np.ndarray, y: np.ndarray, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(x, y, name)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("mutual_knn", {"q": 1}, "'mutual_knn' has no parameter 'q' .*k, metric"),
        ("mutual_knn", {"k": 0}, "k=0 is not possible"),
        ("second_order_cosine", {"values": "rank"}, "values='rank' is not possible"),
        ("svcca", {"threshold": 0}, "threshold=0 is not possible"),
        ("pwcca", {"weights": "y"}, "weights='y' is not possible"),
        ("gulp", {"ridge": -1}, "ridge=-1 is not possible"),
        ("rsa", {"comparison": "tau"}, "unknown comparison 'tau' .*spearman, pearson"),
        ("rsa", {"comparison": "whitened_pearson"}, "whitened_pearson is defined for sqeuclidean"),
        ("shape", {"alpha": 1.5}, "is not possible .*alpha from 0 to 1"),
        ("shape", {"whiten": "pca"}, "is not possible .*alpha from 0 to 1"),
        ("stitch_linear", {"folds": 15}, "folds=15 of 30 rows"),
        ("riemannian", {"shrinkage": 0.0}, "shrinkage"),
        ("cka_minibatch", {"batch_size": 3}, "batch_size=3 is not possible"),
        *[("cka_rbf", {"bandwidth": b}, "bandwidth '.*' is not poss") for b in ("mean", 0.0, -1)],
    ],
)
def test_parameters_that_are_not_possible_are_refused(
    name: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        measure(X, Y, name, **params)
