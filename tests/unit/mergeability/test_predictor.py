"""The predictor: the same to the bit, blind to what it must not see, honest about what it knows."""

import json

import numpy as np
import pytest

from repsim.core.errors import InputError, UsageError
from repsim.core.files import write_json
from repsim.mergeability import shipped_predictor
from repsim.mergeability.candidate import Doubt
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.evidence_files import read_evidence
from repsim.mergeability.predictor import EVIDENCE_FILE, PREDICTOR_FILE, Predictor
from repsim.mergeability.splits import assert_apart, leave_models_out, standard_splits
from repsim.testing.evidence import planted_evidence


@pytest.fixture(scope="module")
def planted():
    return planted_evidence(models=16)


def test_a_refit_gives_the_same_bytes(planted, tmp_path) -> None:
    for name in "ab":
        Predictor().fit(planted).save(tmp_path / name)
    one, two = ((tmp_path / name / PREDICTOR_FILE).read_bytes() for name in "ab")
    assert one == two


def test_a_table_survives_its_file_with_features_called_as_columns_are(planted, tmp_path) -> None:
    rows = len(planted)
    table = planted.with_features(
        {"fork_fraction": np.linspace(0, 1, rows)}, {"fork_fraction": "T0"}
    )
    table.save(tmp_path / EVIDENCE_FILE)
    again = EvidenceTable.load(tmp_path / EVIDENCE_FILE)
    assert again.hash == table.hash
    assert again.features["fork_fraction"][-1] == 1.0


def test_a_predictor_whose_table_was_changed_is_refused(planted, tmp_path) -> None:
    Predictor().fit(planted).save(tmp_path)
    planted.take(np.arange(len(planted) - 1)).save(tmp_path / EVIDENCE_FILE)
    with pytest.raises(InputError, match="is not the one that its predictor was fitted on"):
        Predictor.load(tmp_path)


def test_nothing_is_pickled(planted, tmp_path) -> None:
    Predictor().fit(planted).save(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".parquet"]
    json.loads((tmp_path / PREDICTOR_FILE).read_text())


def test_no_model_is_on_both_sides_of_a_split(planted) -> None:
    for split in standard_splits(planted, blocks=4):
        for fold in split.folds:
            assert_apart(planted, fold.train, fold.test)


def test_a_leak_is_caught(planted) -> None:
    fold = leave_models_out(planted, blocks=4).folds[0]
    leaking = np.concatenate([fold.train, fold.test[:1]])
    with pytest.raises(UsageError, match="is both in training and in test rows"):
        assert_apart(planted, leaking, fold.test)


def test_the_shipped_evidence_covers_every_arm() -> None:
    evidence = shipped_predictor().evidence_
    assert set(evidence["arm"]) >= {"A", "A2", "B", "C", "E", "F", "G"}
    assert len(evidence.merges()[1]) >= 600


def test_tables_of_others(tmp_path) -> None:
    file = tmp_path / "merges.csv"
    file.write_text("a,b,cosine,kept\nx,y,0.9,0.8\nx,z,0.1,-0.2\n")
    table = read_evidence(file, parents=["a", "b"], outcome="kept")
    assert table.parents[1] == ("x", "z")
    with pytest.raises(UsageError, match="nothing"):
        read_evidence(file, parents=["nothing"], outcome="kept")
    with pytest.raises(InputError, match="neither .csv nor .parquet"):
        read_evidence(tmp_path / "merges.txt")
    with pytest.raises(InputError, match="do not|few|models"):
        Predictor().fit(table)


def test_files_of_the_version_before_are_read(planted, tmp_path) -> None:
    made = Predictor().fit(planted)
    made.save(tmp_path)
    document = made.to_json() | {"schema": "repsim/predictor/2", "evidence": "of other columns"}
    for part in document["parts"].values():
        del part["doubts"]
        for name in ("rows", "merges"):
            for later in ("units", "usual", "powers"):
                del part[name][later]
    write_json(tmp_path / PREDICTOR_FILE, document)
    again = Predictor.load(tmp_path)
    assert np.array_equal(again.predict(planted), made.predict(planted))
    assert all(part.doubts == (Doubt(), Doubt()) for part in again.parts_.values())
