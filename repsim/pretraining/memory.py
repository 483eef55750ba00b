"""Memory of a training step: what to do where it runs out, and when logits are cut into pieces."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch

from repsim.core.errors import ResourceError
from repsim.pretraining.config_training import TrainingConfig

#: Model types whose logits are their output matrix times their last hidden states, and no more.
PLAIN_HEADS = ("llama", "gpt2", "gpt_neox", "mistral", "olmo2", "phi3", "qwen2", "qwen3")
#: Bytes of float32 logits from which they are computed in pieces: on a CPU, and on CUDA a share of
#: the card's memory (logits, their copy in float32 and their gradient are there at once).
LOGITS_ON_CPU, LOGITS_ON_CARD = 1 << 30, 1 / 12
PIECES = 8


def logits_at_once(config: Any, tokens: int, device: torch.device) -> int:
    """Tokens whose logits are held at once; 0 if those of a whole part are few enough."""
    limit = float(LOGITS_ON_CPU)
    if device.type == "cuda":
        limit = LOGITS_ON_CARD * torch.cuda.get_device_properties(device).total_memory
    width = 4 * int(getattr(config, "vocab_size", 0))
    if tokens * width <= limit or config.model_type not in PLAIN_HEADS:
        return 0
    return max(1, math.ceil(limit / PIECES / width))


def ran_out(error: RuntimeError) -> bool:
    """Whether an error is that of memory."""
    # CUDA has an error of its own; elsewhere it is known by its text.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def more_parts(rows: int, parts: int) -> int | None:
    """The next number of equal parts, at least twice as many; None if each is one row already."""
    return next((n for n in range(2 * parts, rows + 1) if rows % n == 0), None)


@contextlib.contextmanager
def no_room_for_state() -> Iterator[None]:
    """Say so if the update itself runs out of memory: smaller parts do not make it fit."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise ResourceError(
            "the state of the optimizer does not fit into memory",
            hint="a smaller model, an adapter (training.lora), or more processes with "
            "--parallel fsdp",
        ) from error


@contextlib.contextmanager
def memory_errors(training: TrainingConfig) -> Iterator[None]:
    """Turn memory that ran out into an error that names the setting which saves some."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        more = more_parts(training.batch, training.accumulation)
        raise ResourceError(
            f"an update of {training.batch} windows in {training.accumulation} parts does not fit "
            "into memory",
            hint=f"set training.accumulation to {more} and run the same command again: it goes on "
            "from the last state, with the same batches"
            if more
            else "each part is one window already: a shorter context, a smaller model, an adapter "
            "(lora), or precision: bf16",
        ) from error
