"""The oracle: merge, and look at a few sentences. An evaluation that forecasts are held against."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from repsim.core import ParallelCorpus
from repsim.core.errors import UsageError, unknown_name
from repsim.mergeability.features.opened import (
    ModelLike,
    OpenedParents,
    Parent,
    opened,
    why_not_averaged,
)
from repsim.mergeability.features.outputs import unigram_floor
from repsim.mergeability.features.spec import FeatureValue, TierResult

if TYPE_CHECKING:
    from torch import nn

    from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut
    from repsim.evaluation.retention import MergeOutcome

Alignment = Literal["none", "permutation", "orthogonal"]
#: Sentences per language that the average is tried on.
SENTENCES = 32
#: Longest window in tokens; a sentence is seldom longer.
CONTEXT = 256


def oracle_features(
    models: OpenedParents | Sequence[ModelLike],
    *,
    corpus: str | Path | ParallelCorpus = "bible-heldout",
    languages: Sequence[str],
    sentences: int = SENTENCES,
    alignments: Sequence[Alignment] = ("none",),
    text: str = "bible",
    seed: int = 0,
    device: str | None = None,
) -> TierResult:
    """Retention of the plain average of the parents on a few sentences of each language.

    This looks at the merge, so it is an evaluation and not a forecast. Whoever holds forecasts
    against it should judge merges on other text than these sentences. NaN, with a note, where the
    parents cannot be averaged as language models.

    Args:
        models: At least two parents, or a group that is open.
        corpus: Parallel sentences, see `corpora.load_corpus`.
        languages: Languages to look at.
        sentences: How many, drawn by `seed`.
        alignments: "none", and how else the others are brought to the first before averaging.
        text: Training corpus that the unigram floor is fitted on.
        seed: Of the draw of sentences, and of alignment.
        device: Where models given by name run.

    Raises:
        UsageError: Fewer than two models, no language, an unknown alignment.
        InputError: A model, the sentences or the training text cannot be read.
        IncompatibleModelsError: Alignment is asked for and the family is not known.

    Example:
        >>> found = oracle_features(["zoo:eng-fork", "zoo:deu-fork"], languages=["eng_Latn"],
        ...                         sentences=8, device="cpu")
        >>> values = {value.feature: value.value for value in found.values}
        >>> values["oracle_retention"] > 0.5
        True
    """
    from repsim.corpora import load_corpus

    started = time.process_time()
    if not languages:
        raise UsageError("no language to read", hint="languages=['eng_Latn']")
    for alignment in alignments:
        if alignment not in get_args(Alignment):
            raise unknown_name("alignment", alignment, get_args(Alignment))
    outcomes: dict[Alignment, MergeOutcome] = {}
    notes = ["an evaluation of the merge on a few sentences, not a forecast"]
    with opened(models, device=device) as group:
        reason = why_not_averaged(group.loaded)
        if reason:
            notes = [f"no average: {reason}"]
        else:
            chosen = load_corpus(corpus, languages=list(languages), limit=sentences, seed=seed)
            trial = _Trial(group, chosen, text)
            for alignment in alignments:
                outcomes[alignment] = trial.judge(_average(group.loaded, alignment, seed))
    values = _values(outcomes, alignments, languages)
    return TierResult("oracle", tuple(values), time.process_time() - started, tuple(notes))


class _Trial:
    """Parents and floors on the sentences: what an average is judged against."""

    def __init__(self, group: OpenedParents, corpus: ParallelCorpus, text: str) -> None:
        from repsim.evaluation.bits_per_byte import tokenized

        self._ids = dict.fromkeys(corpus.languages, corpus.ids)
        parents, self._context = group.loaded, group.context(CONTEXT)
        self._held_out: dict[str, HeldOut] = {}
        for language in corpus.languages:
            ready = tokenized(parents[0].tokenizer, corpus[language])
            self._held_out[language], self._bos = ready
        self._floors = {
            language: unigram_floor(parents[0], text, language, held_out)
            for language, held_out in self._held_out.items()
        }
        self._parents = {parent.ref.name: self._score(parent.head) for parent in parents}

    def _score(self, model: nn.Module) -> dict[str, BitsPerByte]:
        from repsim.evaluation.bits_per_byte import score_held_out

        return {
            language: score_held_out(model, held_out, self._bos, self._context)
            for language, held_out in self._held_out.items()
        }

    def judge(self, model: nn.Module) -> MergeOutcome:
        """What a merge kept of its parents on the sentences."""
        from repsim.evaluation.retention import judge

        return judge(self._score(model), self._parents, self._floors, self._ids)


def _average(parents: Sequence[Parent], alignment: str, seed: int) -> nn.Module:
    """The plain average as a model, the others aligned to the first before."""
    from repsim.merging.align import align, build_model
    from repsim.merging.in_memory import merge_state_dicts

    first = parents[0].head
    device = next(first.parameters()).device
    states = [
        {name: tensor.cpu() for name, tensor in parent.head.state_dict().items()}
        for parent in parents
    ]
    if alignment == "none":
        # A copy takes the weights whatever the family is; building one needs a spec.
        model = copy.deepcopy(first)
        model.load_state_dict(merge_state_dicts(states, "linear", config=first.config))
        return model
    aligned = align(
        states[0], states[1:], first.config,
        method="permutation" if alignment == "permutation" else "orthogonal", seed=seed,
    )  # fmt: skip
    merged = merge_state_dicts(aligned.states, "linear", config=aligned.config)
    return build_model(aligned.config, merged).to(device)


def _values(
    outcomes: Mapping[Alignment, MergeOutcome],
    alignments: Sequence[Alignment],
    languages: Sequence[str],
) -> list[FeatureValue]:
    """Values of all alignments; NaN without outcomes."""
    values = []
    for alignment in alignments:
        suffix = "" if alignment == "none" else f"_{alignment}"
        outcome = outcomes.get(alignment)
        for language in languages:
            kept = outcome.retention[language].estimate.value if outcome else math.nan
            values.append(FeatureValue(f"oracle_retention{suffix}", kept, language))
        worst = outcome.worst.value if outcome else math.nan
        gained = outcome.advantage.value if outcome else math.nan
        values.append(FeatureValue(f"oracle_worst_retention{suffix}", worst))
        values.append(FeatureValue(f"oracle_advantage{suffix}", gained))
    return values
