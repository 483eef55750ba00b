"""The graph: addresses, order, what is skipped, what is expected."""

import dataclasses

import pytest

from repsim.core.errors import UsageError
from repsim.studies.engine import Graph, Unit, selected, unit_keys


def chain() -> list[Unit]:
    return [
        Unit("train", "a", {"seed": 1}, seconds=10),
        Unit("train", "b", {"seed": 2}, seconds=10),
        Unit("merge", "a+b", {"m": "linear"}, ("a", "b"), seconds=5),
        Unit("plot", "draw", {}, ("a+b",), seconds=1),
        Unit("score", "s", {}, ("b",), seconds=1),
    ]


def test_an_address_depends_on_all_that_goes_before_and_on_nothing_else() -> None:
    units = chain()
    keys = unit_keys(units)
    changed = [dataclasses.replace(units[0], spec={"seed": 3}), *units[1:]]
    other = unit_keys(changed)
    assert {name for name in keys if keys[name] != other[name]} == {"a", "a+b", "draw"}
    cheaper = [dataclasses.replace(unit, seconds=0.5, gpus=1) for unit in units]
    assert unit_keys(cheaper) == keys


def test_units_in_the_wrong_order_or_of_one_name_are_no_graph() -> None:
    with pytest.raises(UsageError, match="does not stand before it"):
        Graph(chain()[::-1])
    with pytest.raises(UsageError, match="two units of work are called 'a'"):
        Graph([*chain(), Unit("k", "a", {})])


def test_what_is_ready_comes_by_the_length_of_the_way_to_the_end() -> None:
    units = [Unit("k", "short", {}, seconds=1), *chain()]
    graph = Graph(units)
    # a: 10 + 5 + 1; b the same; then the unit that nothing waits for.
    assert [unit.name for unit in graph.ready()] == ["a", "b", "short"]
    graph.running.add("a")
    assert [unit.name for unit in graph.ready()] == ["b", "short"]
    graph.finish("a", 10)
    graph.finish("b", 10)
    assert [unit.name for unit in graph.ready()] == ["a+b", "short", "s"]


def test_a_failure_skips_what_needs_it_however_far_and_nothing_else() -> None:
    graph = Graph(chain())
    assert sorted(graph.fail("a", "no memory")) == ["a+b", "draw"]
    assert graph.left == {"b", "s"}
    assert graph.failed == {"a": "no memory"}


def test_what_is_there_is_not_ready_again() -> None:
    keys = unit_keys(chain())
    graph = Graph(chain(), {keys["a"], keys["b"], "0" * 64})
    assert [unit.name for unit in graph.ready()] == ["a+b", "s"]


def test_expectations_follow_what_units_of_a_kind_took() -> None:
    graph = Graph(chain())
    assert graph.seconds_left(1) == 27
    assert graph.seconds_left(100) == 16  # the longest way, however many workers
    graph.finish("a", 20.0)
    assert graph.expected("b") == 20
    assert graph.expected("a+b") == 10  # not seen yet: off as the others are
    graph.learn("merge", 1.0)
    assert graph.expected("a+b") == 5
    assert Graph([]).seconds_left(2) == 0


def test_a_selection_holds_what_it_needs() -> None:
    names = [unit.name for unit in selected(chain(), ["draw"])]
    assert names == ["a", "b", "a+b", "draw"]
    assert [unit.name for unit in selected(chain(), ["train", "s"])] == ["a", "b", "s"]
    assert selected(chain(), []) == chain()
    with pytest.raises(UsageError, match="no unit of work fits 'trian'"):
        selected(chain(), ["trian"])
