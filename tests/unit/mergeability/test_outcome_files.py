"""Tables of merges that somebody else made: what is understood, left out and refused."""

import lzma

import pytest

from repsim.core.errors import InputError, UsageError
from repsim.mergeability.outcome_files import read_outcomes

HEAD = "model_a,model_b,method,score_a,score_b,cosine,stable_rank,constant,after"
ROWS = (
    "x,y,mean,0.9,0.7,0.1,1.0,5,0.31",
    "x,y,ties,0.8,0.6,0.1,1.0,5,0.32",
    "x,z,mean,0.5,0.4,0.2,2.0,5,0.33",
    "x,z,ties,0.4,,0.2,2.0,5,0.34",
    "y,z,mean,,,0.3,3.0,5,0.35",
)


def _written(folder, rows=ROWS, head=HEAD):
    file = folder / "merges.csv"
    file.write_text("\n".join([head, *rows]) + "\n")
    return file


def test_features_of_others_keep_to_themselves(tmp_path) -> None:
    table = read_outcomes(_written(tmp_path), outcome=["score_a", "score_b"])
    # `stable_rank` is what a feature of our own might be called; it is one of theirs like any other
    assert table.features == ["cosine", "stable_rank"]
    assert table["outcome"].tolist() == pytest.approx([0.8, 0.7, 0.45, 0.4])
    notes = " ".join(table.info["notes"])
    for said in ("1 of 5 rows have no outcome", "differ among merges of the same parents", "after",
                 "'constant' is 5 in every row"):  # fmt: skip
        assert said in notes


def test_a_column_that_is_called_like_the_outcome_is_no_feature(tmp_path) -> None:
    head, rows = "a,b,acc,normalised_acc,cosine", ("x,y,0.1,0.2,1", "x,z,0.3,0.4,2")
    table = read_outcomes(_written(tmp_path, rows, head), outcome=["acc"])
    assert table.features == ["cosine"]
    sides = ("x,y,0.1,0.2,1", "x,z,0.3,0.1,2")
    head = "a,b,kept_a,kept_b,cosine"
    assert read_outcomes(_written(tmp_path, sides, head), outcome=["kept_a"]).features == ["cosine"]


def test_what_goes_with_the_outcome_too_well_is_asked_about(tmp_path) -> None:
    rows = [f"x,{n},{0.1 * n},{0.1 * n + 0.001}" for n in range(5)]
    table = read_outcomes(_written(tmp_path, rows, "a,b,kept,later"), outcome=["kept"])
    assert "was it known before merging?" in table.info["notes"][0]


def test_floor_and_ceiling_make_the_share_that_is_kept(tmp_path) -> None:
    file = _written(tmp_path)
    how = {"outcome": ["score_a", "score_b"], "floor": ["0.4"], "ceiling": ["1.0"]}
    mean, least = (read_outcomes(file, **how, reduce=r)["outcome"][0] for r in ("mean", "min"))
    assert mean == pytest.approx((0.5 / 0.6 + 0.3 / 0.6) / 2)
    assert least == pytest.approx(0.5)


def test_compressed_tables_read_the_same(tmp_path) -> None:
    plain = _written(tmp_path)
    packed = tmp_path / "merges.csv.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    one, two = (read_outcomes(f, outcome=["score_a"]) for f in (plain, packed))
    assert list(one.rows()) == list(two.rows())


@pytest.mark.parametrize(
    ("rows", "how", "error", "said"),
    [
        (ROWS, {"outcome": ["scoer_a"]}, UsageError, "did you mean 'score_a'"),
        (ROWS, {}, UsageError, "which column of"),
        (ROWS, {"outcome": ["score_a"], "parents": ["nobody"]}, UsageError, "unknown column"),
        (ROWS, {"outcome": ["score_a"], "floor": ["0"]}, UsageError, "both the floor and"),
        (ROWS, {"outcome": ["score_a"], "features": ["constant"]}, UsageError, "and differs"),
        (("x,,mean,1,1,1,1,1,1",), {"outcome": ["score_a"]}, InputError, "names 'x' alone"),
        (("x,x,mean,1,1,1,1,1,1",), {"outcome": ["score_a"]}, InputError, "names 'x' alone"),
        ((*ROWS, ROWS[0]), {"outcome": ["score_a"]}, InputError, r"a merge twice: x \+ y · mean"),
        ((*ROWS, "y,x,mean,1,1,1,1,1,1"), {"outcome": ["score_a"]}, InputError, "a merge twice"),
        (("x,y,mean,,,1,1,1,1",), {"outcome": ["score_a"]}, InputError, "no row of"),
        (("x,y,mean,high,1,1,1,1,1",), {"outcome": ["score_a"]}, InputError, "holds 'high'"),
        ((), {"outcome": ["score_a"]}, InputError, "no rows"),
    ],
)
def test_bad_tables_are_refused_with_what_to_do(tmp_path, rows, how, error, said) -> None:
    with pytest.raises(error, match=said):
        read_outcomes(_written(tmp_path, rows), **how)


def test_other_files_are_refused(tmp_path) -> None:
    broken = tmp_path / "broken.csv.xz"
    broken.write_bytes(b"no xz")
    for name, said in (("merges.txt", "neither .csv"), ("no.csv", "does not exist"),
                       (broken.name, "cannot be read")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_outcomes(tmp_path / name, outcome=["x"])
