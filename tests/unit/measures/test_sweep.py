import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsim.core import (
    Activations,
    ArraysInMemory,
    InputError,
    Invariance,
    Measure,
    ModelRef,
    SimilarityTable,
    UsageError,
)
from repsim.core.pool import available_cores
from repsim.measures import (
    MEASURES,
    FeatureCache,
    Features,
    Statistics,
    get_measure,
    list_measures,
    measure,
    partial,
    plan_sweep,
    run_unit,
    similarity_measure,
    sweep,
    sweep_info,
    with_q_values,
)
from repsim.measures.cells import _threads_of_this_process as threads_of_this_process
from repsim.measures.statistics import Unit

N = 64
#: Number of each row's document, four rows each, as in `reading`.
NUMBERS = np.arange(N) // 4
FAST = Statistics(permutations=19, permutations_expensive=5, groups=8, groups_expensive=5)


def reading(model: str, language: str, *, layers: int = 3, d: int = 6, n: int = N, seed: int = 0,
            **more: Any) -> Activations:  # fmt: skip
    """Activations of a model that sees one latent meaning in every language, and the length."""
    meaning = np.random.default_rng(99).normal(size=(n, 4))
    own = np.random.default_rng([seed, *map(ord, model + language)])
    length = own.normal(size=n)
    arrays = {
        ("resid", k): (
            meaning @ own.normal(size=(4, d)) + 0.7 * own.normal(size=(n, d)) + length[:, None]
        ).astype(np.float32)
        for k in range(layers)
    }
    return Activations(
        model=ModelRef(model, f"models/{model}", weights_hash=f"weights of {model}"),
        language=language,
        ids=tuple(f"s{i}" for i in range(n)),
        layers={"resid": tuple(range(layers))},
        pooling="mean",
        corpus_hash=f"text in {language}",
        source=ArraysInMemory(arrays),
        covariates={"log_length": length},
        documents=tuple(f"d{i // 4}" for i in range(n)),
        **more,
    )


@pytest.fixture
def four() -> list[Activations]:
    return [reading(m, lang) for m in ("a", "b") for lang in ("deu_Latn", "eng_Latn")]


def test_every_value_is_the_measure_on_the_two_layers(four: list[Activations]) -> None:
    names = ["cka", "procrustes", "mutual_knn", "unit_correlation", "svcca"]
    table = sweep(four, names, statistics=Statistics.off())
    sides = {(acts.model.name, acts.language): acts for acts in four}
    assert len(table) == 5 * (2 * 9 + 2 * 3)
    for row in table.rows():
        x = sides[row["model_a"], row["language_a"]].array("resid", row["layer_a"])
        y = sides[row["model_b"], row["language_b"]].array("resid", row["layer_b"])
        left, right = (Features(a, documents=NUMBERS) for a in (x, y))
        assert row["value"] == pytest.approx(measure(left, right, row["measure"]), abs=1e-9)
        assert row["n"] == N
        assert row["null_q95"] is None
        assert row["partial"] is None


def test_pairs_and_cells_follow_the_pairing(four: list[Activations]) -> None:
    def cells(**options: Any) -> set[tuple[Any, ...]]:
        table = sweep(four, ["cka"], statistics=Statistics.off(), **options)
        sides = ("model_a", "language_a", "model_b", "language_b", "pairing")
        return {tuple(row[k] for k in sides) for row in table.rows()}

    assert cells(pairings=["same text"]) == {
        ("a", lang, "b", lang, "same text") for lang in ("deu_Latn", "eng_Latn")
    }
    assert cells(pairings=["parallel text"]) == {
        (m, "deu_Latn", m, "eng_Latn", "parallel text") for m in "ab"
    }
    across = cells(pairings=["parallel text across models"])
    assert {row[:4] for row in across} == {
        ("a", "deu_Latn", "b", "eng_Latn"), ("a", "eng_Latn", "b", "deu_Latn"),
    }  # fmt: skip
    with_self = cells(pairings=["same text"], self_pairs=True)
    assert ("a", "eng_Latn", "a", "eng_Latn", "same text") in with_self


def test_layers_are_all_or_matched_as_asked(four: list[Activations]) -> None:
    counts = {
        layers: [u.comparisons for u in plan_sweep(four, ["cka"], layers=layers)]
        for layers in ("auto", "all", "matched")
    }
    assert counts == {"auto": [9, 9, 3, 3], "all": [9] * 4, "matched": [3] * 4}
    deeper = [reading("a", "eng_Latn", layers=5), reading("b", "eng_Latn", layers=3)]
    table = sweep(deeper, ["cka"], layers="matched", statistics=Statistics.off())
    assert [(r["layer_a"], r["layer_b"]) for r in table.rows()] == [(0, 0), (2, 1), (4, 2)]


def test_each_number_has_its_null_interval_and_partial_value(four: list[Activations]) -> None:
    table = sweep(four[1::2], ["cka", "procrustes"], statistics=FAST)
    x, y = (Features(acts.array("resid", 1), documents=NUMBERS) for acts in four[1::2])
    covariates = np.stack([acts.covariates["log_length"] for acts in four[1::2]], axis=1)
    for row in table.rows():
        matched = row["layer_a"] == row["layer_b"]
        filled = [row[k] is not None for k in ("null_mean", "null_q95", "calibrated", "p_value",
                  "p_adjusted", "ci_low", "ci_high", "partial")]  # fmt: skip
        assert all(filled) if matched or row["measure"] == "cka" else not any(filled)
        if row["layer_a"] == row["layer_b"] == 1:
            expected = partial(row["measure"], x, y, covariates)
            assert row["partial"] == pytest.approx(expected, abs=1e-9)
            assert row["ci_low"] < row["value"] < row["ci_high"]
        if row["measure"] == "cka":
            assert row["p_value"] >= 1 / 20
            assert row["p_adjusted"] >= row["p_value"]


def test_length_that_both_see_is_shown_by_the_partial_value() -> None:
    rng = np.random.default_rng(0)
    sides = []
    length = rng.normal(size=200)
    for name in ("a", "b"):
        x = rng.normal(size=(200, 20)) + 3 * length[:, None]
        sides.append(
            dataclasses.replace(
                reading(name, "eng_Latn", n=200, layers=1),
                source=ArraysInMemory({("resid", 0): x.astype(np.float32)}),
                covariates={"log_length": length},
            )
        )
    row = next(sweep(sides, ["cka"], statistics=FAST).rows())
    assert row["value"] > 0.8
    assert abs(row["partial"]) < 0.02


def test_intervals_over_documents_differ_from_those_over_sentences(four: list[Activations]) -> None:
    by = {
        unit: next(
            sweep(four[1::2], ["cka"], statistics=dataclasses.replace(FAST, unit=unit)).rows()
        )
        for unit in ("sentence", "document")
    }
    assert by["sentence"]["value"] == pytest.approx(by["document"]["value"], abs=0.02)
    assert by["sentence"]["value"] != by["document"]["value"]
    assert by["sentence"]["null_mean"] != by["document"]["null_mean"]
    assert by["sentence"]["ci_low"] != by["document"]["ci_low"]


def test_same_request_same_table_and_other_seed_other_null(four: list[Activations]) -> None:
    first, again, other = (
        sweep(
            four, ["cka", "permutation"], statistics=dataclasses.replace(FAST, seed=seed)
        ).to_json()
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["rows"][0]["value"] == other["rows"][0]["value"]
    assert first["rows"][0]["null_q95"] != other["rows"][0]["null_q95"]


def test_units_alone_give_the_same_rows_as_the_sweep(four: list[Activations]) -> None:
    units = plan_sweep(four, ["cka", "svcca"], statistics=FAST)
    parts = SimilarityTable.concat([run_unit(unit) for unit in units])
    whole = sweep(four, ["cka", "svcca"], statistics=FAST)
    assert list(with_q_values(parts).rows()) == list(whole.rows())
    assert parts.info == sweep_info(units)
    assert with_q_values(parts).info == whole.info


def test_a_small_cache_changes_nothing_but_memory(four: list[Activations]) -> None:
    units = plan_sweep(four, ["cka", "svcca", "mutual_knn"], statistics=FAST)
    roomy, tight = FeatureCache(), FeatureCache(max_bytes=1)
    for unit in units:
        for row, same in zip(
            run_unit(unit, roomy).rows(), run_unit(unit, tight).rows(), strict=True
        ):
            # Fewer layers at once: sums are rounded otherwise.
            assert row == {
                key: pytest.approx(value, rel=1e-9, abs=1e-12)
                if isinstance(value, float)
                else value
                for key, value in same.items()
            }


def test_every_layer_is_read_once_per_sweep(four: list[Activations]) -> None:
    reads: dict[tuple[int, str, int], int] = {}

    @dataclasses.dataclass(frozen=True)
    class Counting:
        inner: Any
        number: int

        def read(self, point: str, layer: int) -> np.ndarray:
            key = (self.number, point, layer)
            reads[key] = reads.get(key, 0) + 1
            return self.inner.read(point, layer)

    counted = [
        dataclasses.replace(acts, source=Counting(acts.source, i)) for i, acts in enumerate(four)
    ]
    sweep(counted, ["cka", "procrustes"], statistics=FAST)
    assert set(reads.values()) == {1}
    assert len(reads) == 4 * 3


def test_key_names_what_the_numbers_depend_on(four: list[Activations]) -> None:
    def key(sides: list[Activations], measures: Any = ("cka",), **options: Any) -> str:
        return plan_sweep(sides, measures, pairings=["same text"], **options)[0].key

    a, b = reading("a", "eng_Latn"), reading("b", "eng_Latn")
    base = key([a, b])
    assert base == key([reading("a", "eng_Latn"), reading("b", "eng_Latn")])
    other_weights = dataclasses.replace(a, model=dataclasses.replace(a.model, weights_hash="new"))
    others = [
        key([other_weights, b]),
        key([dataclasses.replace(a, pooling="last"), b]),
        key([dataclasses.replace(a, info={"dtype": "bfloat16"}), b]),
        key([a, b], ["procrustes"]),
        key([a, b], [get_measure("mutual_knn").with_params(k=5)]),
        key([a, b], ["mutual_knn"]),
        key([a, b], layers="matched"),
        key([a, b], statistics=Statistics(seed=1)),
        key([reading("a", "eng_Latn", n=32), reading("b", "eng_Latn", n=32)]),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert key([dataclasses.replace(a, info={"cached": True}), b]) == base


def test_table_states_models_measures_and_statistics(four: list[Activations]) -> None:
    info = sweep(four, ["cka", "mutual_knn"], statistics=FAST).info
    assert info["models"]["a"]["weights_hash"] == "weights of a"
    assert info["measures"]["cka"]["direction"] == "similarity"
    assert info["statistics"]["shuffles"] == 19
    assert info["statistics"]["expensive_measures"] == []
    assert "jackknife over documents" in info["statistics"]["description"]
    assert "Values only" in Statistics.off().describe()["description"]


def test_parameters_of_an_alias_are_written_into_the_rows(four: list[Activations]) -> None:
    table = sweep(four, ["svcca_099"], statistics=Statistics.off())
    row = next(table.rows())
    assert (row["measure"], row["params"]) == ("svcca_099", '{"threshold": 0.99}')


def test_reader_is_warned_cell_by_cell() -> None:
    few = [reading(m, "eng_Latn", n=24, d=30) for m in "ab"]
    notes = {
        row["measure"]: row["note"]
        for row in sweep(few, ["cka", "cca", "procrustes", "mutual_knn"], statistics=FAST).rows()
    }
    assert notes["cka"].startswith(
        "only 24 sentences: intervals are wide, or missing; under 30 doc"
    )
    assert "says little at n=24 rows of width 30" in notes["cca"]
    assert "says little at n=24 rows of width 30" in notes["procrustes"]
    assert "with k=10 neighbours it needs 30" in notes["mutual_knn"]
    some = [reading(m, "eng_Latn", n=64, d=30) for m in "ab"]
    notes = {r["measure"]: r["note"] for r in sweep(some, ["procrustes", "mutual_knn"]).rows()}
    assert "n = 64 is under 5 x width 30: unrelated data score high too" in notes["procrustes"]
    assert "under 5 x width" not in notes["mutual_knn"]


def test_very_few_sentences_get_no_interval_rather_than_a_wrong_one() -> None:
    few = [reading(m, "eng_Latn", n=8) for m in "ab"]
    row = next(sweep(few, ["procrustes"], statistics=FAST).rows())
    assert row["value"] is not None
    assert row["ci_low"] is None


def test_a_measure_without_interval_says_why(four: list[Activations]) -> None:
    row = next(sweep(four[1::2], ["identity_match"], statistics=FAST).rows())
    assert row["ci_low"] is None
    assert row["note"] == (
        "no interval: a share of units, often the same whichever sentences are left out"
    )


def test_documents_are_the_unit_where_there_are_enough_and_sentences_with_a_word_elsewhere(
    four: list[Activations],
) -> None:
    def stated(documents: list[str], unit: Unit = "document") -> tuple[str, str]:
        sides = [dataclasses.replace(acts, documents=tuple(documents)) for acts in four[::2]]
        asked = dataclasses.replace(FAST, unit=unit)
        table = sweep(sides, ["cka"], pairings=("same text",), statistics=asked)
        return table.info["statistics"]["interval_unit"], next(table.rows())["note"]

    n = len(four[0])
    assert stated([str(i // 3) for i in range(n)])[0] == "documents"
    assert stated([str(i // 3) for i in range(n)], "sentence")[0] == "sentences"
    assert stated([])[0] == "sentences"
    unit, note = stated(["all but one"] * (n - 9) + [str(i) for i in range(9)])
    assert unit == "sentences"
    assert f"one document holds {n - 9} of {n} rows" in note


def test_documents_of_different_length_are_said_where_they_can_only_be_shuffled() -> None:
    lengths = np.repeat([str(i) for i in range(20)], [2] * 18 + [8, N - 44])
    sides = [dataclasses.replace(reading(m, "eng_Latn"), documents=tuple(lengths)) for m in "ab"]
    rows = sweep(sides, ["cka", "mutual_knn"], statistics=FAST).rows()
    notes = {row["measure"]: row["note"] for row in rows}
    assert "stay in place in the shuffles" in notes["mutual_knn"]
    assert "stay in place" not in notes["cka"]


def test_different_widths_leave_unit_wise_measures_empty_with_a_note() -> None:
    sides = [reading("a", "eng_Latn", d=6), reading("b", "eng_Latn", d=8)]
    table = sweep(sides, ["unit_correlation", "cka"], statistics=Statistics.off())
    by_measure = {row["measure"]: row for row in table.rows()}
    assert by_measure["unit_correlation"]["value"] is None
    assert by_measure["unit_correlation"]["note"] == "needs equal widths: 6 and 8"
    assert by_measure["cka"]["value"] is not None


def test_many_sentences_are_computed_in_float32_within_a_millionth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_massive_dimensions(name: str) -> Activations:
        acts = reading(name, "eng_Latn", n=400, layers=2, d=24)
        arrays = dict(acts.source.arrays)  # type: ignore[attr-defined]
        for array in arrays.values():
            array[:, :3] += np.array([60.0, -35.0, 110.0], dtype=np.float32)
        return dataclasses.replace(acts, source=ArraysInMemory(arrays))

    sides = [with_massive_dimensions(name) for name in "ab"]
    names = ["cka", "cka_biased", "procrustes", "unit_correlation", "svcca", "rsa"]
    exact = sweep(sides, names, statistics=Statistics.off()).column("value")
    monkeypatch.setattr("repsim.measures.cells.FLOAT64_ROWS", 100)
    cache = FeatureCache()
    unit = plan_sweep(sides, names, statistics=Statistics.off())[0]
    single = run_unit(unit, cache).column("value")
    layers = cache.layers(sides[0], "resid", [0], np.empty((400, 0)))
    assert layers[0].dtype == torch.float32
    np.testing.assert_allclose(single, exact, atol=1e-6)
    assert not np.array_equal(single, exact)


def test_threads_are_capped_and_given_back() -> None:
    before = torch.get_num_threads()
    with threads_of_this_process() as count:
        assert 1 <= count <= available_cores()
        assert torch.get_num_threads() == count
    assert torch.get_num_threads() == before


def test_nan_activations_are_named(four: list[Activations]) -> None:
    arrays = dict(four[1].source.arrays)  # type: ignore[attr-defined]
    arrays["resid", 2] = arrays["resid", 2].copy()
    arrays["resid", 2][5, 1] = np.nan
    broken = dataclasses.replace(four[1], source=ArraysInMemory(arrays))
    with pytest.raises(InputError, match=r"a on eng_Latn, resid layer 2, are NaN.*first is 's5'"):
        sweep([broken, four[3]], ["cka"])


def test_misaligned_sides_are_refused(four: list[Activations]) -> None:
    a, b = four[1], four[3]
    swapped = dataclasses.replace(b, ids=(b.ids[1], b.ids[0], *b.ids[2:]))
    with pytest.raises(InputError, match="not hold the same sentences.*row 0 is 's0' and 's1'"):
        sweep([a, swapped], ["cka"])
    with pytest.raises(InputError, match="a/eng_Latn and b/eng_Latn hold 64 and 60 sentences"):
        sweep([a, reading("b", "eng_Latn", n=60)], ["cka"])
    with pytest.raises(InputError, match="same ids but read different text"):
        sweep([a, dataclasses.replace(b, corpus_hash="other")], ["cka"])
    short = dataclasses.replace(b, source=ArraysInMemory({("resid", 0): np.zeros((3, 6))}),
                                layers={"resid": (0,)})  # fmt: skip
    with pytest.raises(InputError, match="have 3 rows for 64 sentences"):
        sweep([a, short], ["cka"])


def test_too_few_sentences_for_a_measure_are_refused_before_anything_is_computed() -> None:
    with pytest.raises(InputError, match="'cka' needs at least 4 sentences, got 3"):
        plan_sweep([reading(m, "eng_Latn", n=3) for m in "ab"], ["cka"])


def test_what_is_asked_for_must_exist(four: list[Activations]) -> None:
    with pytest.raises(UsageError, match="unknown measure 'ckaa'"):
        plan_sweep(four, ["ckaa"])
    with pytest.raises(UsageError, match="no measure to compute"):
        plan_sweep(four, [])
    with pytest.raises(UsageError, match="'mutual_knn' is asked for with two settings"):
        plan_sweep(four, ["mutual_knn", get_measure("mutual_knn").with_params(k=5)])
    assert len(plan_sweep(four, ["cka", "cka_debiased", "cka"])[0].measures) == 1
    with pytest.raises(UsageError, match="pairing 'other text' is not possible"):
        plan_sweep(four, ["cka"], pairings=["other text"])
    with pytest.raises(UsageError, match="layers='some' is not possible"):
        plan_sweep(four, ["cka"], layers="some")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="hook point 'mlp' was not extracted for a/deu_Latn"):
        plan_sweep(four, ["cka"], point="mlp")
    with pytest.raises(UsageError, match="two sets of activations of 'a' on deu_Latn"):
        plan_sweep([*four, four[0]], ["cka"])
    with pytest.raises(UsageError, match="nothing to compare"):
        sweep(four[:1], ["cka"])
    with pytest.raises(UsageError, match="carry no covariate 'tokens'"):
        sweep(four, ["cka"], statistics=Statistics(covariates=("tokens",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"permutations": -1}, "permutations is negative"),
        ({"groups": 3}, "3 groups are too few"),
        ({"level": 1.0}, r"level=1.0 is not between"),
        ({"unit": "word"}, "unit 'word' is not possible"),
    ],
)
def test_statistics_that_are_not_possible_are_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Statistics(**options)


@pytest.mark.slow
def test_every_registered_measure_goes_through_a_sweep(four: list[Activations]) -> None:
    names = [m.name for m in list_measures() if m.reads == "activations"]
    table = sweep(four[1::2], names, statistics=FAST)
    assert set(table.unique("measure")) == set(names)
    values = {row["measure"]: row["value"] for row in table.rows() if row["layer_a"] == 1}
    assert [name for name, value in values.items() if value is None] == []


def test_a_measure_of_logits_is_refused_on_activations(four: list[Activations]) -> None:
    with pytest.raises(UsageError, match="'output_kl' reads logits, not the activations"):
        sweep(four, ["cka", "output_kl"])


@pytest.fixture
def row_cosine(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """A cheap measure as a user writes it: a declaration and a function."""
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))

    @similarity_measure(
        name="row_cosine",
        label="Row cosine",
        rung=None,
        direction="similarity",
        range=(-1.0, 1.0),
        invariances={Invariance.TRANSLATION, Invariance.ISOTROPIC_SCALING},
        min_samples=3,
        definition="mean over rows of the cosine between the centred row of X and that of Y",
        reference="an example",
        estimator="plain",
        needs_equal_width=True,
    )
    def row_cosine(x: Features, y: Features) -> float:
        return float(torch.nn.functional.cosine_similarity(x.centered, y.centered).mean())

    return row_cosine


def test_a_new_cheap_measure_gets_null_interval_and_partial_value_as_cka_does(
    four: list[Activations], row_cosine: Measure
) -> None:
    asked = dataclasses.replace(FAST, thorough_partial=True)
    rows = list(sweep(four, ["cka", "row_cosine"], statistics=asked).rows())
    by = {name: [row for row in rows if row["measure"] == name] for name in ("cka", "row_cosine")}
    assert len(by["cka"]) == len(by["row_cosine"]) == 2 * 9 + 2 * 3
    for cka, mine in zip(by["cka"], by["row_cosine"], strict=True):
        filled = [{key for key, value in row.items() if value is not None} for row in (cka, mine)]
        assert filled[0] == filled[1]
        assert mine["p_value"] >= 1 / 20
    declared = sweep(four, ["row_cosine"], statistics=FAST).info
    assert declared["statistics"]["expensive_measures"] == []
    assert declared["measures"]["row_cosine"]["cost"] == "cheap"


def test_a_table_of_version_0_1_is_read_under_the_new_names(
    four: list[Activations], tmp_path: Path
) -> None:
    table = sweep(four[1::2], ["procrustes"], statistics=FAST)
    stated = table.info["statistics"]
    old = {key.replace("expensive_measures", "dear_measures").replace("_expensive", "_dear"): value
           for key, value in stated.items()}  # fmt: skip
    assert {"dear_measures", "permutations_dear", "groups_dear"} <= set(old)
    written = SimilarityTable(table.to_arrow(), table.info | {"statistics": old})
    path = written.save(tmp_path / "t.parquet")
    assert SimilarityTable.load(path).info["statistics"] == stated
