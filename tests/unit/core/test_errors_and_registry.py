"""Errors name what to do; registries load late and suggest the nearest name."""

import sys

import pytest

from repsim.core.errors import (
    GateFailedError,
    IncompatibleModelsError,
    InputError,
    RepsimError,
    ResourceError,
    UsageError,
    unknown_name,
)
from repsim.core.registry import DuplicateNameError, Registry


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (RepsimError, 1),
        (UsageError, 2),
        (InputError, 3),
        (IncompatibleModelsError, 4),
        (ResourceError, 5),
        (GateFailedError, 10),
    ],
)
def test_each_kind_of_error_has_its_documented_exit_code(
    kind: type[RepsimError], code: int
) -> None:
    assert kind("what").exit_code == code


def test_an_error_reads_as_what_and_hint() -> None:
    assert str(InputError("no file", hint="make one")) == "no file (hint: make one)"
    assert str(InputError("no file")) == "no file"


def test_unknown_names_suggest_the_nearest_or_list_all() -> None:
    assert "did you mean 'procrustes'?" in str(unknown_name("measure", "procrust", ["procrustes"]))
    assert "known: a, b" in str(unknown_name("thing", "zzz", ["b", "a"]))
    many = [f"name{i}" for i in range(30)]
    assert "30 are known; see: repsim x" in str(unknown_name("t", "qq", many, see="repsim x"))


def test_a_registry_imports_an_entry_only_when_it_is_asked_for() -> None:
    registry: Registry[object] = Registry("thing")
    sys.modules.pop("colorsys", None)
    registry.add("late", "colorsys:rgb_to_hsv")
    assert registry.names() == ["late"]
    assert "colorsys" not in sys.modules
    import colorsys

    assert registry["late"] is colorsys.rgb_to_hsv


def test_a_name_cannot_be_registered_twice() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1, aliases=("uno",))
    registry.add("one", 1, aliases=("uno",))  # the same again is no harm
    with pytest.raises(DuplicateNameError, match="number 'one' is registered twice"):
        registry.add("one", 2)
    with pytest.raises(DuplicateNameError, match="number 'uno' is registered twice"):
        registry.add("two", 2, aliases=("uno",))
    assert registry["uno"] == 1
    assert registry.aliases() == {"uno": "one"}


def test_unknown_entries_raise_the_kind_and_the_suggestion() -> None:
    registry: Registry[int] = Registry("measure", see="repsim measures")

    @registry.register("cka_of_one")
    def one() -> int:
        return 1

    with pytest.raises(UsageError, match="unknown measure 'cka_of_on'.*repsim measures"):
        registry["cka_of_on"]
    assert "cka_of_one" in registry
    assert len(registry) == 1
    assert list(registry) == ["cka_of_one"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("CKA", "'cka'?"), ("linear_cka", "'cka_linear' or 'cka'?"), ("ckka", "'cka'?")],
)
def test_other_case_order_and_slips_find_the_name(written: str, meant: str) -> None:
    assert str(unknown_name("measure", written, ["cka", "cka_linear", "rsa"])).endswith(
        f"did you mean {meant})"
    )
