"""What a run costs: its updates, and the scoring of held-out text before, within and after them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from repsim.corpora.documents import HELDOUT_FRACTION
from repsim.corpora.training_text import is_remote, load_training_text
from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.config_corpus import CorpusConfig
from repsim.pretraining.planning import CPU_FLOPS, RunPlan

#: Bytes of a token before there is a tokenizer: less than BPE of 4 thousand tokens gets from Latin
#: script (3.6 to 4), so that a plan is rather too long.
BYTES_PER_TOKEN = 3.0
#: Of the work of an update, what scoring a token takes: forward without backward.
FORWARD = 1 / 3


def validation_steps(run: RunPlan, every: int | None) -> range:
    """Steps at which held-out text is scored before the end; the first one always."""
    distance = every or max(1, run.last_step // 8)
    end = max(run.last_step - distance // 2, min(run.first_step + 1, run.last_step))
    return range(run.first_step, end, distance)


def held_out_bytes(config: FamilyConfig) -> dict[str, int]:
    """Bytes of held-out text by language, as far as it is scored; streamed text is not opened."""
    limits = (config.saving.validation_bytes, config.saving.final_bytes)
    limit = 0 if 0 in limits else max(limits)
    return {code: _bytes_of(config.corpus, code, limit) for code in config.corpus.languages}


@functools.lru_cache(maxsize=1024)
def _bytes_of(corpus: CorpusConfig, language: str, limit: int) -> int:
    """Bytes of one language's held-out documents, read until the limit (0: to their end)."""
    total = 0
    for source in corpus.streams(language).values():
        if is_remote(source.source):
            total += limit or round((corpus.max_bytes or 0) * HELDOUT_FRACTION)
            continue
        text = load_training_text(source.source, [language], split="heldout")[language]
        for document in text:
            total += len(document.text.encode())
            if limit and total >= limit:
                return limit
    return total


def validation_tokens(config: FamilyConfig, run: RunPlan, sizes: dict[str, int]) -> float:
    """Tokens that are scored over a whole run, estimated."""
    saving = config.saving
    own = config.tokenizer.kind == "per-language"
    times = len(validation_steps(run, saving.validate_every))
    total = 0.0
    for language, size in sizes.items():
        if not own or language in run.languages:
            part, whole = (min(size, limit or size) for limit in
                           (saving.validation_bytes, saving.final_bytes))  # fmt: skip
            total += times * min(part, whole) + whole
    return total / (1.0 if config.tokenizer.kind == "bytes" else BYTES_PER_TOKEN)


def validation_seconds(config: FamilyConfig, runs: Sequence[RunPlan]) -> dict[str, float]:
    """Run -> seconds of scoring on one CPU core, estimated."""
    sizes = held_out_bytes(config)
    return {
        run.name: FORWARD
        * validation_tokens(config, run, sizes)
        * (run.flops / max(1, run.tokens))
        / CPU_FLOPS
        for run in runs
    }
