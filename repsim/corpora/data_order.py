"""Which window is the g-th training sample: a pure function of the seed and of g.

The order of a run is fixed by `(data_seed, ratios, block)` and by nothing else: not by the batch
size, the number of processes, or what was drawn before. A run that stopped at sample g goes on at
sample g. A language meets its own windows in the same order in every mixture that it takes part in,
so models trained on different mixtures can be compared pair by pair.

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


class DataOrder:
    """The order of training samples over languages and windows.

    Sample `g` lies in block `g // block`. Every block holds the same whole number of samples of
    each language (largest remainder of the ratios), in an order drawn from `(data_seed, block)`.
    The j-th sample of a language is window `j mod n` of a permutation drawn from `(data_seed,
    epoch, language)` with `epoch = j // n`: each epoch shows every window once.

    Args:
        lengths: Language -> number of windows.
        ratios: Language -> share of the samples (any positive scale; languages that are not named
            are not drawn), or the exponent tau of temperature mixing over `lengths`.
        data_seed: Seed of the order.
        block: Samples per block; ratios are exact to `1 / block`.

    Attributes:
        languages: Codes of the languages that are drawn, sorted.
        quotas: Language -> samples per block.

    Raises:
        UsageError: A ratio that is not positive and finite, a language without windows, a share
            that a block cannot hold.

    Example:
        >>> order = DataOrder({"eng_Latn": 10, "deu_Latn": 5}, {"eng_Latn": 3, "deu_Latn": 1},
        ...                   data_seed=0, block=8)
        >>> order.quotas
        {'deu_Latn': 2, 'eng_Latn': 6}
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
        self.data_seed, self.block = int(data_seed), int(block)
        self.languages = tuple(self.lengths)
        self.quotas = largest_remainder(self.ratios, self.block) if block > 0 else {}
        if starved := [name for name in self.languages if self.quotas.get(name, 0) == 0]:
            raise UsageError(
                f"a block of {block} samples has no place for {', '.join(starved)}",
                hint="raise the block size or the ratio",
            )
        self._quota = np.array([self.quotas[name] for name in self.languages], dtype=np.int64)
        self._slots_of = functools.lru_cache(maxsize=_KEPT)(self._draw_block)
        self._windows_of = functools.lru_cache(maxsize=max(_KEPT, 2 * len(self.languages)))(
            self._draw_epoch
        )

    def sample(self, g: int) -> tuple[str, int]:
        """Language and window index of global sample `g`."""
        languages, windows = self.samples(np.array([g], dtype=np.int64))
        return str(languages[0]), int(windows[0])

    def samples(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Languages and window indices of many samples, in any order.

        Args:
            g: Global sample indices, `[b]` integers from 0.

        Returns:
            Language codes `[b]` (string array) and window indices `[b]` int64.

        Raises:
            UsageError: A negative index.
        """
        g = np.asarray(g, dtype=np.int64)
        if g.size and g.min() < 0:
            raise UsageError(f"sample index {int(g.min())} is negative")
        number, occurrence = self._occurrences(g)
        windows = np.empty_like(g)
        for k, language in enumerate(self.languages):
            mine = np.flatnonzero(number == k)
            epochs, places = np.divmod(occurrence[mine], self.lengths[language])
            for epoch in np.unique(epochs):
                here = epochs == epoch
                windows[mine[here]] = self._windows_of(k, int(epoch))[places[here]]
        return np.array(self.languages)[number], windows

    def epochs(self, n_samples: int) -> dict[str, float]:
        """How often each language's text has been seen after the first `n_samples` samples."""
        whole, rest = divmod(n_samples, self.block)
        numbers, _ = self._slots_of(whole)
        extra = np.bincount(numbers[:rest], minlength=len(self.languages))
        seen = whole * self._quota + extra
        return {
            name: float(count) / self.lengths[name]
            for name, count in zip(self.languages, seen, strict=True)
        }

    def describe(self) -> dict[str, Any]:
        """What a manifest states of it (JSON-able): equal descriptions are equal orders."""
        return {
            "data_seed": self.data_seed,
            "block": self.block,
            "quotas": dict(self.quotas),
            "windows": dict(self.lengths),
        }

    @property
    def hash(self) -> str:
        """SHA-256 of the description."""
        return hash_json(self.describe())

    def _occurrences(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the language of each sample, and how many of that language came before it."""
        blocks, slots = np.divmod(g, self.block)
        number, occurrence = np.empty_like(g), np.empty_like(g)
        for block in np.unique(blocks):
            here = blocks == block
            numbers, ranks = self._slots_of(int(block))
            number[here] = numbers[slots[here]]
            occurrence[here] = block * self._quota[number[here]] + ranks[slots[here]]
        return number, occurrence

    def _draw_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Language index of every slot of a block, and its rank among that language's slots."""
        slots = np.repeat(np.arange(len(self.languages)), self._quota)
        numbers = slots[seeded_permutation(self.block, "block", self.data_seed, block)]
        ranks = np.empty(self.block, dtype=np.int64)
        for k in range(len(self.languages)):
            ranks[numbers == k] = np.arange(self._quota[k])
        return numbers, ranks

    def _draw_epoch(self, number: int, epoch: int) -> np.ndarray:
        language = self.languages[number]
        return seeded_permutation(self.lengths[language], "epoch", self.data_seed, epoch, language)


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
