"""The data order: pure, exact in every block, and the same for a language in every mixture."""

import numpy as np
import pytest

from repsim.core import UsageError
from repsim.corpora.data_order import (
    DataOrder,
    apportioned,
    largest_remainder,
    seeded_permutation,
    temperature_ratios,
)

LENGTHS = {"eng_Latn": 53, "deu_Latn": 31, "rus_Cyrl": 7}
RATIOS = {"eng_Latn": 0.5, "deu_Latn": 0.3, "rus_Cyrl": 0.2}


def order(**changes):
    settings = {"lengths": LENGTHS, "ratios": RATIOS, "data_seed": 3, "block": 32}
    return DataOrder(**(settings | changes))


def windows_of(an_order, language, n):
    languages, windows = an_order.samples(np.arange(n))
    return windows[languages == language].tolist()


def test_a_sample_depends_on_its_index_only():
    forward = order().samples(np.arange(500))
    another = order()
    shuffled = np.random.default_rng(0).permutation(500)
    languages, windows = another.samples(shuffled)
    assert np.array_equal(languages, forward[0][shuffled])
    assert np.array_equal(windows, forward[1][shuffled])
    assert another.sample(417) == (forward[0][417], forward[1][417])


def test_an_order_does_not_depend_on_how_mappings_are_ordered():
    reversed_order = order(
        lengths=dict(reversed(LENGTHS.items())), ratios=dict(reversed(RATIOS.items()))
    )
    for mine, theirs in zip(
        order().samples(np.arange(200)), reversed_order.samples(np.arange(200)), strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert order().hash == reversed_order.hash


def test_same_blocks_hold_the_same_counts():
    an_order = order(same_blocks=True)
    quotas = {"deu_Latn": 10, "eng_Latn": 16, "rus_Cyrl": 6}
    assert quotas == largest_remainder(RATIOS, 32)
    languages, _ = an_order.samples(np.arange(32 * 20))
    for block in languages.reshape(20, 32):
        names, counts = np.unique(block, return_counts=True)
        assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == quotas


def test_shares_are_exact_over_any_number_of_blocks():
    """0.05 is 1 in 20 in the long run, not 13 in 256; no block has to hold a whole sample of it."""
    shares = {"eng_Latn": 0.949, "deu_Latn": 0.05, "rus_Cyrl": 0.001}
    an_order = order(ratios=shares, block=256)
    for n in (256, 2560, 256_000):
        counts = an_order.counts(n)
        assert sum(counts.values()) == n
        assert all(abs(counts[name] - n * share) < 1 for name, share in shares.items())
    languages, _ = an_order.samples(np.arange(5000))
    for n in (0, 1, 255, 1000, 5000):
        assert an_order.counts(n) == {
            name: (languages[:n] == name).sum() for name in an_order.languages
        }


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.7, 1.0])
def test_hundreds_of_languages_are_mixed_at_any_temperature(tau):
    sizes = {f"l{k:03d}": int(10 ** (1 + 2.5 * k / 299)) for k in range(300)}
    many = DataOrder(sizes, tau, 1)
    shares = temperature_ratios(sizes, tau)
    counts = many.counts(1_000_192)
    worst = max(abs(counts[name] - 1_000_192 * share) for name, share in shares.items())
    assert sum(counts.values()) == 1_000_192
    assert worst < 3  # Sainte-Lague may leave the quota by a little among hundreds
    names, windows = many.samples(np.arange(2560, 3072))
    assert all(0 <= w < sizes[name] for name, w in zip(names, windows, strict=True))


def test_apportionment_is_that_of_the_divisor_method_and_takes_no_place_back():
    rng = np.random.default_rng(2)
    for n in (1, 2, 7, 40):
        shares = rng.dirichlet(np.full(n, 0.3))
        shares = np.maximum(shares, 1e-6) / np.maximum(shares, 1e-6).sum()
        seats = np.zeros(n, dtype=int)
        for total in range(1, 400):  # one place after the other, as the definition has it
            seats[np.argmin((seats + 0.5) / shares)] += 1
            assert apportioned(shares, total).tolist() == seats.tolist()


@pytest.mark.parametrize(
    "shares",
    [
        {"eng_Latn": 1},
        {"eng_Latn": 1, "deu_Latn": 1},
        {"eng_Latn": 3, "deu_Latn": 4, "rus_Cyrl": 1},
    ],
)
def test_where_shares_are_whole_in_a_block_the_order_is_that_of_same_blocks(shares):
    """So that a model trained before is trained again to the same bytes."""
    free, same = (order(ratios=shares, block=256, same_blocks=b) for b in (False, True))
    for mine, theirs in zip(
        free.samples(np.arange(3000)), same.samples(np.arange(3000)), strict=True
    ):
        assert np.array_equal(mine, theirs)


def test_blocks_and_seeds_differ_in_order():
    languages, _ = order().samples(np.arange(64))
    assert not np.array_equal(languages[:32], languages[32:])
    assert not np.array_equal(languages, order(data_seed=4).samples(np.arange(64))[0])


def test_every_epoch_shows_every_window_once_and_in_another_order():
    seen = windows_of(order(), "rus_Cyrl", 32 * 14)
    epochs = np.array(seen[: 7 * 12]).reshape(12, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 10


@pytest.mark.parametrize(
    "mixture",
    [{"eng_Latn": 1.0}, {"eng_Latn": 1, "rus_Cyrl": 9}, 0.3],
    ids=["alone", "one in ten", "temperature"],
)
def test_a_language_meets_its_windows_in_the_same_order_in_every_mixture(mixture):
    here = windows_of(order(), "eng_Latn", 320)
    there = windows_of(order(ratios=mixture, block=50), "eng_Latn", 1000)
    n = min(len(here), len(there))
    assert n > 90
    assert here[:n] == there[:n]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_order_is_independent_of_the_number_of_processes(world):
    one = order().samples(np.arange(240))
    ranks = [order().samples(np.arange(rank, 240, world)) for rank in range(world)]
    for k in range(2):
        merged = np.empty_like(one[k])
        for rank, found in enumerate(ranks):
            merged[rank::world] = found[k]
        assert np.array_equal(merged, one[k])


def test_a_run_goes_on_where_it_stopped():
    whole = order().samples(np.arange(300))
    rest = order().samples(np.arange(177, 300))
    assert np.array_equal(whole[0][177:], rest[0])
    assert np.array_equal(whole[1][177:], rest[1])


# -- after another order --------------------------------------------------------------------


def read(an_order, language, first, last):
    names, windows = an_order.samples(np.arange(first, last))
    return windows[names == language].tolist()


@pytest.mark.parametrize("seed", [3, 4])
def test_what_comes_after_reads_what_is_left(seed):
    trunk = order()
    fork = order(ratios={"eng_Latn": 1.0}, data_seed=seed, after=(trunk, 50))
    before = read(trunk, "eng_Latn", 0, 50)
    left = LENGTHS["eng_Latn"] - len(before)
    first = read(fork, "eng_Latn", 50, 50 + left)
    assert sorted(before + first) == list(range(53))
    assert first == fork.read("eng_Latn", 50, 50 + left).tolist()
    own = order(ratios={"eng_Latn": 1.0}, data_seed=seed)
    following = read(fork, "eng_Latn", 50 + left, 50 + left + 100)
    assert following == read(own, "eng_Latn", 53, 153)
    if seed == 3:  # the order of the trunk's own pass
        assert first == read(own, "eng_Latn", len(before), 53)


def test_the_same_mixture_after_itself_is_the_order_without_a_break():
    trunk = order()
    fork = order(after=(trunk, 77))
    for mine, theirs in zip(
        fork.samples(np.arange(77, 400)), trunk.samples(np.arange(77, 400)), strict=True
    ):
        assert np.array_equal(mine, theirs)


def test_a_chain_reads_every_window_once_before_any_twice():
    trunk = order()
    middle = order(ratios={"deu_Latn": 1, "rus_Cyrl": 1}, data_seed=8, after=(trunk, 20))
    last = order(ratios={"eng_Latn": 1, "rus_Cyrl": 2}, data_seed=9, after=(middle, 26))
    for name in ("eng_Latn", "rus_Cyrl"):
        windows = read(trunk, name, 0, 20)
        windows += read(middle, name, 20, 26) if name != "eng_Latn" else []
        windows += read(last, name, 26, 300)
        n = LENGTHS[name]
        assert sorted(windows[:n]) == list(range(n))
    # A language that the middle did not read goes on where the trunk left it.
    with pytest.raises(UsageError, match="sample index 25 is below 26"):
        last.sample(25)


def test_the_order_of_samples_is_pinned():
    """A change of this changes every run: it needs a new name, not a new number here."""
    languages, windows = order().samples(np.arange(6))
    assert list(zip(languages.tolist(), windows.tolist(), strict=True)) == PINNED


PINNED = [
    ("eng_Latn", 31),
    ("rus_Cyrl", 6),
    ("rus_Cyrl", 4),
    ("eng_Latn", 20),
    ("eng_Latn", 26),
    ("deu_Latn", 3),
]


def test_temperature_runs_from_uniform_to_proportional():
    sizes = {"a": 900.0, "b": 100.0}
    assert temperature_ratios(sizes, 0) == {"a": 0.5, "b": 0.5}
    assert temperature_ratios(sizes, 1) == pytest.approx({"a": 0.9, "b": 0.1})
    assert temperature_ratios(sizes, 0.5) == pytest.approx({"a": 0.75, "b": 0.25})


def test_largest_remainder_is_exact_and_nearest():
    rng = np.random.default_rng(1)
    for _ in range(200):
        ratios = dict(zip("abcde", rng.dirichlet(np.ones(5)), strict=True))
        quota = largest_remainder(ratios, 64)
        assert sum(quota.values()) == 64
        assert all(abs(quota[name] - 64 * ratios[name]) < 1 for name in ratios)
    assert largest_remainder({"b": 1, "a": 1, "c": 1}, 4) == {"a": 2, "b": 1, "c": 1}


def test_permutations_are_complete_and_keyed():
    assert sorted(seeded_permutation(1000, "x", 1).tolist()) == list(range(1000))
    assert not np.array_equal(seeded_permutation(1000, "x", 1), seeded_permutation(1000, "x", 2))
    assert not np.array_equal(seeded_permutation(9, "1", "11"), seeded_permutation(9, "11", "1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratios": {}}, "at least one language"),
        ({"ratios": {"eng_Latn": 1, "fra_Latn": 1}}, "no training text for fra_Latn"),
        ({"ratios": {"eng_Latn": 0}}, "ratio of eng_Latn is 0, not a positive number"),
        ({"ratios": {"eng_Latn": float("nan")}}, "ratio of eng_Latn is nan"),
        ({"ratios": {"eng_Latn": float("inf")}}, "ratio of eng_Latn is inf"),
        (
            {"ratios": {"eng_Latn": 1000, "deu_Latn": 1}, "same_blocks": True},
            "no place for deu_Lat",
        ),
        ({"block": 0}, "a block of 0 samples"),
        ({"lengths": LENGTHS | {"eng_Latn": 0}}, "not one whole window of text in eng_Latn"),
        ({"ratios": float("inf")}, "temperature inf is not a finite number"),
        ({"lengths": LENGTHS | {"eng_Latn": 0}, "ratios": 0.5}, "no text to mix in eng_Latn"),
    ],
)
def test_impossible_mixtures_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        order(**changes)


def test_a_negative_sample_index_is_refused():
    with pytest.raises(UsageError, match="sample index -1 is below 0"):
        order().sample(-1)
