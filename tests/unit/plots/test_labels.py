import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from repsim.plots.drawing.labels import place_beside, spread

CENTRES = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(CENTRES, st.floats(1, 10))
def test_spread_labels_never_overlap_and_keep_their_order(centres, height):
    placed = spread(centres, [height] * len(centres), 0, 100)
    order = np.argsort(centres, kind="stable")
    gaps = np.diff(placed[order])
    assert (gaps >= height - 1e-9).all()


@settings(deadline=None, max_examples=50)
@given(CENTRES, st.floats(1, 10))
def test_spread_labels_stay_within_bounds_while_they_fit(centres, height):
    placed = spread(centres, [height] * len(centres), 0, 100)
    assert placed.min() >= height / 2 - 1e-9
    assert placed.max() <= 100 - height / 2 + 1e-9


def test_labels_that_have_room_are_not_moved():
    np.testing.assert_allclose(spread([10, 50, 90], [5, 5, 5], 0, 100), [10, 50, 90])


def test_a_crowd_is_centred_on_its_wishes():
    np.testing.assert_allclose(spread([50, 50], [10, 20], 0, 100).mean(), 50, atol=5)
    np.testing.assert_allclose(spread([50, 50], [10, 10], 0, 100), [45, 55])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 25), st.integers(0, 5))
def test_names_beside_points_cover_neither_names_nor_points(count, seed):
    points = np.random.default_rng(seed).uniform(0, 300, (count, 2))
    sizes = np.full((count, 2), (30.0, 8.0))
    centres = place_beside(points, sizes, (-50, -50, 350, 350), 4.0)
    kept = ~np.isnan(centres[:, 0])
    boxes = np.hstack([centres - sizes / 2, centres + sizes / 2])[kept]
    for i, box in enumerate(boxes):
        apart = (boxes[:, 0] >= box[2]) | (boxes[:, 2] <= box[0])
        apart |= (boxes[:, 1] >= box[3]) | (boxes[:, 3] <= box[1])
        apart[i] = True
        assert apart.all()
        inside = ((points > box[:2]) & (points < box[2:])).all(axis=1)
        assert not inside.any()


def test_a_name_that_has_no_place_is_left_out():
    centres = place_beside(np.zeros((1, 2)), np.array([[50.0, 5.0]]), (-5, -5, 5, 5), 1.0)
    assert np.isnan(centres).all()
