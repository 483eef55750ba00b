"""What parents say: next-token distributions against each other, and how strong each parent is."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repsim.core import InputError, ParallelCorpus, UsageError
from repsim.mergeability.features.catalogue import summarised
from repsim.mergeability.features.opened import Parent, tokenizer_hashes
from repsim.mergeability.features.speaker import Speaker
from repsim.mergeability.features.spec import FeatureValue

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


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What models of one tokenizer say of some sentences."""

    bits: np.ndarray
    divergence: dict[tuple[int, int], float]
    agreement: dict[tuple[int, int], float]
    tokens: int


def compare_outputs(
    speakers: Sequence[Speaker], held_out: HeldOut, bos: int, context: int
) -> Outputs:
    """Compare models of one tokenizer over the same windows, token by token."""
    pairs = list(itertools.combinations(range(len(speakers)), 2))
    bits = np.zeros(len(speakers))
    divergence, same, tokens = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0), 0
    for logs, targets in _log_probabilities(speakers, held_out, bos, context):
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
    speakers: Sequence[Speaker], held_out: HeldOut, bos: int, context: int
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """By batch: of each model `[tokens, vocabulary]`, and the tokens that came, `[tokens]`."""
    import torch

    from repsim.evaluation.bits_per_byte import cut

    windows = cut(held_out.documents, context, bos)
    vocabulary = min(speaker.vocabulary for speaker in speakers)
    lengths = windows.scored.shape[1] - np.argmax(windows.scored[:, ::-1], axis=1)
    order = np.argsort(lengths, kind="stable")
    rows = max(1, LOGITS_AT_ONCE // (vocabulary * int(lengths.max()) * len(speakers)))
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        longest = int(lengths[batch].max())
        tokens = windows.tokens[batch][:, : longest + 1]
        scored = windows.scored[batch][:, :longest]
        logs = [
            speaker.logits(tokens, scored)[:, :vocabulary].float().log_softmax(dim=-1)
            for speaker in speakers
        ]
        yield logs, torch.from_numpy(tokens[:, 1:][scored]).to(logs[0].device)


def unigram_floor(parent: Parent, text: str, language: str, held_out: HeldOut) -> BitsPerByte:
    """Bits of documents under a unigram model of the parent's tokens."""
    from repsim.evaluation.floor import training_counts, unigram_bits

    counted = training_counts(text, language, parent.tokenizer, limit=FLOOR_BYTES)
    return unigram_bits(counted.counts, held_out)


def output_features(
    parents: Sequence[Parent], corpus: ParallelCorpus, *, text: str | None, context: int, seed: int
) -> tuple[list[FeatureValue], dict[str, str], list[str]]:
    """KL, agreement and headroom in each language."""
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
        speakers = [parents[i].speaker for i in members]
        outputs = compare_outputs(speakers, held_out, bos, context)
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
    values = _summaries(language, divergence, agreement, headroom, saved)
    strong = {parent.ref.name: share for parent, share in zip(parents, headroom, strict=True)}
    return values, strong, notes


def _floor_or_note(
    parent: Parent, text: str | None, language: str, held_out: HeldOut
) -> tuple[float, list[str]]:
    if text is None:
        return math.nan, ["no training text was named: headroom is not known"]
    try:
        return float(unigram_floor(parent, text, language, held_out).bits.sum()), []
    except (InputError, UsageError) as error:
        return math.nan, [
            f"headroom in {language} is not known: {error.what}; name text in it: text=... (--text)"
        ]


def _summaries(
    language: str,
    divergence: Mapping[tuple[int, int], float],
    agreement: Mapping[tuple[int, int], float],
    headroom: Sequence[float],
    saved: Sequence[float],
) -> list[FeatureValue]:
    """One parent or pair without a value leaves the group without one."""
    pairs = list(itertools.combinations(range(len(headroom)), 2))
    apart = [divergence.get(pair, math.nan) for pair in pairs]
    alike = [agreement.get(pair, math.nan) for pair in pairs]
    best, worst, gained = (
        float(value) for value in (np.max(headroom), np.min(headroom), np.max(saved))
    )  # fmt: skip
    relative = float(np.mean(apart)) / gained if gained > 0 else math.nan
    return [
        *summarised("output_kl", apart, language),
        FeatureValue("output_kl_relative", relative, language),
        *summarised("output_agreement", alike, language),
        FeatureValue("parent_headroom", best, language),
        FeatureValue("partner_headroom", worst, language),
        FeatureValue("headroom_gap", best - worst, language),
    ]
