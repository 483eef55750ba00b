"""A chunk of sentences through a model: batches, hooks, pooled rows."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.activations.pooling import plan_rows
from repsim.activations.store import LABELS, array_key
from repsim.activations.tokens import Encoded, batches
from repsim.core import InputError, Pooling, ResourceError, UsageError
from repsim.core.errors import IncompatibleModelsError
from repsim.models.arch import HookPoint
from repsim.models.bounds import check_ids, embedding_rows
from repsim.models.hooks import evaluating, hooked
from repsim.models.identity import place_of

if TYPE_CHECKING:
    import torch

    from repsim.models.load import LoadedModel

#: Told of a sentence that is read: its id, its token ids, its last hidden states.
Watch = Callable[[str, Sequence[int], "torch.Tensor"], None]
#: Tokens per batch that `batch_size="auto"` starts with. On a CPU larger batches only hold more
#: padding; on an accelerator the number is halved whenever memory does not suffice.
AUTO_TOKENS = {"cpu": 512}
AUTO_TOKENS_ACCELERATOR = 65536
UNBOUNDED = 1 << 40


class ChunkReader:
    """Runs a model on chunks of sentences and gives back pooled rows."""

    def __init__(
        self,
        loaded: LoadedModel,
        hooks: Sequence[HookPoint],
        *,
        pooling: Pooling,
        dtype: str = "float32",
        batch_size: int | str = "auto",
        autocast: bool = False,
        language: str = "",
        watch: Watch | None = None,
    ) -> None:
        import torch

        self.loaded = loaded
        self.body = loaded.spec.body(loaded.model)
        self.hooks = list(hooks)
        self.pooling = pooling
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.autocast = autocast
        self.language = language
        self.watch = None if autocast else watch
        self.device = place_of(loaded.model)
        self.max_sentences, self.max_tokens = _limits(batch_size, self.device.type)
        self._rows = embedding_rows(loaded.model)
        # Families without a cache refuse the option.
        caches = "use_cache" in inspect.signature(self.body.forward).parameters
        self._options = {"use_cache": False} if caches else {}

    def read(self, sentences: Sequence[Encoded], names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Rows of one chunk, in the order of its sentences."""
        import torch

        check_ids(max(max(one.ids) for one in sentences), self._rows, self.loaded.ref.name)
        counts = np.array(
            [len(one.kept) if self.pooling == "tokens" else 1 for one in sentences], dtype=np.int32
        )
        starts = np.concatenate([[0], np.cumsum(counts)])
        chunk: dict[str, torch.Tensor] = {}
        pending = list(range(len(sentences)))
        while pending:
            local = self._next_batch([len(sentences[i].ids) for i in pending])
            batch = [pending[i] for i in local]
            try:
                with evaluating(self.loaded.model):
                    rows, last = self._forward([sentences[i] for i in batch])
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._shrink(len(batch), names[batch[0]], len(sentences[batch[0]].ids))
                continue
            if self.watch:
                for i, states in zip(batch, last, strict=True):
                    self.watch(names[i], sentences[i].ids, states[: len(sentences[i].ids)])
            self._check_finite(rows, [names[i] for i in batch for _ in range(counts[i])])
            places = torch.from_numpy(
                np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
            )
            for key, block in rows.items():
                if key not in chunk:
                    chunk[key] = torch.empty((int(starts[-1]), block.shape[1]), dtype=self.dtype)
                chunk[key][places] = block.to("cpu", self.dtype)
            done = set(batch)
            pending = [i for i in pending if i not in done]
        return chunk | _small_arrays(sentences, counts, self.pooling)

    def _next_batch(self, lengths: list[int]) -> list[int]:
        return next(batches(lengths, max_tokens=self.max_tokens, max_sentences=self.max_sentences))

    def _forward(self, batch: Sequence[Encoded]) -> tuple[dict[str, torch.Tensor], Any]:
        """One forward pass: `[rows, width]` float32 by key, and last states, on the device."""
        import torch

        shape = (len(batch), max(len(one.ids) for one in batch))
        padding = getattr(self.loaded.tokenizer, "pad_token_id", None) or 0
        ids = np.full(shape, padding, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, seen, one in zip(ids, mask, batch, strict=True):
            row[: len(one.ids)] = one.ids
            seen[: len(one.ids)] = 1
        plan = plan_rows(batch, self.pooling, device=self.device)
        found: dict[str, torch.Tensor] = {}

        def take(hook: HookPoint, hidden: torch.Tensor) -> None:
            # Pooling stays in float32 while the model may compute in bfloat16.
            with torch.autocast(self.device.type, enabled=False):
                found[array_key(hook.point, hook.layer)] = plan.apply(hidden.to(self.device))

        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.autocast:
                stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            stack.enter_context(hooked(self.body, self.hooks, take))
            out = self.body(
                input_ids=torch.from_numpy(ids).to(self.device),
                attention_mask=torch.from_numpy(mask).to(self.device),
                **self._options,
            )
        for hook in self.hooks:
            if array_key(hook.point, hook.layer) not in found:
                raise IncompatibleModelsError(
                    f"'{hook.module}' of {self.loaded.ref.name} was not called, so hook point "
                    f"'{hook.point}' at layer {hook.layer} cannot be read"
                )
        return found, out[0] if self.watch else None

    def _check_finite(self, rows: dict[str, torch.Tensor], names: Sequence[str]) -> None:
        import torch

        # One transfer for all layers: the flags are gathered on the device.
        fine = torch.stack([torch.isfinite(block).all() for block in rows.values()])
        if bool(fine.all()):
            return
        for hook in self.hooks:
            bad = ~torch.isfinite(rows[array_key(hook.point, hook.layer)]).all(dim=1)
            if bool(bad.any()):
                raise InputError(
                    f"model '{self.loaded.ref.name}' gives NaN or infinity on {self.language}: "
                    f"hook point '{hook.point}', layer {hook.layer}, sentence "
                    f"'{names[int(bad.nonzero()[0])]}'",
                    hint="the weights are damaged, or their type overflows: load it with "
                    "dtype float32 or bfloat16",
                )

    def _shrink(self, sentences: int, name: str, tokens: int) -> None:
        """Halve the batch after memory ran out."""
        import torch

        if sentences == 1:
            raise ResourceError(
                f"the memory of {self.device} does not suffice for one sentence of {tokens} tokens "
                f"(sentence '{name}', model '{self.loaded.ref.name}')",
                hint="lower max_length, load the model as bfloat16, or use another device",
            )
        self.max_sentences = max(1, sentences // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _limits(batch_size: int | str, device: str) -> tuple[int, int]:
    """Most sentences and most tokens of a batch."""
    if batch_size == "auto":
        return UNBOUNDED, AUTO_TOKENS.get(device, AUTO_TOKENS_ACCELERATOR)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(
            f"batch_size is {batch_size!r}", hint="'auto', or a number of sentences from 1"
        )
    return batch_size, UNBOUNDED


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    # CUDA has an error of its own; elsewhere it is known by its text.
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def _small_arrays(
    sentences: Sequence[Encoded], counts: np.ndarray, pooling: Pooling
) -> dict[str, torch.Tensor]:
    """What a part file holds beside the rows; see `store.PER_SENTENCE`."""
    import torch

    if pooling == "tokens":
        labels = np.concatenate([one.labels for one in sentences])
    else:
        labels = np.zeros(len(sentences))
    small = {
        "rows": counts,
        "tokens": np.array([one.n_text for one in sentences]),
        "truncated": np.array([one.truncated for one in sentences]),
        "short": np.array([one.short for one in sentences]),
        LABELS: labels,
    }
    return {name: torch.from_numpy(values.astype(np.int32)) for name, values in small.items()}
