import matplotlib as mpl
import pytest

from repsim.core.errors import UsageError
from repsim.plots import style
from repsim.plots.appearance import (
    MARKERS,
    PALETTE,
    ROLES,
    contrast,
    darkened,
    looks,
    width_of,
)


def test_style_does_not_leak_when_drawing_fails():
    before = dict(mpl.rcParams)

    def broken():
        with style():
            assert mpl.rcParams["svg.hashsalt"] == "repsim"
            assert mpl.rcParams["axes.spines.top"] is False
            raise RuntimeError("no paper")

    with pytest.raises(RuntimeError, match="no paper"):
        broken()
    assert dict(mpl.rcParams) == before


def test_style_is_the_same_whatever_the_user_set():
    with mpl.rc_context({"font.size": 30.0, "axes.grid": True}), style():
        assert mpl.rcParams["font.size"] == 8.5
        assert mpl.rcParams["axes.grid"] is False


def test_roles_have_their_colour_and_marker():
    found = looks(["monolingual", "mixed", "merged"])
    assert [(look.fill, look.marker) for look in found] == [
        ("#1F5FA8", "D"), ("#C8601A", "s"), ("#2E8B57", "o"),
    ]  # fmt: skip


def test_others_follow_the_palette_and_differ_in_marker_too():
    found = looks(["other"] * 6)
    assert tuple(look.fill for look in found) == PALETTE
    assert tuple(look.marker for look in found) == MARKERS


def test_two_series_of_one_role_differ_without_colour():
    first, second = looks(["merged", "merged"])
    assert first.fill == second.fill
    assert (first.marker, first.filled) != (second.marker, second.filled)


def test_others_keep_away_from_the_colours_of_roles():
    beside = looks(["monolingual", "other"])[1]
    assert beside.fill not in {ROLES["monolingual"][0], "#0072B2"}


@pytest.mark.parametrize("colour", [*PALETTE, *(colour for colour, _ in ROLES.values())])
def test_lines_and_texts_are_readable_on_white(colour):
    assert contrast(darkened(colour, 3.0)) >= 3.0
    assert contrast(darkened(colour, 4.5)) >= 4.5


def test_contrast_is_that_of_wcag():
    assert contrast("#FFFFFF") == pytest.approx(1.0)
    assert contrast("#000000") == pytest.approx(21.0)


def test_an_unknown_size_is_named():
    with pytest.raises(UsageError, match="unknown figure size 'wid'.*'wide'"):
        width_of("wid")
