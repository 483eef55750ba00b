"""A trial: the merge that was asked about is made on disk, scored on little text, and removed.

An evaluation, no forecast: it holds for any family and size, and costs a merge and some passes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.aside import make_folder, sweep_once, temporary
from repsim.core.errors import IncompatibleModelsError, ResourceError, UsageError
from repsim.core.files import cache_folder
from repsim.core.machine import memory_left
from repsim.core.progress import duration
from repsim.evaluation.held_out import common_context, evaluate, stated_languages
from repsim.evaluation.plan import scoring_seconds
from repsim.evaluation.text import load_evaluation_text
from repsim.merging.execute import choose_device
from repsim.models.inspect import inspect_model

if TYPE_CHECKING:
    from repsim.core.model_ref import ModelRef
    from repsim.evaluation.table import EvaluationTable
    from repsim.merging.recipe import Recipe

#: The merge, in tables.
NAME = "trial"
#: Held-out text that is scored, bytes of each language: some pages in half a dozen documents.
TEXT_BYTES = 20_000
#: Share of a matrix product's speed that scoring reaches.
EFFICIENCY = 0.6
#: Seconds until the first model reads, and for a language's unigram floor; bytes that are read or
#: written in a second; entries that are merged in a second (by the slowest methods, which sort).
START_SECONDS, FLOOR_SECONDS, DISK_RATE, ENTRY_RATE = 3.0, 2.0, 3e8, 1e8
#: What Python and torch hold beside a model, and tables of logits that are held at once: 135
#: million parameters and 49,152 tokens took 2.1 GB at most.
PROCESS_BYTES, LOGITS = 1e9, 4


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """What a trial would make, read and take: bytes, tokens of a window, estimated seconds."""

    recipe: Recipe
    parents: Mapping[str, ModelRef]  # by their names in the table
    base: ModelRef | None  # what the gain kept is taken over
    text: Mapping[str, int]  # language -> bytes that are scored
    context: int
    scoring: Mapping[str, Any]  # further settings of `repsim.evaluate`
    folder: Path  # where the merge is made
    disk: int  # that the merge takes there while the trial runs
    disk_free: int
    memory: int  # that one model and its logits take: models are loaded one after another
    memory_free: int | None  # None where `device_map` spreads a model
    seconds: Mapping[str, float]  # by part: merging, loading, floors, scoring

    @property
    def refusal(self) -> str:
        """Why it cannot be done here, with numbers; empty if it can."""
        if self.disk > self.disk_free:
            return (
                f"the merge takes {_gb(self.disk)} on disk, and {_gb(self.disk_free)} are free in "
                f"'{self.folder}'"
            )
        if self.memory_free is not None and self.memory > self.memory_free:
            return (
                f"one model and its logits take {_gb(self.memory)} of memory, and "
                f"{_gb(self.memory_free)} are left"
            )
        return ""

    def check(self) -> None:
        """Raise a `ResourceError` where memory or disk do not suffice."""
        if self.refusal:
            raise ResourceError(
                f"no trial: {self.refusal}",
                hint="--dtype bfloat16 halves the memory, --device-map auto spreads a model; "
                "REPSIM_CACHE=FOLDER takes another disk",
            )

    @property
    def sentence(self) -> str:
        """The plan in words."""
        recipe = self.recipe
        way = recipe.method + (f", {recipe.align}" if recipe.align != "none" else "")
        parts = ", ".join(f"{what} {duration(took)}" for what, took in self.seconds.items())
        free = "" if self.memory_free is None else f" ({_gb(self.memory_free)} left)"
        others = ", ".join([*self.parents, *([f"base {self.base.name}"] if self.base else [])])
        more = "" if recipe.align == "none" else f"; {recipe.align} alignment comes on top"
        return (
            f"merge by {way} on disk, {_gb(self.disk)} ({_gb(self.disk_free)} free), removed "
            f"afterwards · scored beside {others}, one in memory at a time, {_gb(self.memory)}"
            f"{free} · {sum(self.text.values()) / 1e3:.0f} kB of {', '.join(self.text)} · "
            f"≈ {duration(sum(self.seconds.values()))} ({parts}){more}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {
            "method": self.recipe.method, "alignment": self.recipe.align,
            "parents": list(self.parents), "base": self.base and self.base.name,
            "text": dict(self.text), "context": self.context, "folder": str(self.folder),
            "disk": self.disk, "disk_free": self.disk_free, "memory": self.memory,
            "memory_free": self.memory_free, "seconds": dict(self.seconds),
            "refusal": self.refusal,
        }  # fmt: skip


def plan_trial(
    recipe: Recipe,
    *,
    base: str | None = None,
    corpus: str = "bible",
    languages: Sequence[str] = (),
    max_bytes: int = TEXT_BYTES,
    seed: int = 0,
    device: str | None = None,
    device_map: str | None = None,
    dtype: str | None = None,
) -> TrialPlan:
    """What a trial of a merge would take, from headers and the speed of one matrix product.

    Args:
        recipe: The merge, exactly as it would be made.
        base: What the parents were trained from; that of the recipe if left out.
        corpus: Training corpus whose held-out part is scored.
        languages: Languages to score; those that the parents state if empty.
        max_bytes: At most so many bytes of each language.
        seed: Of the draw of documents.
        device: Where models are scored; a GPU if there is one.
        device_map: How large models are spread over devices.
        dtype: Type of the weights in memory; by default float32 on a CPU, as stored elsewhere.

    Raises:
        IncompatibleModelsError: The models do not fit each other, or one is an encoder.
        InputError: A model or text that is not there.
        ResourceError: The device is not there.
        UsageError: The models state no languages, and none are named.

    Example:
        >>> from repsim.merging import read_recipe
        >>> recipe = read_recipe({"method": "slerp", "models": ["zoo:eng-1", "zoo:eng-2"]})
        >>> plan = plan_trial(recipe, device="cpu")
        >>> list(plan.parents), list(plan.text), plan.refusal
        (['eng-1', 'eng-2'], ['eng_Latn'], '')
    """
    parents = _parents(recipe)
    origin = _base(recipe, base, parents)
    beside = [*parents.values(), *([origin] if origin else [])]
    spoken = tuple(languages) or stated_languages(list(parents.values()))
    text = load_evaluation_text(corpus, spoken, max_bytes=max_bytes, seed=seed).texts
    sizes = {code: sum(len(one.encode()) for one in text[code]) for code in spoken}
    where = choose_device(device)
    disk, entries = _written(recipe)
    folder = make_folder(cache_folder() / "trials")
    in_memory = disk / max(entries, 1) if where != "cpu" else 4.0
    if dtype is not None:
        in_memory = {"float64": 8.0, "float32": 4.0}.get(dtype, 2.0)
    counts = [entries, *(ref.parameters for ref in beside)]
    process = PROCESS_BYTES if where == "cpu" else 0
    speed, busy = _speed(where, dtype)
    return TrialPlan(
        recipe, parents, origin, sizes, common_context(beside, None),
        {"corpus": corpus, "max_bytes": max_bytes, "seed": seed, "device": device,
         "device_map": device_map, "dtype": dtype},
        folder, disk, shutil.disk_usage(folder).free,
        memory=int(in_memory * max(counts) + _logits(beside, where) + process),
        memory_free=None if device_map else _memory_free(where),
        seconds={
            "merging": busy * (entries * len(recipe.sources) / ENTRY_RATE + 3 * disk / DISK_RATE),
            "loading": busy * (START_SECONDS + len(counts) * disk / DISK_RATE),
            "floors": busy * FLOOR_SECONDS * len(spoken),
            "scoring": scoring_seconds(counts, sum(sizes.values()), EFFICIENCY * speed),
        },
    )  # fmt: skip


def run_trial(
    plan: TrialPlan, *, say: Callable[[str, str], None] | None = None
) -> EvaluationTable:  # fmt: skip
    """Make a merge in a temporary folder, score it beside its parents on little text, remove it.

    The merge is made as `repsim.merging.merge` makes it, a tensor at a time, and scored as
    `repsim.evaluate` scores it, one model in memory at a time. Nothing is left however it ends; of
    a process that was killed the next trial clears up. A base of another origin is no error here:
    what it does is measured.

    Args:
        plan: What `plan_trial` said.
        say: Told of progress: a label, and a text.

    Returns:
        The table of `repsim.evaluate`: the merge is called "trial". `retention` of each language
        and, where there is a base, `gain_kept`, with intervals over documents.

    Raises:
        ResourceError: Memory or disk do not suffice, with numbers.
        InputError: A model or text that is gone meanwhile.

    Example:
        >>> from repsim.merging import read_recipe
        >>> recipe = read_recipe({"method": "linear", "models": ["zoo:eng-fork", "zoo:deu-fork"]})
        >>> table = run_trial(plan_trial(recipe, languages=["eng_Latn"], device="cpu"))
        >>> table.value("trial", "eng_Latn", "retention") > 0.5
        True
    """
    from repsim.merging.to_disk import merge

    plan.check()
    tell = say or (lambda label, text: None)
    with _folder(plan.folder) as folder:
        start = time.monotonic()
        alone = dataclasses.replace(plan.recipe, then_finetune=None)
        merged = merge(alone, folder / NAME, any_base=True, say=say)
        _refuse_a_parent(merged, plan.parents)
        tell("trial", f"merged in {duration(time.monotonic() - start)}")
        return evaluate(
            {NAME: merged}, languages=tuple(plan.text), context=plan.context,
            parents=plan.parents, base=plan.base, say=tell, **plan.scoring,
        )  # fmt: skip


def _refuse_a_parent(merged: Path, parents: Mapping[str, ModelRef]) -> None:
    """An error where the merge is one of its parents to the last bit: there is nothing to try."""
    made = inspect_model(merged, generic=True).weights_hash
    for name, ref in parents.items():
        if ref.weights_hash == made:
            raise UsageError(
                f"the merge is '{name}' itself, to the last bit: there is nothing to try",
                hint="check weights and parameters of the method, or evaluate the parents",
            )


def _parents(recipe: Recipe) -> dict[str, ModelRef]:
    """The models that are merged, each once and under a name of its own."""
    found: dict[str, ModelRef] = {}
    for model in dict.fromkeys(recipe.models):
        ref = inspect_model(model, generic=True)
        number, name = 2, ref.name
        while name in found:
            name, number = f"{ref.name} ({number})", number + 1
        found[name] = dataclasses.replace(ref, name=name)
    return found


def _base(
    recipe: Recipe, base: str | None, parents: Mapping[str, ModelRef]
) -> ModelRef | None:  # fmt: skip
    """What the parents were trained from, under a name that none of them has."""
    named = base or recipe.base_model
    ref = inspect_model(named, generic=True) if named else None
    if ref and ref.name in parents:
        same = ref.weights_hash == parents[ref.name].weights_hash
        return ref if same else dataclasses.replace(ref, name=f"{ref.name} (base)")
    return ref


def _written(recipe: Recipe) -> tuple[int, int]:
    """Bytes and entries of the merge, from headers: what aligns or repairs changes no shape."""
    from repsim.merging.output import lay_out
    from repsim.merging.prepare import prepare

    plain = dataclasses.replace(
        recipe, align="none", learn=None, repair=None, token_weights=None
    )  # fmt: skip
    plans = prepare(plain, any_base=True).plans
    total = lay_out({plan.name: plan.header for plan in plans}).total
    return total, sum(math.prod(plan.header.shape) for plan in plans)


def _logits(models: Sequence[ModelRef], where: str) -> int:
    """Bytes of the logits of one batch, of the largest vocabulary; an encoder is an error."""
    from repsim.evaluation.bits_per_byte import LOGITS_AT_ONCE, TOKENS_AT_ONCE
    from repsim.models.inspect import locate, read_config

    kind, most = "cpu" if where == "cpu" else "cuda", 1
    for ref in models:
        config, family = read_config(locate(ref).folder, generic=True)
        if not family.decoder:
            raise IncompatibleModelsError(
                f"no trial: '{ref.name}' does not predict the next token (an encoder)",
                hint="retention is of bits per byte; encoders are compared by repsim compare",
            )
        most = max(most, int(getattr(config, "vocab_size", 1)))
    return 4 * LOGITS * min(TOKENS_AT_ONCE[kind] * most, LOGITS_AT_ONCE[kind])


def _memory_free(where: str) -> int:
    if not where.startswith("cuda"):
        return memory_left()
    import torch

    return int(torch.cuda.mem_get_info(where)[0])


def _speed(where: str, dtype: str | None) -> tuple[float, float]:
    """Operations per second of a matrix product there, and how much others slow this process."""
    import torch

    usual = "float32" if where == "cpu" else "bfloat16"
    kind = getattr(torch, dtype or usual)
    left = torch.ones((256, 1024), dtype=kind, device=where)
    right = torch.ones((1024, 1024), dtype=kind, device=where)
    float((left @ right)[0, 0])  # waits for a GPU; the first product sets things up
    passes, start, spent = 0, time.monotonic(), time.process_time()
    while passes < 4 or time.monotonic() - start < 0.5:
        float((left @ right)[0, 0])
        passes += 1
    took = time.monotonic() - start
    return passes * 2.0 * left.numel() * 1024 / took, max(1.0, took / (time.process_time() - spent))


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Path]:
    """A folder that is gone when the block ends; what dead processes left is removed too."""
    sweep_once(make_folder(root))
    folder = make_folder(temporary(root / NAME))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e9:.3f} GB"
