"""Which window is the g-th training sample: a pure function of the seed and of g.

The order of a run is fixed by its mixture, its seed and what was read before it, and by nothing
else: not by the batch size, the number of processes, or what was drawn before. A run that stopped
at sample g goes on at sample g. A language meets its own windows in the same order in every mixture
that it takes part in, so models trained on different mixtures can be compared pair by pair.

Permutations sort raw Philox words (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"); the raw stream of a bit generator is stable between NumPy versions, `permutation()` is not.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim.core.errors import UsageError
from repsim.core.files import hash_json

BLOCK = 256
#: Permutations kept per order: epochs of each language, and blocks.
_KEPT = 64


def seeded_permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of `0 .. n-1` that depends on `n` and `key` only."""
    text = "\0".join(str(part) for part in key)
    philox_key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    words = np.random.Philox(key=philox_key).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def temperature_ratios(sizes: Mapping[str, float], tau: float) -> dict[str, float]:
    """Mixing ratios `p_i = n_i^tau / sum_j n_j^tau`."""
    if not math.isfinite(tau):
        raise UsageError(f"temperature {tau} is not a finite number")
    if bad := [name for name, size in sizes.items() if not size > 0]:
        raise UsageError(f"no text to mix in {', '.join(bad)}")
    powers = {name: float(size) ** tau for name, size in sizes.items()}
    total = math.fsum(powers.values())
    return {name: power / total for name, power in powers.items()}


def largest_remainder(ratios: Mapping[str, float], seats: int) -> dict[str, int]:
    """Whole numbers that add up to `seats` and lie nearest to the ratios (Hamilton's method)."""
    total = math.fsum(ratios.values())
    exact = {name: ratios[name] / total * seats for name in sorted(ratios)}
    quota = {name: math.floor(share) for name, share in exact.items()}
    left = seats - sum(quota.values())
    by_remainder = sorted(exact, key=lambda name: (-round(exact[name] - quota[name], 12), name))
    for name in by_remainder[:left]:
        quota[name] += 1
    return quota


def apportioned(shares: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers that sum to `n` by Sainte-Lague's divisors: one more place takes none away."""
    start = max(n - len(shares) / 2 - 1, 0.0)  # from here at most len(shares) + 1 are missing
    counts = np.floor(shares * start + 0.5).astype(np.int64)
    missing = n - int(counts.sum())
    candidates = np.floor(shares * (missing + len(shares))).astype(np.int64) + 2
    names = np.repeat(np.arange(len(shares)), candidates)
    within = np.arange(len(names)) - np.repeat(np.cumsum(candidates) - candidates, candidates)
    places = (counts[names] + within + 0.5) / shares[names]
    taken = names[np.lexsort((names, places))[:missing]]
    return counts + np.bincount(taken, minlength=len(shares))


class DataOrder:
    """The order of training samples over languages and windows.

    Sample `g` lies in block `g // block`. After every block each language has had as many samples
    as its share of all so far, to the nearest whole number (`apportioned`), in an order drawn from
    `(data_seed, block)`. The j-th sample of a language is window `j mod n` of a permutation drawn
    from `(data_seed, epoch, language)` with `epoch = j // n`: each epoch shows every window once.

    Args:
        lengths: Language -> number of windows.
        ratios: Language -> share of the samples (any positive scale; languages that are not named
            are not drawn), or the exponent tau of temperature mixing over `lengths`.
        data_seed: Seed of the order.
        block: Samples per block.
        same_blocks: Every block holds the same counts (largest remainder of the ratios), which are
            exact to `1 / block` only. Where the shares are whole in a block it makes no difference.
        after: An order and the sample up to which it was read: this one begins there, with the
            windows that the other has left of its pass through each language, in the other's order
            where the seeds are equal.

    Attributes:
        languages: Codes of the languages that are drawn, sorted.

    Raises:
        UsageError: A ratio that is not positive and finite, a language without windows, a share
            that a block cannot hold (`same_blocks`).

    Example:
        >>> order = DataOrder({"eng_Latn": 10, "deu_Latn": 5}, {"eng_Latn": 3, "deu_Latn": 1},
        ...                   data_seed=0, block=8)
        >>> order.counts(8), order.counts(400)
        ({'deu_Latn': 2, 'eng_Latn': 6}, {'deu_Latn': 100, 'eng_Latn': 300})
        >>> languages, windows = order.samples(np.arange(8))
        >>> int((languages == "deu_Latn").sum()), order.sample(3) == (languages[3], windows[3])
        (2, True)
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        ratios: Mapping[str, float] | float,
        data_seed: int,
        block: int = BLOCK,
        *,
        same_blocks: bool = False,
        after: tuple[DataOrder, int] | None = None,
    ) -> None:
        if isinstance(ratios, Mapping):
            self.ratios = _checked(ratios, lengths)
        else:
            self.ratios = temperature_ratios(lengths, float(ratios))
        self.lengths = {name: int(lengths[name]) for name in sorted(self.ratios)}
        if empty := [name for name, n in self.lengths.items() if n < 1]:
            raise UsageError(
                f"not one whole window of text in {', '.join(empty)}",
                hint="more text, or a shorter context",
            )
        if block < 1:
            raise UsageError(f"a block of {block} samples is not possible")
        self.data_seed, self.block = int(data_seed), int(block)
        self.languages = tuple(self.lengths)
        total = math.fsum(self.ratios.values())
        self._shares = np.array([self.ratios[name] / total for name in self.languages])
        self._quota = self._same_quota() if same_blocks else None
        self._slots_of = functools.lru_cache(maxsize=_KEPT)(self._draw_block)
        self._windows_of = functools.lru_cache(maxsize=max(_KEPT, 2 * len(self.languages)))(
            self._draw_pass
        )
        self._begin_after(after)

    def sample(self, g: int) -> tuple[str, int]:
        """Language and window index of global sample `g`."""
        languages, windows = self.samples(np.array([g], dtype=np.int64))
        return str(languages[0]), int(windows[0])

    def samples(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Language codes (strings) and window indices (int64) of samples `[b]`, in any order."""
        g = np.asarray(g, dtype=np.int64)
        if g.size and g.min() < self.first:
            raise UsageError(f"sample index {int(g.min())} is below {self.first}, the first")
        blocks, slots = np.divmod(g, self.block)
        number, windows = np.empty_like(g), np.empty_like(g)
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            numbers, occurrences = self._slots_of(int(block))
            number[here] = numbers[slots[here]]
            own = occurrences[slots[here]] - self._before[number[here]]
            for k in np.unique(number[here]):
                mine = number[here] == k
                windows[here[mine]] = self._windows(int(k), own[mine])
        return np.array(self.languages)[number], windows

    def counts(self, n: int) -> dict[str, int]:
        """Samples of each language among the global samples before `n`."""
        return dict(zip(self.languages, self._counts(n).tolist(), strict=True))

    def read(self, language: str, first: int, last: int) -> np.ndarray:
        """Windows of a language among the samples from `first` to before `last`, in order."""
        k = self.languages.index(language)
        begin, end = (int((self._counts(n) - self._before)[k]) for n in (first, last))
        return self._windows(k, np.arange(begin, end))

    def describe(self) -> dict[str, Any]:
        """What a manifest states of it (JSON-able): equal descriptions are equal orders."""
        return {
            "data_seed": self.data_seed,
            "block": self.block,
            "shares": dict(zip(self.languages, self._shares.tolist(), strict=True)),
            "same_blocks": self._quota is not None,
            "windows": dict(self.lengths),
            "after": [self._after[0].describe(), self._after[1]] if self._after else None,
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the description."""
        return hash_json(self.describe())

    def _same_quota(self) -> np.ndarray:
        quotas = largest_remainder(self.ratios, self.block)
        if starved := [name for name in self.languages if quotas[name] == 0]:
            raise UsageError(
                f"a block of {self.block} samples has no place for {', '.join(starved)}",
                hint="leave the blocks free (data_order: 2), or raise the ratio",
            )
        return np.array([quotas[name] for name in self.languages], dtype=np.int64)

    def _begin_after(self, after: tuple[DataOrder, int] | None) -> None:
        """Where each language stands: samples before, what is left of its pass, the next epoch."""
        self._after, self.first = after, after[1] if after else 0
        self._before = self._counts(self.first)
        self._rest: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(self.languages)
        self._next = [0] * len(self.languages)
        for k, name in enumerate(self.languages):
            order, last = after or (None, 0)
            while order and name not in order.languages:
                order, last = order._after or (None, 0)
            if order:
                self._rest[k], self._next[k] = order._left(name, last, self.data_seed)

    def _left(self, language: str, g: int, seed: int) -> tuple[np.ndarray, int]:
        """What samples before `g` have left of the pass through a language; the epoch after it."""
        k = self.languages.index(language)
        turn, place = self._turn(k, (self._counts(g) - self._before)[k : k + 1])
        if turn[0] >= 0 and not place[0]:
            return np.empty(0, dtype=np.int64), int(turn[0])
        epoch = int(turn[0]) if turn[0] >= 0 else self._next[k] - 1
        left = self._windows_of(k, int(turn[0]))[int(place[0]) :]
        if seed != self.data_seed:
            left = left[seeded_permutation(len(left), "unread", seed, epoch, language)]
        return left, epoch + 1

    def _counts(self, n: int) -> np.ndarray:
        """`counts` as an array."""
        whole, rest = divmod(n, self.block)
        counts = self._after_blocks(whole)
        if rest:
            numbers, _ = self._slots_of(whole)
            counts = counts + np.bincount(numbers[:rest], minlength=len(self.languages))
        return counts

    def _after_blocks(self, blocks: int) -> np.ndarray:
        """Samples of each language in the first so many blocks."""
        if self._quota is not None:
            return blocks * self._quota
        return apportioned(self._shares, blocks * self.block)

    def _windows(self, k: int, own: np.ndarray) -> np.ndarray:
        """Windows of a language by the number of its samples since the order's first."""
        turns, places = self._turn(k, own)
        windows = np.empty_like(own)
        for turn in np.unique(turns):
            here = turns == turn
            windows[here] = self._windows_of(k, int(turn))[places[here]]
        return windows

    def _turn(self, k: int, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch of some samples of a language and the place in it; -1 is the rest of a pass."""
        rest = len(self._rest[k])
        epochs, places = np.divmod(own - rest, self.lengths[self.languages[k]])
        in_rest = own < rest
        return np.where(in_rest, -1, epochs + self._next[k]), np.where(in_rest, own, places)

    def _draw_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Language index of every slot of a block, and how many of that language came before."""
        before = self._after_blocks(block)
        quota = self._after_blocks(block + 1) - before
        slots = np.repeat(np.arange(len(self.languages)), quota)
        numbers = slots[seeded_permutation(self.block, "block", self.data_seed, block)]
        occurrences = np.empty(self.block, dtype=np.int64)
        ranks = np.arange(self.block) - np.repeat(np.cumsum(quota) - quota, quota)
        occurrences[np.argsort(numbers, kind="stable")] = before[slots] + ranks
        return numbers, occurrences

    def _draw_pass(self, k: int, turn: int) -> np.ndarray:
        """Windows of one pass through a language, in order."""
        if turn < 0:
            return self._rest[k]
        language = self.languages[k]
        return seeded_permutation(self.lengths[language], "epoch", self.data_seed, turn, language)


def _checked(ratios: Mapping[str, float], lengths: Mapping[str, int]) -> dict[str, float]:
    if not ratios:
        raise UsageError("a mixture needs at least one language")
    if unknown := sorted(set(ratios) - set(lengths)):
        raise UsageError(
            f"there is no training text for {', '.join(unknown)}",
            hint=f"there is text for: {', '.join(sorted(lengths))}",
        )
    for name, share in ratios.items():
        if not (share > 0 and math.isfinite(share)):
            raise UsageError(
                f"the ratio of {name} is {share}, not a positive number",
                hint="leave a language out to give it nothing",
            )
    return {name: float(share) for name, share in ratios.items()}
