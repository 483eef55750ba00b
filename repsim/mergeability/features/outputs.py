"""What parents say: next-token distributions against each other, and how strong each parent is.

Headroom is how far below the unigram floor a model is, as a share of the floor: 0 is a model that
knows how often tokens occur, and nothing else. A merge can keep no more than its parents have, and
a parent without headroom in a language contributes noise to it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core import InputError, ParallelCorpus, UsageError
from repsim.mergeability.features.base import FeatureSpec, FeatureValue, declare
from repsim.mergeability.features.parents import Parent, tokenizer_hashes

if TYPE_CHECKING:
    import torch

    from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut

#: Sentences whose next-token distributions are compared.
OUTPUT_SENTENCES = 100
#: Training text per language that the unigram model of the floor is fitted on.
FLOOR_BYTES = 1_000_000
#: Logits that are held at once, over all parents.
LOGITS_AT_ONCE = 1 << 24
LN2 = math.log(2.0)

_KL = "Cohere SimMerge (arXiv 2601.09473): divergence of next-token distributions"
_HEADROOM = "repsim: share of the unigram floor that a model saves"
_DECLARED = (
    ("output_kl", "KL between outputs", "mean of KL(a||b) and KL(b||a) of the next-token "
     "distributions in bits per token of the same text; mean over pairs", False, -1, _KL),
    ("output_kl_worst", "KL between outputs, worst", "the same, the most distant pair",
     False, -1, _KL),
    ("output_kl_relative", "KL between outputs over headroom", "the same in bits, over the bits "
     "that the best parent saves against unigrams; mean over pairs", True, -1, _KL),
    ("output_agreement", "agreement of outputs", "share of tokens for which both parents rank the "
     "same next token first; mean over pairs", True, +1, _KL),
    ("output_agreement_worst", "agreement of outputs, worst", "the same, the least agreeing pair",
     True, +1, _KL),
    ("parent_headroom", "headroom of the best parent", "(floor - bits) / floor of the parent that "
     "is best in the language", True, +1, _HEADROOM),
    ("partner_headroom", "headroom of the worst parent", "(floor - bits) / floor of the parent "
     "that is worst in the language", True, +1, _HEADROOM),
    ("headroom_gap", "gap of headroom", "headroom of the best minus that of the worst parent",
     True, -1, _HEADROOM),
)  # fmt: skip
declare(
    *(
        FeatureSpec(name, "T2", label, definition, True, scale_free, direction, source)
        for name, label, definition, scale_free, direction, source in _DECLARED
    )
)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What models of one tokenizer say of some sentences.

    Attributes:
        bits: `[models]`, bits that each needs to write the sentences down.
        divergence: (i, j) -> symmetrised KL in bits, summed over tokens.
        agreement: (i, j) -> share of tokens with the same first choice.
        tokens: Number of tokens.
    """

    bits: np.ndarray
    divergence: dict[tuple[int, int], float]
    agreement: dict[tuple[int, int], float]
    tokens: int


def compare_outputs(models: Sequence[Any], held_out: HeldOut, bos: int, context: int) -> Outputs:
    """Run models of one tokenizer over the same windows and compare what they say, token by token.

    Args:
        models: Causal language models.
        held_out: Text, from `evaluation.bits_per_byte.tokenized`.
        bos: Id before each document.
        context: Tokens per window.

    Example:
        >>> from repsim.evaluation.bits_per_byte import HeldOut
        >>> from repsim.testing.tiny_models import tiny_model
        >>> model = tiny_model("llama", head=True)
        >>> text = HeldOut((np.array([5, 9, 7]),), np.array([3]))
        >>> found = compare_outputs([model, model], text, bos=0, context=8)
        >>> found.tokens, found.divergence[0, 1], found.agreement[0, 1]
        (3, 0.0, 1.0)
    """
    pairs = list(itertools.combinations(range(len(models)), 2))
    bits = np.zeros(len(models))
    divergence, same, tokens = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0), 0
    for logs, targets in _log_probabilities(models, held_out, bos, context):
        tokens += len(targets)
        first = [log.argmax(dim=1) for log in logs]
        shares = [log.exp() for log in logs]
        for i, log in enumerate(logs):
            bits[i] -= float(log.gather(1, targets[:, None]).double().sum()) / LN2
        for i, j in pairs:
            # Half the sum of both directions; the entropies cancel term by term.
            both = ((shares[i] - shares[j]) * (logs[i] - logs[j])).double().sum()
            divergence[i, j] += float(both) / (2 * LN2)
            same[i, j] += int((first[i] == first[j]).sum())
    agreement = {pair: count / tokens for pair, count in same.items()}
    return Outputs(bits, divergence, agreement, tokens)


def _log_probabilities(
    models: Sequence[Any], held_out: HeldOut, bos: int, context: int
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Batch by batch: of each model `[tokens, vocabulary]`, and the tokens that came, `[tokens]`.

    Rows that pad an embedding beyond the smallest vocabulary are no tokens and are left out.
    """
    import torch

    from repsim.evaluation.bits_per_byte import cut

    windows = cut(held_out.documents, context, bos)
    vocabulary = min(int(model.config.vocab_size) for model in models)
    lengths = windows.scored.shape[1] - np.argmax(windows.scored[:, ::-1], axis=1)
    order = np.argsort(lengths, kind="stable")
    rows = max(1, LOGITS_AT_ONCE // (vocabulary * int(lengths.max()) * len(models)))
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        longest = int(lengths[batch].max())
        ids = torch.from_numpy(windows.tokens[batch][:, : longest + 1])
        scored = torch.from_numpy(windows.scored[batch][:, :longest])
        logs = []
        with torch.no_grad():
            for model in models:
                device = next(model.parameters()).device
                logits = model(input_ids=ids[:, :-1].to(device), use_cache=False).logits
                kept = logits[scored.to(device)][:, :vocabulary].float()
                logs.append(kept.log_softmax(dim=-1))
        yield logs, ids[:, 1:][scored].to(logs[0].device)


@dataclasses.dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer that is known by its hash, so that what it counted is remembered."""

    hash: str
    tokenizer: Any = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _training_counts(text: str, language: str, tokenizer: _Tokenizer) -> np.ndarray:
    from repsim.corpora.training_text import load_training_text
    from repsim.evaluation.floor import count_tokens

    training = load_training_text(text, [language], max_bytes=FLOOR_BYTES)[language]
    return count_tokens(tokenizer.tokenizer, training.texts())


def unigram_floor(parent: Parent, text: str, language: str, held_out: HeldOut) -> BitsPerByte:
    """Bits of documents under a unigram model of the parent's tokens.

    Args:
        parent: Whose tokenizer.
        text: Training corpus, see `corpora.load_training_text`; a megabyte of it is counted, once
            per process.
        language: Which language of it.
        held_out: The documents, tokenized by that tokenizer.

    Raises:
        InputError: The corpus has no text in the language.
        UsageError: The built-in corpus does not have the language.
    """
    from repsim.evaluation.floor import unigram_bits

    known = _Tokenizer(tokenizer_hashes([parent])[0], parent.tokenizer)
    return unigram_bits(_training_counts(text, language, known), held_out)


def output_features(
    parents: Sequence[Parent],
    corpus: ParallelCorpus,
    *,
    text: str | None,
    context: int,
    seed: int,
) -> tuple[list[FeatureValue], dict[str, str], list[str]]:
    """KL, agreement and headroom in each language.

    Args:
        parents: Causal language models.
        corpus: Sentences; at most `OUTPUT_SENTENCES` of them are read.
        text: Training corpus for the floor; None for no floor.
        context: Tokens per window.
        seed: Of the draw of sentences.

    Returns:
        Values; model -> the language in which it has most headroom, if it has any; notes.
    """
    sample = corpus.sample(OUTPUT_SENTENCES, seed)
    values: list[FeatureValue] = []
    notes: list[str] = []
    headrooms: dict[str, dict[str, float]] = {parent.ref.name: {} for parent in parents}
    for language in corpus.languages:
        found, strong, said = _in_language(parents, sample[language], language, text, context)
        values += found
        notes += [note for note in said if note not in notes]
        for name, headroom in strong.items():
            headrooms[name][language] = headroom
    own = {}
    for name, known in headrooms.items():
        able = {language: share for language, share in known.items() if share > 0}
        if able:
            own[name] = max(able, key=lambda language: able[language])
    return values, own, notes


def _in_language(
    parents: Sequence[Parent],
    sentences: Sequence[str],
    language: str,
    text: str | None,
    context: int,
) -> tuple[list[FeatureValue], dict[str, float], list[str]]:
    """Values of one language, headroom of each parent, notes."""
    from repsim.evaluation.bits_per_byte import tokenized

    groups: dict[str, list[int]] = {}
    for i, key in enumerate(tokenizer_hashes(parents)):
        groups.setdefault(key, []).append(i)
    divergence, agreement = {}, {}
    headroom, saved, notes = [math.nan] * len(parents), [math.nan] * len(parents), []
    for members in groups.values():
        first = parents[members[0]]
        try:
            held_out, bos = tokenized(first.tokenizer, sentences)
        except (InputError, UsageError) as error:
            notes.append(f"no outputs of '{first.ref.name}' in {language}: {error.what}")
            continue
        heads = [parents[i].head for i in members]
        outputs = compare_outputs(heads, held_out, bos, context)
        for i, j in outputs.divergence:
            pair = members[i], members[j]
            divergence[pair] = outputs.divergence[i, j] / outputs.tokens
            agreement[pair] = outputs.agreement[i, j]
        floor, why = _floor_or_note(first, text, language, held_out)
        notes += why
        for i, bits in zip(members, outputs.bits, strict=True):
            headroom[i] = (floor - float(bits)) / floor
            saved[i] = (floor - float(bits)) / outputs.tokens
    if len(groups) > 1:
        notes.append("different tokenizers: outputs cannot be held against each other")
    values = _summaries(len(parents), divergence, agreement, headroom, saved)
    strong = {parent.ref.name: share for parent, share in zip(parents, headroom, strict=True)}
    return [FeatureValue(name, value, language) for name, value in values.items()], strong, notes


def _floor_or_note(
    parent: Parent, text: str | None, language: str, held_out: HeldOut
) -> tuple[float, list[str]]:
    if text is None:
        return math.nan, ["no training text was named: headroom is not known"]
    try:
        return float(unigram_floor(parent, text, language, held_out).bits.sum()), []
    except (InputError, UsageError) as error:
        return math.nan, [f"headroom in {language} is not known: {error.what}"]


def _summaries(
    count: int,
    divergence: Mapping[tuple[int, int], float],
    agreement: Mapping[tuple[int, int], float],
    headroom: Sequence[float],
    saved: Sequence[float],
) -> dict[str, float]:
    """Values by feature; one parent or pair without a value leaves the group without one."""
    pairs = list(itertools.combinations(range(count), 2))
    apart = [divergence.get(pair, math.nan) for pair in pairs]
    alike = [agreement.get(pair, math.nan) for pair in pairs]
    best, worst = float(np.max(headroom)), float(np.min(headroom))
    gained = float(np.max(saved))
    return {
        "output_kl": float(np.mean(apart)),
        "output_kl_worst": float(np.max(apart)),
        "output_kl_relative": float(np.mean(apart)) / gained if gained > 0 else math.nan,
        "output_agreement": float(np.mean(alike)),
        "output_agreement_worst": float(np.min(alike)),
        "parent_headroom": best,
        "partner_headroom": worst,
        "headroom_gap": best - worst,
    }
