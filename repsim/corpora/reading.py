"""What one model reads: orders of samples that follow each other, and what is read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from repsim.corpora.data_order import DataOrder


@dataclasses.dataclass(frozen=True)
class Reading:
    """Orders of a history by first sample, ascending, and the run's own `first` and `last`."""

    parts: tuple[tuple[int, DataOrder], ...]
    first: int
    last: int

    def samples(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Languages and window indices of samples, as `DataOrder.samples` gives them."""
        if len(self.parts) == 1:
            return self.parts[0][1].samples(g)
        g = np.asarray(g, dtype=np.int64)
        number = np.searchsorted([first for first, _ in self.parts], g, side="right") - 1
        languages, windows = [""] * len(g), np.empty_like(g)
        for k in np.unique(number):
            mine = np.flatnonzero(number == k)
            names, windows[mine] = self.parts[int(k)][1].samples(g[mine])
            for i, name in zip(mine.tolist(), names.tolist(), strict=True):
                languages[i] = name
        return np.array(languages), windows

    def windows(self) -> dict[str, tuple[int, int]]:
        """Language -> windows that the run reads, and how many of them were read before."""
        seen: dict[str, np.ndarray] = {}
        told: dict[str, tuple[int, int]] = {}
        for order, begin, end in self._stretches():
            for language in order.languages:
                read = order.read(language, begin, end)
                known = seen.setdefault(language, np.zeros(order.lengths[language], dtype=bool))
                new = np.unique(read)
                again = len(read) - int((~known[new]).sum())
                known[new] = True
                if begin >= self.first and len(read):
                    before = told.get(language, (0, 0))
                    told[language] = before[0] + len(read), before[1] + again
        return dict(sorted(told.items()))

    def _stretches(self) -> Iterator[tuple[DataOrder, int, int]]:
        """Each order with its first sample and the one behind its last."""
        ends = [*(first for first, _ in self.parts[1:]), self.last]
        for (first, order), end in zip(self.parts, ends, strict=True):
            yield order, first, end
