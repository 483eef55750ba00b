import math

import pytest

from repsim.core.errors import UsageError
from repsim.plots.selection import (
    MeasureFacts,
    Pair,
    Reading,
    read_at,
    sample_size,
    select,
    shuffles_of,
    statistics_note,
)
from repsim.testing.tables import synthetic_table


def test_cka_is_the_default_measure(two_encoders):
    assert select(two_encoders).facts.name == "cka"


def test_the_first_measure_is_shown_where_there_is_no_cka():
    table = synthetic_table({"a": 2, "b": 2}, measures=("svcca", "mutual_knn"))
    assert select(table).facts.name == "svcca"


def test_self_comparisons_and_the_second_order_are_left_out(table_of):
    table = table_of(
        [
            {"value": 1.0, "model_b": "a"},
            {"value": 0.5},
            {"value": 0.5, "model_a": "b", "model_b": "a"},
        ]
    )
    assert list(select(table).pairs) == [Pair("a", "eng_Latn", "b", "eng_Latn")]


def test_an_asymmetric_measure_keeps_both_orders(table_of):
    declared = {"regression": {"label": "R2", "symmetric": False, "range": [None, 1.0]}}
    rows = [
        {"value": 0.5, "measure": "regression"},
        {"value": 0.4, "measure": "regression", "model_a": "b", "model_b": "a"},
    ]
    assert len(select(table_of(rows, declared)).pairs) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "ckaa"}, "unknown measure in this table 'ckaa'.*'cka'"),
        ({"models": ["minilm"]}, "unknown model in this table 'minilm'"),
        ({"languages": ["xxx"]}, "unknown language in this table 'xxx'"),
        ({"point": "mlp"}, "unknown hook point in this table 'mlp'"),
        ({"pairing": "same"}, "unknown pairing 'same'.*'same text'"),
        ({"models": ["minilm-l6"], "pairing": "same text"}, "no 'cka' between different models"),
    ],
)
def test_what_is_not_in_the_table_is_refused_by_name(two_encoders, options, message):
    with pytest.raises(UsageError, match=message):
        select(two_encoders, **options)


def test_an_empty_table_is_refused(table_of):
    with pytest.raises(UsageError, match="the table is empty"):
        select(table_of([]))


def test_numbers_are_read_at_the_middle_the_mean_or_a_layer(table_of):
    rows = [{"layer_a": k, "layer_b": k, "value": value} for k, value in enumerate([0.1, 0.5, 0.9])]
    cells = next(iter(select(table_of(rows)).pairs.values()))
    assert read_at(cells, "middle").value == 0.5
    assert read_at(cells, "mean").value == pytest.approx(0.5)
    assert read_at(cells, 2).value == 0.9
    with pytest.raises(UsageError, match=r"layer 7 is not in the table.*\[0, 1, 2\]"):
        read_at(cells, 7)


def test_layers_are_matched_by_relative_depth(table_of):
    rows = [{"layer_a": a, "layer_b": b, "value": 0.1 * a + b} for a in range(5) for b in range(3)]
    cells = next(iter(select(table_of(rows)).pairs.values()))
    assert read_at(cells, "middle").value == pytest.approx(0.2 + 1)


def test_a_mean_with_a_missing_number_has_none(table_of):
    whole, lacking = Reading(1, 1, 1, 1, 1, 1, 1), Reading(3, math.nan, 3, 3, 3, 3, 3)
    mean = Reading.mean([whole, lacking])
    assert mean.value == 2
    assert math.isnan(mean.ci_low)


def test_the_note_states_n_interval_null_and_covariates(two_encoders):
    note = statistics_note(select(two_encoders), interval=True, null=True, partial=True)
    assert note == [
        "n = 686 sentences",
        "interval 95 % jackknife",
        "null = 95 % of 100 shuffles",
        "dashed = log length removed",
    ]


def test_the_note_states_fewer_shuffles_and_documents(table_of):
    statistics = {
        "shuffles": 100, "permutations_expensive": 20, "expensive_measures": ["cka"], "level": 0.9,
        "interval": "jackknife", "interval_unit": "documents",
    }  # fmt: skip
    chosen = select(table_of([{"value": 0.5}], statistics=statistics))
    assert statistics_note(chosen, interval=True, null=True)[1:] == [
        "interval 90 % jackknife over documents",
        "null = 95 % of 20 shuffles",
    ]
    assert shuffles_of([chosen]) == "20 shuffles"


def test_sample_sizes_that_differ_are_a_range(table_of):
    table = table_of([{"value": 0.5, "n": 1200}, {"value": 0.4, "n": 900, "language_b": "eng_Latn",
                                                   "layer_a": 1}])  # fmt: skip
    assert sample_size(select(table)) == "n = 900–1 200 sentences"


def test_direction_stands_in_every_label(two_encoders):
    up, down = (MeasureFacts.of(two_encoders, name) for name in ("cka", "procrustes"))
    assert up.axis_label == "CKA (debiased) (↑\xa0more\xa0similar)"
    assert down.axis_label == "angular Procrustes (↓\xa0more\xa0similar)"


def test_a_table_without_declarations_is_read_plainly():
    facts = MeasureFacts.of(synthetic_table({"a": 1, "b": 1}), "unheard-of")
    assert (facts.label, facts.direction, facts.identity, facts.rung) == (
        "unheard-of", "similarity", 1.0, None,
    )  # fmt: skip
