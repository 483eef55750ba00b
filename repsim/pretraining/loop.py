"""The training loop of one run."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, RepsimError
from repsim.core.model_ref import ModelRef
from repsim.core.provenance import versions
from repsim.evaluation.bits_per_byte import BitsPerByte, HeldOut, score
from repsim.pretraining.adapter import absorbed, base_name, merged, of_adapter, write_adapter
from repsim.pretraining.checkpoint import (
    TrainingState,
    disk_errors,
    latest_state,
    read_state,
    save_state,
    step_folder,
    steps_in,
)
from repsim.pretraining.costs import validation_steps
from repsim.pretraining.distributed import (
    World,
    full_optimizer_state,
    full_state,
    load_full_optimizer_state,
    load_full_state,
)
from repsim.pretraining.folder import (
    PROVENANCE,
    Described,
    history_of,
    read_weights,
    remove,
    write_model,
)
from repsim.pretraining.metrics import Metrics, Speed, bits_text, log_line, logger, read_metrics
from repsim.pretraining.settings import changes
from repsim.pretraining.step import Engine, deterministic_kernels, memory_errors, quiet_collector


class DivergedError(RepsimError):
    """The loss or the gradient is not a finite number any more (exit code 1)."""


@dataclasses.dataclass
class Run:
    """One run in progress."""

    about: Described
    engine: Engine
    folder: Path
    world: World

    def __post_init__(self) -> None:
        plan, data = self.about.plan, self.about.data
        self.plan, self.saving = plan, self.about.config.saving
        self.order = data.reading(plan)
        self.share = self.world.share(plan.training.batch)
        self.step = plan.first_step
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.scores: dict[str, float] = {}
        self.last_loss = math.nan
        self.validated = set(validation_steps(plan, self.saving.validate_every))

    # -- the whole of it -----------------------------------------------------------------------

    def train(self, start: TrainingState, *, resume: bool = True) -> ModelRef | None:
        """Train from `start`, or from the newest state of an earlier go, to the last step."""
        self._begin(start, resume=resume)
        per_token = self.plan.flops / self.plan.tokens
        self.speed = Speed(per_token, self.world.size, self.world.device)
        with disk_errors(f"the files of run '{self.plan.name}'"):
            if self.world.is_main:
                self.metrics = self._open_metrics()
            try:
                with (
                    quiet_collector(),
                    memory_errors(self.plan.training),
                    deterministic_kernels(self.plan.training, self.world.device),
                ):
                    if not self.resumed:
                        self._visit_step()
                    self._updates()
                return self._finish()
            finally:
                if self.world.is_main:
                    self.metrics.close()

    def _open_metrics(self) -> Metrics:
        """Metrics without the rows that will be computed again."""
        plan = self.plan
        metrics = Metrics(
            self.folder,
            self.step if self.resumed else plan.first_step - 1,
            last_validation=plan.last_step - 1 if self.step == plan.last_step else None,
            tensorboard=self.saving.tensorboard,
        )
        if self.curve not in ("", metrics.mark):
            logger.warning(
                "'%s' was damaged: rows before step %d are missing or changed (all of them again: "
                "--fresh)", metrics.path, self.step,
            )  # fmt: skip
        return metrics

    def _begin(self, start: TrainingState, *, resume: bool) -> None:
        """Load the state to go on from into the engine."""
        found = self._latest() if resume else None
        if found and found.run_key != self.about.key:
            refusal = f"'{self.folder}' holds a run of another configuration"
            told = changes(found.settings, self.about.settings, found.step, refusal)
            logger.warning("%s  goes on with other settings: %s", self.plan.name, told)
        self.resumed = found is not None
        self.curve = found.metrics if found else ""
        state = found or start
        # Of an adapter's run the states hold the adapter alone: what is under it does not change.
        self.engine.begin({**start.weights, **state.weights}, self.plan.training)
        if state.optimizer:
            load_full_optimizer_state(self.engine.model, self.engine.optimizer, state.optimizer)
        self.step = state.step
        if found:
            logger.info("%s  goes on from step %d", self.plan.name, found.step)
            if found.versions != versions():
                logger.warning(
                    "%s  was begun with other versions of its libraries: the curve may differ in "
                    "the last digits",
                    self.plan.name,
                )
            if found.processes != self.world.size:
                logger.warning(
                    "%s  was begun by %d processes and goes on with %d: the curve differs by "
                    "rounding alone", self.plan.name, found.processes, self.world.size,
                )  # fmt: skip

    def _latest(self) -> TrainingState | None:
        """The newest whole state. The main process looks first, for it removes what is damaged."""
        parent = self.folder / "state"
        found = latest_state(parent) if self.world.is_main else None
        self.world.barrier()
        return found if self.world.is_main else latest_state(parent)

    def _updates(self) -> None:
        """Every update up to the last step, and what is due after each."""
        first, tokens = self.step, self.plan.tokens_per_step
        self.speed.skip(0)
        while self.step < self.plan.last_step:
            loss, norm = self.engine.step(self._windows(), self.plan.rate_at(self.step))
            self.step += 1
            self.pending.append((self.step, loss, norm))
            if self.step % self.saving.log_every == 0 or self.step == self.plan.last_step:
                self._fetch()
                self._log((self.step - first) * tokens)
            if self._visit_step():
                self.speed.skip((self.step - first) * tokens)

    def _windows(self) -> torch.Tensor:
        """This process's rows of the next batch, on the device."""
        begin = self.plan.sample_at(self.step)
        indices = np.arange(begin, begin + self.plan.training.batch)[self.share]
        rows = torch.from_numpy(self.about.data.windows.batch(*self.order.samples(indices)))
        if self.world.device.type == "cuda":
            return rows.pin_memory().to(self.world.device, non_blocking=True)
        return rows.to(self.world.device)

    # -- what is due at some steps -------------------------------------------------------------

    def _visit_step(self) -> bool:
        """Validate and save what is due at this step; return whether anything was."""
        plan, step = self.plan, self.step
        self.scores = {}
        at_end = step == plan.last_step
        validate = step in self.validated
        checkpoint = step in plan.checkpoints
        state = (step - plan.first_step) % self.saving.state_every == 0 or at_end
        fork = step in plan.fork_steps
        if not (validate or checkpoint or state or fork):
            return False
        self._fetch()  # nothing is saved before the losses up to here are known to be finite
        if validate:
            self._validate()
        if checkpoint or state or fork:
            self._save(checkpoint=checkpoint, state=state and step > plan.first_step, fork=fork)
        return True

    def _fetch(self) -> None:
        """Bring pending losses from the device, check and write them."""
        if not self.pending:
            return
        steps = [step for step, _, _ in self.pending]
        losses = self.world.mean(torch.stack([loss for _, loss, _ in self.pending])).tolist()
        norms = torch.stack([norm for _, _, norm in self.pending]).tolist()
        self.pending.clear()
        for step, loss, norm in zip(steps, losses, norms, strict=True):
            rate = self.plan.rate_at(step - 1)
            for what, value in (("loss", loss), ("gradient norm", norm)):
                if not math.isfinite(value):
                    self._diverged(step, f"{what} is {value}")
            if self.world.is_main:
                tokens = self.plan.sample_at(step) * self.plan.context
                values = {"loss": loss, "grad_norm": norm, "lr": rate, "tokens": tokens}
                self.metrics.write("train", step, values)
        self.last_loss = losses[-1]

    def _diverged(self, step: int, what: str) -> NoReturn:
        if self.world.is_main:
            self.metrics.flush(to_disk=True)
        states = steps_in(self.folder / "state")
        last = f"the last good state is step {states[-1]}" if states else "no state was saved yet"
        rate = self.plan.rate_at(max(step - 1, self.plan.first_step))
        raise DivergedError(
            f"run '{self.plan.name}' diverged: {what} at step {step} "
            f"(learning rate {rate:.3g}); {last}",
            hint="lower training.learning_rate, or raise training.warmup",
        )

    def _log(self, tokens: int) -> None:
        """One line, and one row of speeds."""
        speed = self.speed.look(tokens)
        if not self.world.is_main:
            return
        plan = self.plan
        self.metrics.write_timing(self.step, speed)
        self.metrics.flush()
        logger.info(
            log_line(
                plan.name, (self.step, plan.first_step, plan.last_step), self.last_loss,
                plan.rate_at(self.step - 1), speed, self.speed.rate_name, plan.tokens_per_step,
            )
        )  # fmt: skip

    def _validate(self, *, final: bool = False) -> None:
        """Bits per byte of every language, on part of its held-out text or at the end on all."""
        limit = self.saving.validation_bytes
        part: dict[str, float] = {}
        self.engine.model.eval()
        with self.engine.autocast():
            for language, everything in self.about.data.held_out.items():
                whole = everything.first_bytes(self.saving.final_bytes)
                kept = whole.first_bytes(limit)
                measured = self._bits(whole if final else kept)
                self.scores[language] = float(measured)
                count = len(kept.documents)
                part[language] = float(BitsPerByte(measured.bits[:count], kept.sizes))
                if not math.isfinite(self.scores[language]):
                    self._diverged(self.step, f"bits per byte of {language} are no number")
        self.engine.model.train()
        if self.world.is_main:
            self.metrics.write("validation", self.step, part)
            if final:
                self.metrics.write("final", self.step, self.scores)
            logger.info("%s  step %d  %s", self.plan.name, self.step, bits_text(self.scores))
        if final:
            self._judge(part)

    def _judge(self, part: Mapping[str, float]) -> None:
        """Say what ended above the unigram floor; refuse what also ended above its beginning."""
        floors = self.about.data.floors
        own = [name for name in self.plan.languages if name in floors and name in part]
        worse = [name for name in own if self.scores[name] > floors[name]]
        if not worse:
            return
        logger.warning(
            "%s  ends worse than counting tokens (%s): train longer, or change the learning rate",
            self.plan.name,
            ", ".join(f"{n} {self.scores[n]:.3f}, floor {floors[n]:.3f}" for n in worse),
        )
        rose = False
        if self.world.is_main:
            self.metrics.flush()
            rows = read_metrics(self.metrics.path)
            first = next(row for row in rows if row["kind"] == "validation")
            rose = worse == own and all(part[n] > 1.01 * first.get(n, math.inf) for n in own)
        if float(self.world.sum(torch.tensor(float(rose), device=self.world.device))):
            self._diverged(self.step, "it ends worse than it began and than counting tokens")

    def _bits(self, held_out: HeldOut) -> BitsPerByte:
        return score(
            self.engine.losses,
            held_out,
            self.plan.context,
            self.about.data.tokenizer.bos_id,
            world=self.world,
            rows=self._rows_at_once(),
            fixed_shape=self.engine.compiled,
        )

    def _rows_at_once(self) -> int | None:
        """A compiled function keeps the shape of training, so that one more graph is enough."""
        if not self.engine.compiled:
            return None
        return self.plan.training.batch // self.world.size // self.plan.training.accumulation

    def _save(self, *, checkpoint: bool, state: bool, fork: bool) -> None:
        """Write what is due; metrics first, for a resumed run trusts rows up to its state."""
        weights = full_state(self.engine.model)
        for name, tensor in weights.items():
            if not bool(torch.isfinite(tensor).all()):
                self._diverged(self.step, f"tensor '{name}' holds values that are no numbers")
        lora = self.plan.training.lora
        if self.world.is_main:
            self.metrics.flush(to_disk=True)
            target = step_folder(self.folder / "checkpoints", self.step)
            if checkpoint and not (target / PROVENANCE).exists():
                plain = merged(self.engine.model) if lora else weights
                write_model(target, plain, self.about, self.step, self.scores, "float32")
        weights = of_adapter(weights) if lora else weights
        if state or fork:
            optimizer = full_optimizer_state(self.engine.model, self.engine.optimizer)
            if self.world.is_main:
                whole = TrainingState(
                    self.step, weights, optimizer, self.about.key, versions(), self.metrics.mark,
                    self.about.settings, self.world.size,
                )  # fmt: skip
                if fork:
                    save_state(self.folder / "forks", whole, keep=None)
                if state:
                    save_state(self.folder / "state", whole)
        self.world.barrier()

    # -- the end -------------------------------------------------------------------------------

    def _finish(self) -> ModelRef | None:
        """Round the weights as they will be stored, measure them on all held-out text, write."""
        model, lora = self.engine.model, self.plan.training.lora
        held = full_state(model)
        weights = merged(model) if lora else held
        dtype = getattr(torch, self.saving.dtype)
        rounded = {name: tensor.to(dtype).float() for name, tensor in weights.items()}
        load_full_state(model, absorbed(held, rounded) if lora else rounded)
        self._validate(final=True)
        ref = None
        if self.world.is_main:
            self.metrics.flush(to_disk=True)
            if lora:
                assert self.about.parent is not None
                load_full_state(model, held)
                target = self.folder / "adapter"
                base = base_name(self.about.parent.ref, target)
                with written_aside(target) as aside:
                    write_adapter(model, of_adapter(held), aside, base, history_of(self.about))
            ref = write_model(
                self.folder, weights, self.about, self.step, self.scores, self.saving.dtype,
                self.metrics.mark,
            )  # fmt: skip
            if not self.saving.keep_state:
                remove(self.folder / "state")  # last: until here a killed run goes on from it
        self.world.barrier()
        return ref


def drop_fork(trunk: Path, step: int) -> bool:
    """Remove the states of a step that are damaged; whether there was one."""
    found = False
    for parent in ("forks", "state"):
        folder = step_folder(trunk / parent, step)
        if folder.is_dir():
            try:
                read_state(folder)
            except InputError:
                shutil.rmtree(folder)
                found = True
    return found


def fork_state(trunk: Path, step: int, *, with_optimizer: bool) -> TrainingState:
    """What a fork takes over from a finished or unfinished trunk."""
    for parent in ("forks", "state"):
        folder = step_folder(trunk / parent, step)
        if folder.is_dir():
            state = read_state(folder)
            return state if with_optimizer else dataclasses.replace(state, optimizer={})
    checkpoint = step_folder(trunk / "checkpoints", step)
    if not with_optimizer and checkpoint.is_dir():
        return TrainingState(step, read_weights(checkpoint), {}, "")
    raise InputError(
        f"run '{trunk.name}' kept no training state of step {step}",
        hint=f"train it again with this fork in the plan: --only {trunk.name} --fresh"
        + ("" if not with_optimizer else ", or fork with state: weights from a checkpoint"),
    )
