"""From a configuration to an ordered list of runs, with every step, sample and cost worked out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.core.model_ref import Role
from repsim.corpora.data_order import BLOCK, temperature_ratios
from repsim.pretraining.config import FamilyConfig, RunConfig, StageConfig
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.own_tokenizer import open_tokenizer
from repsim.pretraining.parent import open_parent
from repsim.pretraining.schedule import Schedule

if TYPE_CHECKING:
    from repsim.pretraining.build import Shape

#: What one CPU core of the reference machine (AVX2, no AVX-512) reaches on models of about 1M
#: parameters; see `tests/benchmarks/`.
CPU_FLOPS = 40e9


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a model's history; without a `mix` languages and temperature give it."""

    run: str
    mix: Mapping[str, float]
    first_step: int
    last_step: int
    data_seed: int
    first_sample: int
    languages: tuple[str, ...]
    temperature: float

    def ratios(self, lengths: Mapping[str, int]) -> dict[str, float]:
        """Share of each language, given the number of its windows."""
        if self.mix:
            return dict(self.mix)
        return temperature_ratios(
            {name: lengths[name] for name in self.languages}, self.temperature
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        told = ("run", "first_step", "last_step", "data_seed")
        return {**{key: getattr(self, key) for key in told}, "mix": dict(self.mix)}


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """One run, worked out.

    Steps and samples are counted from the root of the history: a fork at step 800 begins there.

    Attributes:
        mix: Language -> share, over all stages; empty if `temperature` and the text decide.
        init_seed: Of the root of its history; None if that is a model that does not state it.
        first_step, last_step: Its own updates are those after the first up to the last.
        first_sample: Windows seen before.
        schedule, schedule_start: Learning rate by step, and the step at which it begins.
        fork_from, fork_state: Trunk and what is taken from it.
        fork_steps: Steps at which other runs leave this one.
        checkpoints: Steps whose weights are kept, ascending, with first and last.
        history: Phases from the root, those of this run last.
        data_order: Version of the order of samples, see `FamilyConfig`.
        parameters, flops: Of the model, and of its own training.
    """

    name: str
    role: Role
    languages: tuple[str, ...]
    mix: Mapping[str, float]
    temperature: float
    init_seed: int | None
    data_seed: int
    first_step: int
    last_step: int
    first_sample: int
    training: TrainingConfig
    schedule: Schedule
    schedule_start: int
    context: int
    fork_from: str | None = None
    fork_state: str | None = None
    fork_steps: tuple[int, ...] = ()
    checkpoints: tuple[int, ...] = ()
    history: tuple[Phase, ...] = ()
    data_order: int = 2
    parameters: int = 0
    flops: float = 0.0

    @property
    def steps(self) -> int:
        """Own updates."""
        return self.last_step - self.first_step

    @property
    def tokens(self) -> int:
        """Own training tokens."""
        return self.steps * self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one update, over all processes."""
        return self.training.batch * self.context

    @property
    def cpu_seconds(self) -> float:
        """Estimated time on one CPU core."""
        return self.flops / CPU_FLOPS

    def sample_at(self, step: int) -> int:
        """Windows that the model has seen after `step` updates."""
        return self.first_sample + (step - self.first_step) * self.training.batch

    def rate_at(self, step: int) -> float:
        """Learning rate of the update that leads from `step` to the next."""
        return self.schedule(step - self.schedule_start)

    def ratios(self, lengths: Mapping[str, int]) -> dict[str, float]:
        """Share of each language, given the number of its windows."""
        if self.mix:
            return dict(self.mix)
        return self.history[-1].ratios(lengths)

    @property
    def own_phases(self) -> tuple[Phase, ...]:
        """Its stages, in order; one if it has no other mixture later."""
        return tuple(phase for phase in self.history if phase.run == self.name)

    def _order_key(self) -> dict[str, Any]:
        """What samples depend on beyond shares and seeds; nothing where both orders are one."""
        stages = [[dict(p.mix), p.first_step, p.last_step] for p in self.own_phases]
        told: dict[str, Any] = {"stages": stages} if len(stages) > 1 else {}
        whole = all((share * BLOCK).is_integer() for share in self.mix.values())
        alike = len(self.history) == 1 and bool(self.mix) and whole
        return told if self.data_order == 1 or alike else told | {"data_order": self.data_order}

    def settings(self, config: FamilyConfig, data_hash: str, trunk: Any) -> dict[str, Any]:
        """Everything that the resulting weights depend on; `trunk`: its key, or its settings."""
        training = self.training.model_dump(exclude={"tokens", "steps"})
        shape: Any = config.architecture.model_dump()
        if config.init_from:
            shape = {"context": self.context, "weights": open_parent(config.init_from).origin}
        return {
            "architecture": shape,
            "training": training,
            "schedule": dataclasses.asdict(self.schedule) | {"start": self.schedule_start},
            "mix": dict(self.mix) or {"of": self.languages, "temperature": self.temperature},
            "seeds": [self.init_seed, self.data_seed],
            "steps": [self.first_step, self.last_step, self.first_sample],
            "fork_state": self.fork_state,
            "trunk": trunk,
            "data": data_hash,
            "dtype": config.saving.dtype,
            **self._order_key(),
        }


def plan(config: FamilyConfig) -> list[RunPlan]:
    """All runs of a family, trunks before the runs that fork from them.

    Example:
        >>> from repsim.pretraining.config import from_mapping
        >>> config = from_mapping({
        ...     "name": "f", "corpus": {"source": "bible", "languages": ["eng_Latn", "deu_Latn"]},
        ...     "architecture": {"size": "1m"}, "training": {"steps": 100},
        ...     "runs": [
        ...         {"name": "deu", "languages": ["deu_Latn"], "fork": {"from": "mix", "at": 0.8}},
        ...         {"name": "mix", "languages": ["eng_Latn", "deu_Latn"], "init_seed": 1}]})
        >>> [(run.name, run.first_step, run.last_step) for run in plan(config)]
        [('mix', 0, 100), ('deu', 80, 100)]
    """
    done: dict[str, RunPlan] = {}
    for run in config.runs:
        _plan_with_trunks(config, run, done)
    finished = []
    forks: dict[str, set[int]] = {}
    for run_plan in done.values():
        forks.setdefault(run_plan.fork_from or "", set()).add(run_plan.first_step)
    adapters = {bool(run_plan.training.lora) for run_plan in done.values()}
    shapes = {lora: _expected_shape(config, lora=lora) for lora in adapters}
    for run_plan in done.values():
        shape = shapes[bool(run_plan.training.lora)]
        leaving = sorted(forks.get(run_plan.name, set()))
        finished.append(
            dataclasses.replace(
                run_plan,
                fork_steps=tuple(leaving),
                checkpoints=_checkpoints(config, run_plan, leaving),
                parameters=shape.parameters,
                flops=shape.flops_per_token * run_plan.tokens,
            )
        )
    return finished


def _expected_shape(config: FamilyConfig, *, lora: bool) -> Shape:
    """Before there is a tokenizer; it has fewer tokens only if the text is short for so many."""
    from repsim.pretraining.build import shape_from_scratch, shape_of_parent

    if config.init_from:
        parent = open_parent(config.init_from)
        return shape_of_parent(parent, config.architecture.context, lora=lora)
    vocabulary = 259 if config.tokenizer.kind == "bytes" else config.tokenizer.vocab_size
    if config.tokenizer.path:
        vocabulary = open_tokenizer(Path(config.tokenizer.path)).vocab_size
    return shape_from_scratch(config.architecture, vocabulary)


def _plan_with_trunks(config: FamilyConfig, run: RunConfig, done: dict[str, RunPlan]) -> None:
    """Plan a run, its trunk first."""
    if run.name in done:
        return
    if run.fork is None:
        done[run.name] = _root(config, run)
        return
    _plan_with_trunks(config, config.run(run.fork.run), done)
    done[run.name] = _forked(config, run, done[run.fork.run])


def _common(config: FamilyConfig, run: RunConfig) -> dict[str, Any]:
    mix = _overall(run.stages) if run.stages else dict(run.mix)
    if run.languages and (run.temperature == 0 or len(run.languages) == 1):
        mix = dict.fromkeys(run.languages, 1.0)
    total = sum(mix.values())
    return {
        "name": run.name,
        "role": run.role or _role(config, run),
        "languages": run.trained_on,
        "mix": {language: share / total for language, share in mix.items()},
        "temperature": run.temperature,
        "training": config.training_of(run),
        "context": config.architecture.context,
        "data_order": config.data_order,
    }


def _overall(stages: Sequence[StageConfig]) -> dict[str, float]:
    """The shares of a whole run in stages."""
    shares: dict[str, float] = {}
    begin = 0.0
    for stage in stages:
        for language, share in stage.mix.items():
            part = (stage.until - begin) * share / math.fsum(stage.mix.values())
            shares[language] = shares.get(language, 0.0) + part
        begin = stage.until
    return shares


def _phases(run: RunConfig, common: Mapping[str, Any], steps: tuple[int, int], sample: int,
            seed: int) -> tuple[Phase, ...]:  # fmt: skip
    """The phases of a run's own: one, or one for each stage of at least a step."""
    first, last = steps
    stages = [(stage.until, stage.mix) for stage in run.stages] or [(1.0, common["mix"])]
    phases, begin = [], first
    for until, mix in stages:
        end = first + round(until * (last - first))
        if end > begin or not run.stages:
            total = math.fsum(mix.values()) if run.stages else 1.0
            shares = {language: share / total for language, share in mix.items()}
            seen = sample + (begin - first) * common["training"].batch
            about = (seed, seen, run.trained_on, run.temperature)
            phases.append(Phase(run.name, shares, begin, end, *about))
            begin = end
    return tuple(phases)


def _role(config: FamilyConfig, run: RunConfig) -> Role:
    if config.init_from:
        return "fine-tuned"
    return "monolingual" if len(run.trained_on) == 1 else "mixed"


def _root(config: FamilyConfig, run: RunConfig) -> RunPlan:
    """A run that is no fork: from random weights, or from the model of `init_from`."""
    common = _common(config, run)
    training: TrainingConfig = common["training"]
    steps = training.length(config.architecture.context, run.name)
    seed = run.data_seed or 0
    parent = open_parent(config.init_from) if config.init_from else None
    return RunPlan(
        **common,
        init_seed=parent.ref.init_seed if parent else run.init_seed or 0,
        data_seed=seed,
        first_step=0,
        last_step=steps,
        first_sample=0,
        schedule=_schedule(training, steps),
        schedule_start=0,
        history=_phases(run, common, (0, steps), 0, seed),
    )


def _forked(config: FamilyConfig, run: RunConfig, trunk: RunPlan) -> RunPlan:
    fork = run.fork
    assert fork is not None
    first = fork.step if fork.step is not None else round((fork.at or 0.0) * trunk.last_step)
    if not trunk.first_step <= first <= trunk.last_step:
        raise UsageError(
            f"'{run.name}' forks from '{trunk.name}' at step {first}, but that run has steps "
            f"{trunk.first_step} to {trunk.last_step}"
        )
    common = _common(config, run)
    training: TrainingConfig = common["training"]
    last = first + _fork_length(config, run, training, trunk.last_step - first)
    restart = (
        fork.schedule or ("restart" if first == trunk.last_step else "continue")
    ) == "restart"
    start = first if restart else trunk.schedule_start
    seed = trunk.data_seed if run.data_seed is None else run.data_seed
    shared = [
        dataclasses.replace(phase, last_step=min(phase.last_step, first))
        for phase in trunk.history
        if phase.first_step < first
    ]
    own = _phases(run, common, (first, last), trunk.sample_at(first), seed)
    return RunPlan(
        **common,
        init_seed=trunk.init_seed,
        data_seed=seed,
        first_step=first,
        last_step=last,
        first_sample=trunk.sample_at(first),
        schedule=_schedule(training, last - start),
        schedule_start=start,
        fork_from=trunk.name,
        fork_state=fork.state,
        history=(*shared, *own),
    )


def _fork_length(config: FamilyConfig, run: RunConfig, training: TrainingConfig, left: int) -> int:
    """Own steps of a fork: as told, or what was left of its trunk."""
    if training.tokens is not None or training.steps is not None:
        return training.length(config.architecture.context, run.name)
    if left == 0:
        raise UsageError(
            f"'{run.name}' forks from the end of its trunk and needs 'tokens' or 'steps'"
        )
    return left


def _schedule(training: TrainingConfig, steps: int) -> Schedule:
    return Schedule(
        kind=training.schedule,
        peak=training.learning_rate,
        steps=steps,
        warmup=round(training.warmup * steps),
        decay=round(training.decay * steps) if training.schedule == "wsd" else 0,
        final=training.final_rate,
    )


def _checkpoints(config: FamilyConfig, run: RunPlan, fork_steps: list[int]) -> tuple[int, ...]:
    """Steps whose weights are kept: as asked, where others fork, and the first."""
    wanted = config.saving.checkpoints
    if wanted == "none":
        steps = set(fork_steps)
    elif isinstance(wanted, int):
        steps = {run.last_step, *fork_steps, *range(run.first_step, run.last_step, wanted)}
    elif wanted == "log":
        steps = {run.first_step, run.last_step, *fork_steps}
        distance = 1
        while distance < run.steps:
            steps.add(run.first_step + distance)
            distance *= 2
    else:
        steps = {*fork_steps, *(int(step) for step in wanted)}
    return tuple(sorted(s for s in steps if run.first_step <= s <= run.last_step))
