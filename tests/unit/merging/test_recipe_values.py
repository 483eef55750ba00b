"""What a merge would refuse of a recipe, a forecast refuses; no recipe ends in a traceback."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repsim.core.config import read_yaml
from repsim.core.errors import RepsimError, UsageError
from repsim.mergeability.question import read_question
from repsim.merging.prepare import prepare
from repsim.merging.reading import read_recipe

EN, DE, BASE = "zoo:eng-1", "zoo:deu-1", "zoo:mixed"
PAIR = {"method": "linear", "models": [EN, DE]}


def weighted(first: Any, second: Any, **keys: Any) -> dict[str, Any]:
    models = [{"model": EN, "weight": first}, {"model": DE, "weight": second}]
    return {**PAIR, "models": models, **keys}


def mergekit(method: str, **parameters: Any) -> dict[str, Any]:
    models = [{"model": m, "parameters": parameters} if parameters else {"model": m}
              for m in (EN, DE)]  # fmt: skip
    return {"merge_method": method, "models": models, "base_model": BASE}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({**PAIR, "method": "ties", "base_model": BASE, "parameters": {"density": 7}}, "density"),
        (
            {**PAIR, "method": "ties", "base_model": BASE, "parameters": {"density": [0.5, 7]}},
            "density",
        ),
        (mergekit("ties", density=7, weight=1), "density"),
        ({**PAIR, "method": "slerp", "parameters": {"t": 1.5}}, "'parameters.t' is 1.5"),
        (weighted(1, -1), "add up to 0"),
        (weighted([1, 2], [-1, 1]), "add up to 0"),
        (weighted([{"filter": "mlp", "value": 0.0}], 0), "add up to 0"),
        ({**PAIR, "method": "nuslerp", "parameters": {"row_wise": True, "column_wise": True}},
         "not both"),
        ({**PAIR, "method": "multislerp", "models": weighted(0, 0)["models"]}, "add up to zero"),
        (mergekit("linear"), "gives no 'weight'"),
        (weighted(10**400, 1), "finite number"),
        (weighted(float("inf"), 1), "finite number"),
        ({**PAIR, "method": "liner"}, "did you mean 'linear'"),
        ({**PAIR, "tokenizer": {"strategy": "unite"}}, "must be one of: same, map, union"),
        ({**PAIR, "repair": {"corpus": "bible", "limit": 99999999999}}, "limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_merge_refuses_a_forecast_refuses(document: dict[str, Any], said: str) -> None:
    for ask in (read_question, lambda source: prepare(read_recipe(source))):
        with pytest.raises(UsageError, match=said):
            ask(copy.deepcopy(document))


@pytest.mark.parametrize(
    "document",
    [
        {**PAIR, "tokenizer": {"strategy": "union"}},
        {**mergekit("task_arithmetic", weight=0.5), "tokenizer_source": "union"},
    ],
)
def test_a_union_of_tokenizers_that_are_the_same_is_that_one(document: dict[str, Any]) -> None:
    asked = prepare(read_recipe(document))
    assert asked.tokenizer is None
    assert read_question(document).tokenizer == "same"


# -- generated ------------------------------------------------------------------------------------

_NUMBERS = st.one_of(
    st.integers(-3, 3), st.floats(allow_nan=True), st.sampled_from([10**30, 10**400, -(10**5)])
)
_ODD = st.recursive(
    _NUMBERS | st.booleans() | st.none() | st.sampled_from(["", "x", "1e400", "\x00", "weight"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "filter", "value", "weight", "t"]), inner)
    ),
    max_leaves=6,
)
_WHOLE: list[dict[str, Any]] = [
    weighted(0.5, [0.1, 0.9], dtype="float32", out_dtype="bfloat16", seed=3),
    {**PAIR, "method": "ties", "base_model": BASE, "parameters": {"density": 0.5, "lambda": 1.0}},
    {**PAIR, "repair": {"corpus": "bible", "languages": ["eng_Latn"], "limit": 4}},
    {"method": "passthrough", "models": [{"model": EN, "layers": [0, 2]}, DE]},
    mergekit("dare_ties", weight=0.5, density=0.5),
    {**mergekit("slerp"), "parameters": {"t": [{"filter": "mlp", "value": 0.2}, {"value": 0.5}]}},
]


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*at, key) for key, _ in inner] if isinstance(value, dict | list) else []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return found + [
        place
        for key, child in inner
        if isinstance(child, dict | list)
        for place in _places(child, (*at, key))
    ]


@st.composite
def _recipes(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(draw(st.sampled_from(_WHOLE)))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(_places(document)))
        target: Any = document
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = draw(_ODD)
    return document


@settings(max_examples=150, deadline=None)
@given(document=_recipes())
def test_a_recipe_is_read_or_refused_and_never_ends_in_a_traceback(
    document: dict[str, Any],
) -> None:
    with contextlib.suppress(RepsimError):
        read_recipe(document)


_TEXT = st.text(alphabet="ab01e-+:.,[]{}&*!|>#%\"' \n?~\t<=_xé", max_size=60)
_TAGS = ("int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "null", "python/x")
_VALUES = ("x", "", "2001-13-45", "[1, 2]", "{a: 1}", "0o9", "1:99:1", "====", "9" * 5000)
_TAGGED = st.builds("a: !!{} {}".format, st.sampled_from(_TAGS), st.sampled_from(_VALUES))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=_TEXT | _TAGGED)
def test_a_file_is_read_as_yaml_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        found = read_yaml(path, "file")
    except RepsimError:
        return
    assert found == yaml.safe_load(text) or found != found or "nan" in repr(found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "a: " + "[" * 100_000,
        lambda: "a: " + "{b: " * 5_000,
        lambda: "a: " + "9" * 200_000,
        lambda: "\n".join(f"k{i}: {i}" for i in range(15_000)),
        lambda: "a: 2001-13-45",
        lambda: "? [a, b]\n: 1",
        lambda: "x" * 20_000_000,
    ],
    ids=["brackets", "mappings", "digits", "keys", "month 13", "list as key", "20 MB"],
)
def test_a_file_beyond_measure_is_answered_in_seconds(
    make: Callable[[], str], tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(make())
    with pytest.raises(RepsimError):
        read_recipe(path)
