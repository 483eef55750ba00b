"""What the training loop reads: token shards, the order of samples, held-out documents, floors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from repsim.core.files import hash_json
from repsim.corpora.data_order import DataOrder
from repsim.corpora.model_tokenizer import ModelTokenizer
from repsim.corpora.reading import Reading
from repsim.corpora.shards import TokenShards, WindowSource
from repsim.corpora.tokenizers import Tokenizer, save_tokenizer
from repsim.evaluation.bits_per_byte import HeldOut
from repsim.evaluation.floor import unigram_floor
from repsim.models.views import copy_tokenizer
from repsim.pretraining.planning import RunPlan

#: Name of the tokenizer that all languages share.
SHARED = "shared"


class TrainingData:
    """Everything that runs with one tokenizer read; `streams` are the sources of each language."""

    def __init__(
        self,
        tokenizer: Tokenizer | ModelTokenizer,
        shards: TokenShards,
        context: int,
        streams: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.tokenizer = tokenizer
        self.shards = shards
        self.context = context
        self.streams = streams
        self.windows = WindowSource(shards, "train", context)

    @property
    def lengths(self) -> dict[str, int]:
        """Windows of each language."""
        windows = self.windows.lengths
        return {name: sum(windows[s] for s in mine) for name, mine in self.streams.items()}

    @property
    def hash(self) -> str:
        """SHA-256 over the token files' own hashes and the tokenizer's."""
        entries = self.shards.manifest["shards"]
        several = {name: dict(mine) for name, mine in self.streams.items() if len(mine) > 1}
        return hash_json(
            [
                self.tokenizer.hash,
                {key: entry["sha256"] for key, entry in entries.items()},
                *([several] if several else []),
            ]
        )

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files into a model's folder."""
        if isinstance(self.tokenizer, Tokenizer):
            save_tokenizer(self.tokenizer, folder)
        else:
            copy_tokenizer(self.tokenizer.files[0].parent, folder)

    def reading(self, plan: RunPlan) -> Reading:
        """Which windows a run reads, given what its history has read."""
        parts = list[tuple[int, DataOrder]]()
        for phase in plan.history:
            shares = {
                stream: share * part / math.fsum(self.streams[language].values())
                for language, share in phase.ratios(self.lengths).items()
                for stream, part in self.streams[language].items()
            }
            last = (parts[-1][1], phase.first_sample) if parts and plan.data_order == 2 else None
            order = DataOrder(
                self.windows.lengths, shares, phase.data_seed,
                same_blocks=plan.data_order == 1, after=last,
            )  # fmt: skip
            parts.append((phase.first_sample, order))
        return Reading(tuple(parts), plan.first_sample, plan.sample_at(plan.last_step))

    def read_again(self, plan: RunPlan) -> str:
        """How much of a run's text was read before, in words; empty if nothing was."""
        counts = self.reading(plan).windows()
        again = {name: f"{m / n:.0%} of {name}" for name, (n, m) in counts.items() if m}
        total, repeated = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        if not again:
            return ""
        most = sorted(again, key=lambda name: -counts[name][1])[:5]
        more = ", ..." if len(again) > len(most) else ""
        return (
            f"reads {total:,} windows, {repeated:,} of them for a second time or more "
            f"({', '.join(again[name] for name in most)}{more})"
        )

    @functools.cached_property
    def held_out(self) -> dict[str, HeldOut]:
        """Held-out documents by language."""
        return {name: self._held_out(name) for name in self.shards.languages("heldout")}

    def _held_out(self, language: str) -> HeldOut:
        tokens = self.shards.tokens(language, "heldout")
        starts = self.shards.documents(language, "heldout")
        # Each document stands after its <bos>.
        pieces = [piece[1:].astype(np.int64) for piece in np.split(tokens, starts[1:])]
        kept = np.array([len(piece) > 0 for piece in pieces])
        sizes = self.shards.sizes(language, "heldout")[kept]
        return HeldOut(tuple(piece for piece in pieces if len(piece)), sizes)

    @functools.cached_property
    def floors(self) -> dict[str, float]:
        """Unigram floor of each language that has training text, in bits per byte."""
        return {
            language: unigram_floor(self._counts(language), self.held_out[language])
            for language in self.streams
            if language in self.held_out
        }

    def _counts(self, language: str) -> np.ndarray:
        shards = [self.shards.token_counts(stream) for stream in self.streams[language]]
        counts = np.sum(shards, axis=0)[: self.tokenizer.n_tokens]
        counts[self.tokenizer.special_ids()] = 0
        return counts


@dataclasses.dataclass(frozen=True)
class FamilyData:
    """Training data of a family: one for all languages, or one per language's own tokenizer."""

    parts: Mapping[str, TrainingData]

    def of(self, languages: tuple[str, ...]) -> TrainingData:
        """The data that a run over these languages reads."""
        return self.parts[SHARED] if SHARED in self.parts else self.parts[languages[0]]
