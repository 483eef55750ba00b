"""Evaluate models on held-out text: bits per byte, and what merges kept of their parents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.core.model_ref import ModelRef
from repsim.core.progress import duration
from repsim.core.provenance import environment
from repsim.evaluation.parents import find_bases, find_parents
from repsim.evaluation.table import ALL, EvaluationTable
from repsim.models.in_memory import named_models
from repsim.models.inspect import ModelLike, locate, read_config
from repsim.stats.intervals import Interval, jackknife

if TYPE_CHECKING:
    from repsim.evaluation.bits_per_byte import BitsPerByte
    from repsim.evaluation.text import PreparedText

#: Tokens per window where models allow more.
LONGEST_CONTEXT = 1024
Say = Callable[[str, str], None]


def _silent(label: str, text: str) -> None:
    """Say nothing."""


def evaluate(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    corpus: str = "bible",
    languages: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    tokenizer: Any = None,
    context: int | None = None,
    overlap: int = 0,
    max_bytes: int | None = None,
    parents: Sequence[ModelLike] | Mapping[str, ModelLike] | None = None,
    base: ModelLike | None = None,
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    level: float = 0.95,
    seed: int = 0,
    allow_network: bool = False,
    say: Say = _silent,
) -> EvaluationTable:
    """Bits per byte of models on held-out text, and retention, collapse and usefulness of merges.

    Args:
        models: Causal language models: Hugging Face folders, "zoo:NAME", hub ids
            ("org/name@revision"), `ModelRef`s, or modules of `transformers` with their heads, alone
            or as `(module, tokenizer)`; in a mapping, by name.
        corpus: Training corpus whose held-out part is scored, and whose training part the unigram
            floor is fitted on: "bible", a folder or "hub:NAME".
        languages: FLORES-style codes; those that the models state if left out.
        names: Names of the models, where they are no mapping.
        tokenizer: Of modules that come without one.
        context: Tokens per window, the same for all models; as many as all of them take if left
            out, at most 1024.
        overlap: Tokens of a window that are context only.
        max_bytes: At most so many bytes of each language.
        parents: What the merges were made of. Every other model is then held against them, whatever
            its role. Without it the parents of a merge are those that its provenance states (base
            models are none); they are evaluated too, if they are not among `models`.
        base: The model that the parents were trained from: merges also get the *gain kept*. If left
            out, the base that the provenance of a merge states; it is evaluated too.
        device: Where the models run; a GPU if there is one.
        device_map: How `accelerate` spreads large models: "auto", or part -> device.
        dtype: Type of the weights in memory; by default float32 on a CPU, as stored elsewhere.
        revision: Revision of hub ids that name none.
        level: Nominal coverage of intervals.
        seed: Of the draw of documents for `max_bytes`.
        allow_network: Whether models or text may be fetched.
        say: Called with a label and a text at each step.

    Returns:
        The table; `info` states models, text, context and environment.

    Raises:
        UsageError: No languages, the same model name twice, a context that a model does not take.
        InputError: A model, parent or text that is not there or is not the one declared.
        IncompatibleModelsError: A model that is no causal language model.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> folder = write_tiny_model("llama", tempfile.mkdtemp() + "/tiny", head=True)
        >>> table = evaluate([folder], languages=["eng_Latn"], max_bytes=20_000, context=64)
        >>> table.unique("metric")
        ['bits_per_byte', 'unigram_floor']
    """
    from repsim.evaluation.text import load_evaluation_text
    from repsim.models.causal import load_causal_lm

    finding = {"revision": revision, "allow_network": allow_network}
    given = named_models(models, names, tokenizer=tokenizer)
    made_from = None if parents is None else named_models(parents, tokenizer=_one(tokenizer))
    origin = None if base is None else named_models([base], tokenizer=_one(tokenizer))[0]
    refs, lineage = find_parents(given, made_from, finding)
    bases = find_bases(refs, lineage, origin, finding=finding, say=say)
    spoken = tuple(languages) if languages else stated_languages(refs)
    window = common_context(refs, context)
    text = load_evaluation_text(
        corpus, spoken, max_bytes=max_bytes, seed=seed, allow_network=allow_network
    )
    where = device or best_device()
    prepared: dict[str, PreparedText] = {}
    scores: dict[str, dict[str, BitsPerByte]] = {}
    start = time.monotonic()
    for done, ref in enumerate(refs):
        each = (time.monotonic() - start) / max(done, 1)
        left = f" · ≈ {duration(each * (len(refs) - done))} left" if done else ""
        say("score", f"{done + 1} of {len(refs)}: {ref.name} on {', '.join(spoken)}{left}")
        loaded = load_causal_lm(ref, device=where, device_map=device_map, dtype=dtype)
        if ref.tokenizer_hash not in prepared:
            prepared[ref.tokenizer_hash] = text.prepare(loaded.tokenizer, window, overlap=overlap)
        scores[ref.name] = prepared[ref.tokenizer_hash].score(loaded.model)
        del loaded
    rows: list[dict[str, Any]] = []
    for ref in refs:
        ready = prepared[ref.tokenizer_hash]
        rows += _language_rows(ref, scores[ref.name], ready, level)
        if made_of := lineage.get(ref.name):
            rows += _merge_rows(ref, made_of, scores, ready, level)
            if origin := bases.get(ref.name):
                rows += _gain_rows(ref, made_of, origin, scores, ready, level)
    info = {
        "models": {ref.name: ref.stated() for ref in refs},
        "parents": {name: list(made_of) for name, made_of in lineage.items()},
        "bases": bases,
        "text": text.about,
        "context": window,
        **({"dtype": dtype} if dtype else {}),
        "overlap": overlap,
        "level": level,
        "interval": "delete-one-document jackknife of the ratio, paired over documents",
        "environment": environment(),
    }
    return EvaluationTable(rows, info)


def _one(tokenizer: Any) -> Any:
    """A tokenizer for all; none where each model has its own."""
    return None if isinstance(tokenizer, list | tuple) else tokenizer


def best_device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def stated_languages(refs: Sequence[ModelRef]) -> tuple[str, ...]:
    """Languages that the models state, in order of first mention."""
    found = tuple(dict.fromkeys(language for ref in refs for language in ref.languages))
    if not found:
        raise UsageError(
            "the models do not state their languages",
            hint="name some: languages=['eng_Latn'] (-l eng_Latn)",
        )
    return found


def common_context(refs: Sequence[ModelRef], wanted: int | None) -> int:
    """Tokens per window that all models take."""
    limits = {}
    for ref in refs:
        config, _ = read_config(locate(ref).folder, generic=True)
        if limit := getattr(config, "max_position_embeddings", None):
            limits[ref.name] = int(limit)
    if wanted is None:
        return min([LONGEST_CONTEXT, *limits.values()])
    for name, limit in limits.items():
        if wanted > limit:
            raise UsageError(f"model '{name}' takes {limit} tokens, not a context of {wanted}")
    if wanted < 1:
        raise UsageError(f"a context of {wanted} tokens is not possible")
    return wanted


def _language_rows(
    ref: ModelRef, scores: Mapping[str, BitsPerByte], ready: PreparedText, level: float
) -> list[dict[str, Any]]:
    from repsim.evaluation.bits_per_byte import leave_one_out

    rows = []
    for language, score in scores.items():
        ids = ready.text.documents[language]
        rests = f"unigrams of {ready.floor_bytes[language] / 1e6:.1f} MB of training text"
        both = {"bits_per_byte": (score, ""), "unigram_floor": (ready.floors[language], rests)}
        for metric, (numbers, note) in both.items():
            found = jackknife(leave_one_out(numbers, ids, ids), level)
            rows.append(_row(ref, language, metric, found, note=note) | _amount(score))
    return rows


def _row(ref: ModelRef, language: str, metric: str, found: Interval, **more: Any) -> dict[str, Any]:
    ends = {"value": found.value, "ci_low": found.low, "ci_high": found.high}
    head = {"model": ref.name, "role": ref.role, "language": language, "metric": metric}
    return {**head, **ends, "reference": "", "note": "", **more}


def _amount(score: BitsPerByte) -> dict[str, int]:
    return {"n_documents": len(score.sizes), "n_bytes": int(score.sizes.sum())}


def _merge_rows(
    ref: ModelRef,
    made_of: Sequence[str],
    scores: Mapping[str, Mapping[str, BitsPerByte]],
    ready: PreparedText,
    level: float,
) -> list[dict[str, Any]]:
    """Retention by language, then what is said of all languages together."""
    from repsim.evaluation.retention import THRESHOLDS, judge

    parents = {name: scores[name] for name in made_of}
    outcome = judge(
        scores[ref.name], parents, ready.floors, ready.text.documents, level=level
    )  # fmt: skip
    amounts = {language: _amount(score) for language, score in scores[ref.name].items()}
    rows = [
        _row(ref, language, "retention", kept.estimate, reference=kept.parent, note=kept.note)
        | amounts[language]
        for language, kept in outcome.retention.items()
    ]
    left_out = [name for name, kept in outcome.retention.items() if kept.note.startswith("not")]
    note = f"without {', '.join(left_out)}: no parent is better than unigrams" if left_out else ""
    worst, best = outcome.worst_language or "", outcome.best_parent or ""
    verdicts = [
        ("worst_retention", outcome.worst, worst),
        *((f"collapse_{t}", _flag(outcome.collapsed(t)), worst) for t in THRESHOLDS),
        ("kept", outcome.kept, ""),
        ("advantage", outcome.advantage, best),
        ("useful", _flag(outcome.useful), best),
    ]
    total = {key: sum(amount[key] for amount in amounts.values())
             for key in ("n_documents", "n_bytes")}  # fmt: skip
    rows += [
        _row(ref, ALL, metric, found, reference=reference, note=note) | total
        for metric, found, reference in verdicts
    ]
    return rows


def _gain_rows(
    ref: ModelRef,
    made_of: Sequence[str],
    base: str,
    scores: Mapping[str, Mapping[str, BitsPerByte]],
    ready: PreparedText,
    level: float,
) -> list[dict[str, Any]]:
    """What the merge kept of what its parents gained over their base, by language."""
    from repsim.evaluation.retention import gain_kept

    parents = {name: scores[name] for name in made_of}
    found = gain_kept(scores[ref.name], parents, scores[base], ready.text.documents, level=level)
    return [
        _row(ref, language, "gain_kept", kept.estimate, reference=kept.parent, note=kept.note)
        | _amount(scores[ref.name][language])
        for language, kept in found.items()
    ]


def _flag(answer: bool | None) -> Interval:
    return Interval(float("nan") if answer is None else float(answer))
