"""Evidence from atlases: a lineage is one model, features follow the alignment."""

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from repsim.core.atlas import ModelTable
from repsim.core.errors import InputError
from repsim.core.files import hash_json
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.evidence_files import read_evidence
from repsim.mergeability.feature_sets import with_derived
from repsim.mergeability.lineage import lineage_of
from repsim.mergeability.predictor import Predictor
from repsim.mergeability.splits import incidence, leave_models_out
from repsim.testing.evidence import planted_evidence
from tests.planted.atlases import planted_atlas


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
    named = parents.replace("main/", "planted:main/")
    rows = (table["parents"] == named) & (table["language"] == language)
    assert rows.any()
    assert (table[feature][rows] == value).all()


def test_a_twin_is_of_the_lineage_of_its_model(atlas) -> None:
    lineage = lineage_of({"": atlas})
    controls = [row for row in atlas.merges.rows() if row["control"] and row["k"] == 2]
    twins = {
        tuple(row["parents"].split(" + ")) for row in controls
        if len(set(row["parents"].split(" + "))) == 2
    }  # fmt: skip
    for source, twin in twins:
        assert lineage[twin] == source


def test_a_lineage_is_held_out_together() -> None:
    table = planted_evidence(models=16)
    related = table.with_columns({}, {"lineage": {"model-01": "model-00"}})
    for fold in leave_models_out(related, blocks=4, least=8).folds:
        tested = {name for row in fold.test for name in related.parents[row]}
        if "model-01" in tested:
            known = {name for row in fold.train for name in related.parents[row]}
            assert not known & {"model-00", "model-01"}


def _named(atlas, **study):
    """The same study under another name, of another family or text."""
    return dataclasses.replace(atlas, info={"study": {**atlas.info["study"], **study}})


def test_two_atlases_do_not_share_models_by_name_but_by_weights_and_origin(atlas) -> None:
    other = _named(atlas, name="other", corpus="/some/where/mono", architecture={"family": "gpt2"})
    both, one = EvidenceTable.from_atlas([atlas, other]), EvidenceTable.from_atlas(atlas)
    assert len(both) == 2 * len(one)
    assert {name.partition(":")[0] for row in both.parents for name in row} == {"planted", "other"}
    mine = both["source"] == "planted"
    assert (set(both["text"][mine]), set(both["text"][~mine])) == ({"none"}, {"mono"})
    assert (set(both["family"][mine]), set(both["family"][~mine])) == ({""}, {"gpt2"})
    for histories in (False, True):
        found, names = incidence(both, histories=histories)
        assert not (found[mine].any(axis=0) & found[~mine].any(axis=0)).any()
        assert len(names) == 2 * len(incidence(one, histories=histories)[1])
    with pytest.raises(InputError, match="two atlases are of studies called 'planted'"):
        EvidenceTable.from_atlas([atlas, atlas])

    base = hashlib.sha256(b"base").hexdigest()
    rows = [{**row, "forked_from": base, "weights_hash": row["model"]}
            for row in atlas.models.rows()]  # fmt: skip
    tuned = dataclasses.replace(atlas, models=ModelTable(rows))
    twins = EvidenceTable.from_atlas([tuned, _named(tuned, name="other")])
    assert set(twins.histories) == {frozenset([base])}
    assert not any(name.startswith("other:") for row in twins.roots for name in row)


def test_an_atlas_without_features_is_no_evidence() -> None:
    with pytest.raises(InputError, match="no merge with both"):
        EvidenceTable.from_atlas(planted_atlas(features=False))


def test_the_hash_is_that_of_the_json_document_of_all_columns() -> None:
    table = planted_evidence(models=6).with_columns({"arm": ["größer", '"', None] * 30})
    table = table.with_features({"x": np.array([np.nan, -0.0, np.inf] * 30)}, {"x": "T1"})
    listed = {name: [None if v != v else v for v in table[name].tolist()] for name in table.COLUMNS}
    features = {
        name: [None if v != v else v for v in values.tolist()]
        for name, values in table.features.items()
    }
    document = {"columns": listed, "features": features, "tiers": table.tiers, "lineage": {},
                "origins": {}}  # fmt: skip
    assert table.hash == hash_json(document)


def test_files_of_earlier_versions_are_read(tmp_path) -> None:
    table = planted_evidence(models=6).with_columns({}, {"lineage": {"model-01": "model-00"}})
    table = table.with_columns({"family": [""] * len(table)})
    for version, told in (
        (1, {"tiers": table.tiers, "kin": table.lineage, "features": list(table.features)}),
        (2, {"info": {**table.info, "families": {"planted": "llama"}}}),
    ):
        header = {"schema": f"repsim/evidence/{version}", **told}
        old = table.to_arrow().drop_columns(["family", "text"])
        old = old.replace_schema_metadata({"repsim": json.dumps(header)})
        pq.write_table(old, tmp_path / "evidence.parquet")
        again = EvidenceTable.load(tmp_path)
        assert again.lineage == {"model-01": "model-00"}
        assert set(again["family"]) == {"llama" if version == 2 else ""}
        assert again.with_columns({"family": [""] * len(again)}, table.info).hash == table.hash


def test_a_data_frame_of_some_rows_is_evidence_again() -> None:
    table = planted_evidence(models=6).with_columns({}, {"lineage": {"model-01": "model-00"}})
    frame = table.to_pandas()
    again = EvidenceTable(frame.iloc[[3, 1, 2]])
    assert again.hash == table.take(np.array([3, 1, 2])).hash


def test_infinity_is_kept_and_nothing_is_learnt_from_it(tmp_path) -> None:
    table = planted_evidence(models=12)
    values = table["distance"].copy()
    values[7] = np.inf
    infinite = table.with_features({"distance": values}, {})
    assert EvidenceTable.load(infinite.save(tmp_path / "e.parquet"))["distance"][7] == np.inf
    with pytest.raises(InputError, match=r"'distance' of the merge 'model-00 .* is infinite"):
        Predictor().fit(infinite)
    file = tmp_path / "merges.csv"
    file.write_text("a,b,cosine,kept\nx,y,0.9,0.8\nx,z,inf,0.2\n")
    with pytest.raises(InputError, match="column 'cosine' of .* holds 'inf'"):
        read_evidence(file, parents=["a", "b"], outcome="kept")


def test_similarity_as_merged_follows_the_alignment_of_each_row() -> None:
    rows = [{"merge": a, "alignment": a} for a in ("none", "permutation", "orthogonal")]
    raw = {"unit_correlation_late": [0.0] * 3, "permutation_late": [0.5] * 3,
           "procrustes_late": [0.9] * 3}  # fmt: skip
    table = EvidenceTable.from_rows(rows, raw, dict.fromkeys(raw, "T2"))
    assert with_derived(table)["similarity_as_merged_late"].tolist() == [0.0, 0.5, 0.9]
    lacking = table.with_features({"procrustes_late": np.full(3, np.nan)}, {})
    assert np.isnan(with_derived(lacking)["similarity_as_merged_late"][2])
