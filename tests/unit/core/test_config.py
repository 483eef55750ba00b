"""One reader of configurations: strict types, bounded documents, errors that name the key."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from repsim.core.config import Config, Number, Switch, Whole, load, parse, read_yaml
from repsim.core.errors import InputError, UsageError


class Leg(Config):
    length: Number = Field(ge=0, le=2)
    joints: Whole = Field(default=1, ge=0)
    origin: str | None = Field(default=None, alias="from")


class Table(Config):
    legs: tuple[Leg, ...]
    steps: Literal["log", "none"] | tuple[Whole, ...] = "log"
    compiled: Switch | Literal["auto"] = "auto"
    colours: dict[str, Number] = Field(default_factory=dict)


def test_what_is_right_is_read() -> None:
    document = {"legs": [{"length": "3e-1", "joints": 2.0, "from": "oak"}], "steps": [1, 2]}
    table = parse(Table, document)
    assert table.legs[0] == Leg.model_validate({"length": 0.3, "joints": 2, "from": "oak"})
    assert (table.steps, table.compiled) == ((1, 2), "auto")
    assert parse(Table, {"legs": [], "compiled": True}).compiled is True


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "'legs' is missing"),
        ({"legs": 3}, "'legs' is 3, must be a list"),
        ({"legs": [{"length": 1, "lenght": 2}]}, r"key 'legs\[0\].lenght'.*'legs\[0\].length'"),
        ({"legs": [{"length": 1, "zzz": 2}]}, "known: length, joints, from"),
        ({"legs": [{"length": True}]}, r"'legs\[0\].length' is True, must be a number"),
        ({"legs": [{"length": "3e9"}]}, r"'legs\[0\].length' is 3e\+09, must be at most 2"),
        ({"legs": [{"length": float("inf")}]}, "is inf, not a finite number"),
        ({"legs": [{"length": 1, "joints": True}]}, "joints' is True, must be a whole number"),
        ({"legs": [{"length": 1, "joints": "2"}]}, "joints' is '2', must be a whole number"),
        ({"legs": [{"length": 1, "joints": 1.5}]}, "joints' is 1.5, must be a whole number"),
        ({"legs": [{"length": 1, "from": 3}]}, r"'legs\[0\].from' is 3, must be text"),
        ({"legs": [], "steps": "lgo"}, "'lgo', must be one of: log, none or a list.*mean 'log'"),
        ({"legs": [], "steps": [1, "x"]}, r"'steps\[1\]' is 'x', must be a whole number"),
        ({"legs": [], "compiled": 1}, "is 1, must be true or false or one of: auto"),
        ({"legs": [], "colours": {"red": "x"}}, "'colours.red' is 'x', must be a number"),
        ({"legs": [], "colours": None}, "'colours' is nothing, must be a mapping"),
        (["legs"], r"the document is \['legs'\], must be a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(document, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse(Table, document)


def test_a_path_within_a_larger_document() -> None:
    with pytest.raises(UsageError, match=r"'runs\[2\].length' is 3, must be at most 2"):
        parse(Leg, {"length": 3}, "runs[2]")


def test_files_are_named(tmp_path) -> None:
    path = tmp_path / "leg.yaml"
    path.write_text("length: 1\n")
    assert load(Leg, path, "leg").length == 1.0
    path.write_text("length: 9\n")
    with pytest.raises(UsageError, match="leg '.*leg.yaml': 'length' is 9"):
        load(Leg, path, "leg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000, "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "deeper than 40 levels"),
        ("a: &a [1]\nb: &b [*a, *a]\na: 2", "key 'a' is repeated"),
        ("a: &a\n  b: *a", "deeper than 40 levels"),
        (
            "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]"
                                        for i in range(1, 12)),
            "more than 500,000 values",
        ),
        ("#" * 250_001, "more than 250,000 bytes"),
    ],
    ids=["deep", "nested", "repeated", "endless", "laughs", "large"],
)  # fmt: skip
def test_documents_beyond_all_measure_are_refused(tmp_path, text, message) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_yaml(path, "file")
