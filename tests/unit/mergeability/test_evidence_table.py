"""Evidence from atlases: a lineage is one model, features follow the alignment."""

import numpy as np
import pytest

from repsim.core.errors import InputError
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.feature_sets import with_as_merged
from repsim.mergeability.lineage import lineage_of_atlas
from repsim.mergeability.splits import leave_models_out
from repsim.testing.atlases import planted_atlas
from repsim.testing.evidence import planted_evidence


@pytest.fixture(scope="module")
def atlas():
    return planted_atlas()


def test_rows_are_merges_with_outcome_and_features(atlas) -> None:
    table = EvidenceTable.from_atlas(atlas)
    measured = set(atlas.features.unique("parents"))
    expected = [
        row for row in atlas.merges.rows()
        if row["retention"] is not None and row["parents"] in measured
    ]  # fmt: skip
    assert len(table) == len(expected) > 0
    assert table["retention"].tolist() == [row["retention"] for row in expected]


def test_a_feature_of_a_language_is_that_of_the_row(atlas) -> None:
    table = EvidenceTable.from_atlas(atlas)
    found = {
        (row["parents"], row["language"], row["feature"]): row["value"]
        for row in atlas.features.rows()
        if row["language"]
    }
    (parents, language, feature), value = next(iter(found.items()))
    rows = (table["parents"] == parents) & (table["language"] == language)
    assert rows.any()
    assert (table[feature][rows] == value).all()


def test_a_twin_is_of_the_lineage_of_its_model(atlas) -> None:
    lineage = lineage_of_atlas(atlas)
    controls = [row for row in atlas.merges.rows() if row["control"] and row["k"] == 2]
    twins = {
        tuple(row["parents"].split(" + ")) for row in controls
        if len(set(row["parents"].split(" + "))) == 2
    }  # fmt: skip
    for source, twin in twins:
        assert lineage[twin] == source


def test_a_lineage_is_held_out_together() -> None:
    table = planted_evidence(models=16)
    lineage = {"model-01": "model-00"}
    related = EvidenceTable(table.columns, table.features, table.tiers, lineage)
    for fold in leave_models_out(related, blocks=4, least=8).folds:
        tested = {name for row in fold.test for name in related.parents[row]}
        if "model-01" in tested:
            known = {name for row in fold.train for name in related.parents[row]}
            assert not known & {"model-00", "model-01"}


def test_two_atlases_do_not_share_models_by_name(atlas) -> None:
    both = EvidenceTable.from_atlas([atlas, atlas])
    assert all(":" in name for row in both.parents for name in row)
    one = EvidenceTable.from_atlas(atlas)
    assert len(both) == 2 * len(one)


def test_an_atlas_without_features_is_no_evidence() -> None:
    with pytest.raises(InputError, match="no merge with both"):
        EvidenceTable.from_atlas(planted_atlas(features=False))


def test_similarity_as_merged_follows_the_alignment_of_each_row() -> None:
    rows = [{"merge": a, "alignment": a} for a in ("none", "permutation", "orthogonal")]
    raw = {"unit_correlation_late": [0.0] * 3, "permutation_late": [0.5] * 3,
           "procrustes_late": [0.9] * 3}  # fmt: skip
    table = EvidenceTable.from_rows(rows, raw, dict.fromkeys(raw, "T2"))
    assert with_as_merged(table)["similarity_as_merged_late"].tolist() == [0.0, 0.5, 0.9]
    lacking = table.with_features({"procrustes_late": np.full(3, np.nan)}, {})
    assert np.isnan(with_as_merged(lacking)["similarity_as_merged_late"][2])
