"""Tiers of features from cheap to expensive: what each needs, and what measures it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from repsim.core import ParallelCorpus
from repsim.core.errors import unknown_name
from repsim.core.registry import Registry
from repsim.mergeability.features.opened import OpenedParents
from repsim.mergeability.features.spec import TierName, TierResult


@dataclasses.dataclass(frozen=True)
class How:
    """How parents are measured; the defaults are those that known merges were measured by."""

    languages: tuple[str, ...] = ()
    corpus: str | Path | ParallelCorpus = "bible-heldout"  # of activations and of the trial
    limit: int = 200  # sentences of activations
    text: str = "bible"  # training corpus of floors and gradients
    seed: int = 0  # of sentences and shuffles
    device: str | None = None  # a GPU if there is one and nothing is said
    cache: Path | None = None  # folder for activations


#: Told of progress, block by block.
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Tier:
    """A set of features that are measured together."""

    name: TierName
    what: str  # in words
    needs: Literal["files", "weights", "models"]  # what of the parents is opened
    measure: Callable[[OpenedParents, How, Progress | None], TierResult]
    forecasts: bool = True  # whether a forecast may rest on it; a trial of the merge is none


def _metadata(parents: OpenedParents, how: How, say: Progress | None) -> TierResult:
    from repsim.mergeability.features.metadata import metadata_features

    return metadata_features(parents, languages=how.languages)


def _weights(parents: OpenedParents, how: How, say: Progress | None) -> TierResult:
    from repsim.mergeability.features.weights import weight_features

    return weight_features(parents, say=say)


def _activations(parents: OpenedParents, how: How, say: Progress | None) -> TierResult:
    from repsim.mergeability.features.activations import activation_features

    return activation_features(
        parents, corpus=how.corpus, languages=how.languages, limit=how.limit, text=how.text,
        seed=how.seed, device=how.device, cache=how.cache,
    )  # fmt: skip


def _gradients(parents: OpenedParents, how: How, say: Progress | None) -> TierResult:
    from repsim.mergeability.features.gradients import gradient_features

    return gradient_features(parents, corpus=how.text, languages=how.languages, seed=how.seed)


def _trial(parents: OpenedParents, how: How, say: Progress | None) -> TierResult:
    from repsim.mergeability.features.oracle import oracle_features

    return oracle_features(
        parents, corpus=how.corpus, languages=how.languages, text=how.text, seed=how.seed
    )


#: All tiers; a forecast uses those up to one of them, the trial stands beside.
TIERS = Registry[Tier]("tier")
for _tier in (
    Tier("T0", "configs, tokenizers and provenance", "files", _metadata),
    Tier("T1", "weights, read once side by side", "weights", _weights),
    Tier("T2", "activations and outputs on parallel sentences", "models", _activations),
    Tier("T3", "one batch of gradients at each parent", "models", _gradients),
    Tier("oracle", "a trial of the plain average on a few sentences (not part of the forecast)",
         "models", _trial, forecasts=False),
):  # fmt: skip
    TIERS.add(_tier.name, _tier)

#: Tiers that a forecast may rest on, from cheap to expensive.
FORECASTING: tuple[str, ...] = tuple(name for name in TIERS.names() if TIERS[name].forecasts)


def up_to(name: str) -> tuple[str, ...]:
    """The tiers of a forecast up to one of them."""
    if name not in FORECASTING:
        raise unknown_name("tier", name, FORECASTING)
    return FORECASTING[: FORECASTING.index(name) + 1]


#: The tier that looks at the merge.
ORACLE = "oracle"
