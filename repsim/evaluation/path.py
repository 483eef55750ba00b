"""Loss along the straight path between two models, as they are and after alignment.

`theta(t) = (1 - t) theta_A + t theta_B` at equally spaced t. **Barrier** of a language: the maximum
over the points of bits per byte minus the chord `(1 - t) L(A) + t L(B)`; 0 at least, for the ends
lie on the chord. Frankle et al. (2020), arXiv:1912.05671, take the same path; their barrier is held
against the mean of the ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from repsim.core.errors import IncompatibleModelsError, UsageError, unknown_name
from repsim.core.provenance import environment
from repsim.core.table import Table
from repsim.evaluation.held_out import Say, _silent, best_device, common_context, stated_languages
from repsim.evaluation.parents import ModelName
from repsim.merging.vocabulary import read_vocabulary
from repsim.models.inspect import inspect_model, locate
from repsim.stats.intervals import jackknife

if TYPE_CHECKING:
    import torch
    from torch import nn

    from repsim.core.model_ref import ModelRef
    from repsim.evaluation.bits_per_byte import BitsPerByte
    from repsim.evaluation.text import PreparedText
    from repsim.models.causal import CausalModel

Alignment = Literal["permutation", "orthogonal"]
#: Alignment of the path between the models as they are.
NAIVE = "none"
State = Mapping[str, "torch.Tensor"]
#: Language -> bits and bytes per document, at each point.
PathScores = list[dict[str, "BitsPerByte"]]


class BarrierTable(Table):
    """Bits per byte along paths, and the barrier of each language and path.

    Example:
        >>> table = BarrierTable([{"alignment": "none", "language": "eng_Latn",
        ...                        "metric": "barrier", "t": 0.5, "value": 1.2}])
        >>> table.barrier("eng_Latn")
        1.2
    """

    SCHEMA = "repsim/barrier/1"
    STEM = "barrier"
    COLUMNS: ClassVar = {
        "model_a": ("string", "model at t = 0"),
        "model_b": ("string", "model at t = 1"),
        "alignment": ("string", "none, permutation or orthogonal"),
        "language": ("string", "language"),
        "metric": ("string", "bits_per_byte at t, or barrier with the t of the maximum"),
        "t": ("float", "share of the second model"),
        "value": ("float", "bits per byte"),
        "ci_low": ("float", "lower end of the interval over documents"),
        "ci_high": ("float", "upper end"),
        "n_documents": ("int", "documents"),
        "n_bytes": ("int", "UTF-8 bytes of them"),
    }

    def barrier(self, language: str, alignment: str = NAIVE) -> float:
        """The barrier of one language, in bits per byte.

        Raises:
            UsageError: It is not in the table.
        """
        found = self.where(metric="barrier", language=language, alignment=alignment)
        if len(found) == 0:
            raise UsageError(
                f"the table has no barrier of {language} with alignment '{alignment}'",
                hint=f"languages: {self.unique('language')}, alignments: "
                f"{self.unique('alignment')}",
            )
        return float(found.column("value")[0])


def barrier(
    a: ModelName,
    b: ModelName,
    *,
    corpus: str = "bible",
    languages: Sequence[str] | None = None,
    points: int = 11,
    align: Alignment | Sequence[Alignment] | None = None,
    context: int | None = None,
    max_bytes: int | None = None,
    device: str | None = None,
    level: float = 0.95,
    seed: int = 0,
    allow_network: bool = False,
    say: Say = _silent,
) -> BarrierTable:
    """Bits per byte along the straight path from one model to another, and its barriers.

    Args:
        a: Model at t = 0: a folder, "zoo:NAME", a hub id or a `ModelRef`.
        b: Model at t = 1.
        corpus: Training corpus whose held-out part is scored.
        languages: FLORES-style codes; those that the models state if left out.
        points: Points on the path, ends included.
        align: Also the path to `b` after it was brought into the coordinates of `a`.
        context: Tokens per window; as many as both take if left out, at most 1024.
        max_bytes: At most so many bytes of each language.
        device: Where the model runs; a GPU if there is one.
        level: Nominal coverage of intervals (jackknife over documents; the point of the maximum is
            not chosen anew).
        seed: Of the draw of documents for `max_bytes`.
        allow_network: Whether models or text may be fetched.
        say: Called with a label and a text at each step.

    Raises:
        UsageError: Fewer than 3 points, an unknown alignment, no languages.
        IncompatibleModelsError: The models have other tensors, shapes or tokenizers.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> a, b = (write_tiny_model("llama", tempfile.mkdtemp() + f"/m{seed}", head=True,
        ...                          seed=seed) for seed in (0, 1))
        >>> table = barrier(a, b, languages=["eng_Latn"], points=3, max_bytes=10_000, context=32)
        >>> table.where(metric="bits_per_byte").column("t").tolist()
        [0.0, 0.5, 1.0]
    """
    from repsim.evaluation.text import load_evaluation_text

    if points < 3:
        raise UsageError(f"a path of {points} points has no inside", hint="points=11")
    wanted = [align] if isinstance(align, str) else list(align or ())
    for name in wanted:
        if name not in ("permutation", "orthogonal"):
            raise unknown_name("alignment", name, ["permutation", "orthogonal"])
    refs = [inspect_model(name, generic=True, allow_network=allow_network) for name in (a, b)]
    if refs[0].tokenizer_hash != refs[1].tokenizer_hash:
        _refuse_tokenizers(refs)
    spoken = tuple(languages) if languages else stated_languages(refs)
    text = load_evaluation_text(
        corpus, spoken, max_bytes=max_bytes, seed=seed, allow_network=allow_network
    )
    first, second = _load_both(refs, device or best_device())
    window = common_context(refs, context)
    prepared = text.prepare(first.tokenizer, window, floors=False)
    positions = np.linspace(0.0, 1.0, points)
    names = {"model_a": refs[0].name, "model_b": refs[1].name}
    rows: list[dict[str, Any]] = []
    notes: dict[str, Any] = {}
    for alignment in [NAIVE, *wanted]:
        say("path", f"{names['model_a']} to {names['model_b']}, alignment {alignment}")
        model, ends, notes[alignment] = _ends(first, second, alignment, seed)
        scores = path_scores(model, *ends, prepared, positions)
        rows += [
            {**names, "alignment": alignment, **row}
            for row in curve_rows(scores, positions, text.documents, level)
        ]
    info = {
        "models": [ref.stated() for ref in refs],
        "text": text.about,
        "context": window,
        "points": points,
        "level": level,
        "alignment": notes,
        "environment": environment(),
    }
    return BarrierTable(rows, info)


def _refuse_tokenizers(refs: Sequence[ModelRef]) -> None:
    """Refuse models whose tokenizers mean different things, not only other files."""
    first, second = (read_vocabulary(locate(ref).folder, ref.name) for ref in refs)
    differing = first.differences(second) if first and second else ["one is not here"]
    if differing:
        raise IncompatibleModelsError(
            f"'{refs[0].name}' and '{refs[1].name}' have different tokenizers: there is no path of "
            f"language models between them ({differing[0]})"
        )


def _load_both(refs: Sequence[Any], device: str) -> tuple[CausalModel, CausalModel]:
    """Both models; they must be of one shape."""
    from repsim.models.causal import load_causal_lm

    first, second = (load_causal_lm(ref, device=device) for ref in refs)
    one, two = first.model.state_dict(), second.model.state_dict()
    for name in {**one, **two}:
        shapes = [tuple(state[name].shape) if name in state else None for state in (one, two)]
        if shapes[0] != shapes[1]:
            raise IncompatibleModelsError(
                f"tensor '{name}' is {shapes[0] or 'missing'} in '{first.ref.name}' and "
                f"{shapes[1] or 'missing'} in '{second.ref.name}'",
                hint="see what fits: repsim check A B",
            )
    return first, second


def _ends(
    first: CausalModel, second: CausalModel, alignment: str, seed: int
) -> tuple[nn.Module, tuple[State, State], dict[str, Any]]:
    """A model to load points of the path into, its ends, and what alignment reports of itself."""
    from repsim.merging.align import align

    start, end = (_copied(loaded.model) for loaded in (first, second))
    if alignment == NAIVE:
        return _fresh(first.model, first.model.config), (start, end), {}
    result = align(start, [end], first.model.config, method=alignment, seed=seed)  # type: ignore[arg-type]
    states = (result.states[0], result.states[1])
    # Rotation unties heads, so the points may not fit into the first model.
    return _fresh(first.model, result.config), states, dataclasses.asdict(result.report[0])


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _fresh(like: nn.Module, config: Any) -> nn.Module:
    """A model of a config, of the type and on the device of another."""
    import torch
    from transformers import AutoModelForCausalLM

    parameter = next(like.parameters())
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model.to(device=parameter.device, dtype=parameter.dtype).eval().requires_grad_(False)


def path_scores(
    model: nn.Module,
    start: State,
    end: State,
    prepared: PreparedText,
    positions: Sequence[float] | np.ndarray,
    *,
    on_point: Callable[[float], None] | None = None,
) -> PathScores:
    """Score the models on the straight path between two state dicts, in one model's memory."""
    import torch

    found = []
    for t in positions:
        if on_point:
            on_point(float(t))
        point = {
            name: torch.lerp(tensor, end[name].to(tensor), float(t))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in start.items()
        }
        model.load_state_dict(point)
        found.append(prepared.score(model))
    return found


def curve_rows(
    scores: PathScores,
    positions: Sequence[float] | np.ndarray,
    documents: Mapping[str, Sequence[str]],
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Rows of a `BarrierTable` from the scores along a path, without names of models."""
    from repsim.evaluation.bits_per_byte import leave_one_out

    t = np.asarray(positions, dtype=np.float64)
    rows: list[dict[str, Any]] = []
    for language in scores[0]:
        ids = documents[language]
        amount = {
            "n_documents": len(ids), "n_bytes": int(scores[0][language].sizes.sum())
        }  # fmt: skip
        tracks = np.stack([leave_one_out(point[language], ids, ids) for point in scores])
        chord = np.outer(1 - t, tracks[0]) + np.outer(t, tracks[-1])
        excess = tracks - chord
        excess[[0, -1]] = 0.0
        highest = int(excess[:, 0].argmax())
        curves = [("bits_per_byte", i, track) for i, track in enumerate(tracks)]
        for metric, i, track in [*curves, ("barrier", highest, excess[highest])]:
            found = jackknife(track, level)
            ends = {"value": found.value, "ci_low": found.low, "ci_high": found.high}
            head = {"language": language, "metric": metric, "t": float(t[i])}
            rows.append({**head, **ends, **amount})
    return rows
