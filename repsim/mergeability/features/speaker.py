"""A parent's next-token logits, from last hidden states that other passes have left behind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

#: Largest difference of logits, beside the largest logit, at which a head alone gives the model's.
SAME = 1e-4


class Speaker:
    """A causal model that is asked for logits of the same windows again and again.

    Hidden states before the head are kept: those of passes that it is told of (`listen`), and of
    its own. A model whose logits are not its head applied to these, because it scales or caps
    them, is run as a whole.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: dict[bytes, torch.Tensor] = {}
        self._head_alone: bool | None = None  # until it is tried

    @property
    def vocabulary(self) -> int:
        """Number of logits."""
        return int(self.model.config.vocab_size)

    @property
    def held(self) -> int:
        """Bytes of the states that are kept, each counted once."""
        kept = {id(states): states for states in self._kept.values()}
        return sum(states.numel() * states.element_size() for states in kept.values())

    def listen(
        self, names: Collection[str], name: str, ids: Sequence[int], states: torch.Tensor
    ) -> None:
        """Keep the states `[tokens, width]` of a sentence that is among some, as it is read."""
        if name in names:
            kept = states.clone()  # of its batch nothing is held
            # A token that closes a sentence changes nothing before it.
            for length in (len(ids), len(ids) - 1):
                self._kept[_key(ids[:length])] = kept

    def logits(self, tokens: np.ndarray, scored: np.ndarray) -> torch.Tensor:
        """Logits `[scored tokens, vocabulary]` of windows `[rows, length + 1]`, `<bos>` first.

        `scored` `[rows, length]` marks the tokens that are scored: all but those padded.
        """
        import torch

        ids = torch.from_numpy(tokens).to(next(self.model.parameters()).device)
        mask = torch.from_numpy(scored).to(ids.device)
        if self._head_alone is None:
            self._head_alone = self._is_head_alone(ids[:1, :-1])
        if not self._head_alone:
            return self._run(self.model, ids[:, :-1]).logits[mask]
        ends = [2 + int(np.flatnonzero(of)[-1]) for of in scored]  # what is padded is no text
        keys = [_key(row[:end]) for row, end in zip(tokens, ends, strict=True)]
        missing = [row for row, key in enumerate(keys) if key not in self._kept]
        if missing:
            found = self._run(self.model.base_model, ids[missing][:, :-1]).last_hidden_state
            self._kept |= {keys[row]: states for row, states in zip(missing, found, strict=True)}
        states = [
            self._kept[key][: len(of)][of[: len(self._kept[key])]]
            for key, of in zip(keys, mask, strict=True)
        ]
        with torch.no_grad():
            return self.model.get_output_embeddings()(torch.cat(states))

    def _is_head_alone(self, ids: torch.Tensor) -> bool:
        """Whether the head applied to the last hidden states of a window gives the logits."""
        import torch

        head = self.model.get_output_embeddings()
        if head is None or self.model.base_model is self.model:
            return False
        whole = self._run(self.model, ids).logits
        with torch.no_grad():
            found = head(self._run(self.model.base_model, ids).last_hidden_state)
        return found.shape == whole.shape and bool(
            (found - whole).abs().max() <= SAME * whole.abs().max()
        )

    def _run(self, network: Any, ids: torch.Tensor) -> Any:
        import torch

        with torch.no_grad():
            return network(input_ids=ids, use_cache=False)


def _key(ids: Sequence[int] | np.ndarray) -> bytes:
    return np.asarray(ids, dtype=np.int64).tobytes()
