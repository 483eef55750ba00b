"""One run: its training loop, and around each step what is measured, written and saved."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from repsim.core.aside import written_aside
from repsim.core.errors import InputError, RepsimError
from repsim.core.model_ref import ModelRef
from repsim.core.provenance import versions
from repsim.pretraining.adapter import absorbed, base_name, merged, of_adapter, write_adapter
from repsim.pretraining.checkpoint import (
    Saver,
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
    first_not_finite,
    from_main,
    full_optimizer_state,
    full_state,
    load_full_optimizer_state,
    load_full_state,
)
from repsim.pretraining.engine import deterministic_kernels, quiet_collector
from repsim.pretraining.folder import (
    MEMORY,
    PROVENANCE,
    STOPPED,
    Described,
    history_of,
    read_weights,
    remove,
    write_model,
)
from repsim.pretraining.memory import memory_errors, more_parts, ran_out
from repsim.pretraining.metrics import Metrics, Speed, bits_text, log_line, logger
from repsim.pretraining.scoring import EarlyStopping, Scores, failure, held_out_scores
from repsim.pretraining.settings import changes
from repsim.pretraining.step import Engine


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
        #: What a state keeps beside weights: parts after memory ran out, scores of validations.
        self.notes: dict[str, Any] = {}
        self.stopping: EarlyStopping | None = None
        self.best: dict[str, torch.Tensor] = {}

    # -- the whole of it -----------------------------------------------------------------------

    def train(self, start: TrainingState, *, resume: bool = True) -> ModelRef | None:
        """Train from `start`, or from the newest state of an earlier go, to the last step."""
        self._begin(start, resume=resume)
        per_token = self.plan.flops / self.plan.tokens
        self.speed = Speed(per_token, self.world.size, self.world.device)
        self.saver = Saver()
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
                self.saver.close()
                if self.world.is_main:
                    self.metrics.close()

    def _updates(self) -> None:
        """Every update up to the last step, and what is due after each."""
        first, tokens = self.step, self.plan.tokens_per_step
        self.speed.skip(0)
        while not self._at_end():
            loss, norm = self._update()
            self.step += 1
            self.pending.append((self.step, loss, norm))
            if self.step % self.saving.log_every == 0 or self.step == self.plan.last_step:
                self._fetch()
                self._log((self.step - first) * tokens)
            if self._visit_step():
                self.speed.skip((self.step - first) * tokens)

    def _at_end(self) -> bool:
        return self.step == self.plan.last_step or bool(self.stopping and self.stopping.over)

    def _update(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One step; where memory runs out, the same one again in more and smaller parts."""
        while True:
            try:
                return self.engine.step(self._windows(), self.plan.rate_at(self.step))
            except RuntimeError as error:
                rows = self.share.stop - self.share.start
                parts = more_parts(rows, self.engine.accumulation)
                if not ran_out(error) or parts is None or self.world.size > 1:
                    raise
            # Outside of the handler: its traceback would keep what has to be freed.
            self._in_parts(parts)

    def _in_parts(self, parts: int) -> None:
        """Go on with a batch in more parts, and note it."""
        logger.warning(
            "%s  memory ran out at step %d: goes on with training.accumulation %d, not %d (same "
            "batches, so the curve differs by rounding alone)",
            self.plan.name, self.step + 1, parts, self.engine.accumulation,
        )  # fmt: skip
        self.engine.accumulation = parts
        self.engine.optimizer.zero_grad(set_to_none=True)
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        note = {"step": self.step + 1, "accumulation": parts}
        self.notes[MEMORY] = [*self.notes.get(MEMORY, ()), note]

    def _windows(self) -> torch.Tensor:
        """This process's rows of the next batch, on the device."""
        begin = self.plan.sample_at(self.step)
        indices = np.arange(begin, begin + self.plan.training.batch)[self.share]
        rows = torch.from_numpy(self.about.data.windows.batch(*self.order.samples(indices)))
        if self.world.device.type == "cuda":
            return rows.pin_memory().to(self.world.device, non_blocking=True)
        return rows.to(self.world.device)

    # -- the beginning -------------------------------------------------------------------------

    def _begin(self, start: TrainingState, *, resume: bool) -> None:
        """Load the state to go on from into the engine."""
        parent = self.folder / "state"
        found: TrainingState | None = None
        if resume:
            told = TrainingState.told
            found = from_main(lambda: latest_state(parent), told=lambda s: told(s) if s else None)
        self.resumed = found is not None
        self.curve = found.metrics if found else ""
        state = found or start
        # Of an adapter's run the states hold the adapter alone: what is under it does not change.
        self.engine.begin({**start.weights, **state.weights}, self.plan.training)
        load_full_optimizer_state(self.engine.model, self.engine.optimizer, state.optimizer)
        self.step = state.step
        if found:
            self._go_on(found)
        if self.plan.training.patience:
            self.stopping = EarlyStopping(self.about, self.notes.get(STOPPED, []))

    def _go_on(self, found: TrainingState) -> None:
        """Take over what an earlier go noted, and say what is not as it was."""
        name = self.plan.name
        if found.run_key != self.about.key:
            refusal = f"'{self.folder}' holds a run of another configuration"
            told = changes(found.settings, self.about.settings, found.step, refusal)
            logger.warning("%s  goes on with other settings: %s", name, told)
        self.notes, self.best = dict(found.notes), dict(found.best)
        for note in self.notes.get(MEMORY, ()):
            self.engine.accumulation = max(self.engine.accumulation, note["accumulation"])
        logger.info("%s  goes on from step %d", name, found.step)
        if found.versions != versions():
            logger.warning(
                "%s  was begun with other versions of its libraries: the curve may differ in the "
                "last digits", name,
            )  # fmt: skip
        if found.processes != self.world.size:
            logger.warning(
                "%s  was begun by %d processes and goes on with %d: the curve differs by rounding "
                "alone", name, found.processes, self.world.size,
            )  # fmt: skip

    def _open_metrics(self) -> Metrics:
        """Metrics without the rows that will be computed again."""
        metrics = Metrics(
            self.folder,
            self.step if self.resumed else self.plan.first_step - 1,
            last_validation=self.step - 1 if self._at_end() else None,
            tensorboard=self.saving.tensorboard,
            wandb=self.saving.wandb,
        )
        if self.curve not in ("", metrics.mark):
            logger.warning(
                "'%s' was damaged: rows before step %d are missing or changed (all of them again: "
                "--fresh)", metrics.path, self.step,
            )  # fmt: skip
        return metrics

    # -- what is due at some steps -------------------------------------------------------------

    def _visit_step(self) -> bool:
        """Validate and save what is due at this step; return whether anything was."""
        plan, step = self.plan, self.step
        self.scores = {}
        at_end = step == plan.last_step
        validate = step in self.validated or (at_end and self.stopping is not None)
        checkpoint, fork = step in plan.checkpoints, step in plan.fork_steps
        state = (step - plan.first_step) % self.saving.state_every == 0 or at_end
        if not (validate or checkpoint or state or fork):
            return False
        self._fetch()  # nothing is saved before the losses up to here are known to be finite
        if validate:
            self._validate()
        state = state or self._at_end()
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
        self.saver.wait()
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

    def _scored(self, *, final: bool = False) -> Scores:
        """Bits per byte of every language, which must be numbers."""
        scores = held_out_scores(self.engine, self.about, final=final)
        for language, value in scores.asked.items():
            if not math.isfinite(value):
                self._diverged(self.step, f"bits per byte of {language} are no number")
        logger.info("%s  step %d  %s", self.plan.name, self.step, bits_text(scores.asked))
        self.scores = dict(scores.asked)
        return scores

    def _validate(self) -> None:
        """Score part of the held-out text; keep the weights if no earlier ones were better."""
        scores = self._scored()
        if self.stopping:
            if self.stopping.improved(self.step, scores.part):
                weights = full_state(self.engine.model, keep=self.world.is_main)
                self.best = of_adapter(weights) if self.plan.training.lora else weights
            self.notes[STOPPED] = [list(pair) for pair in self.stopping.scores.items()]
            if self._at_end():  # `_finish` writes the row of the weights that are kept
                return
        if self.world.is_main:
            self.metrics.write("validation", self.step, scores.part)

    def _save(self, *, checkpoint: bool, state: bool, fork: bool) -> None:
        """Copy what is due and let it be written; metrics first, for a resumed run trusts them."""
        model, lora, step = self.engine.model, self.plan.training.lora, self.step
        if name := first_not_finite(model, self.world):
            self._diverged(step, f"tensor '{name}' holds values that are no numbers")
        keep = self.world.is_main
        weights = full_state(model, keep=keep)
        optimizer = (
            full_optimizer_state(model, self.engine.optimizer, keep=keep) if state or fork else {}
        )
        if not keep:
            return
        self.metrics.flush(to_disk=True)
        plain = merged(model) if lora and checkpoint else weights
        scores, target = self.scores, step_folder(self.folder / "checkpoints", step)
        whole = TrainingState(
            step, of_adapter(weights) if lora else weights, optimizer, self.about.key, versions(),
            self.metrics.mark, self.about.settings, self.world.size, dict(self.notes), self.best,
        )  # fmt: skip

        def write() -> None:
            if checkpoint and not (target / PROVENANCE).exists():
                write_model(target, plain, self.about, step, scores, "float32")
            if fork:
                save_state(self.folder / "forks", whole, keep=None)
            if state:
                save_state(self.folder / "state", whole)

        self.saver.submit(write)

    # -- the end -------------------------------------------------------------------------------

    def _finish(self) -> ModelRef | None:
        """Round the weights as they will be stored, measure them on all held-out text, write."""
        self.saver.wait()
        model, lora, step = self.engine.model, self.plan.training.lora, self.step
        notes = {key: value for key, value in self.notes.items() if key != STOPPED}
        if self.stopping:
            notes[STOPPED] = self.stopping.told(step)
            step = self.stopping.best
            logger.info("%s  keeps the weights of step %d", self.plan.name, step)
            load_full_state(model, full_state(model, keep=self.world.is_main) | self.best)
        about = dataclasses.replace(self.about, notes=notes)
        held = full_state(model, keep=self.world.is_main)
        weights = merged(model) if lora else held
        dtype = getattr(torch, self.saving.dtype)
        rounded = {name: tensor.to(dtype).float() for name, tensor in weights.items()}
        load_full_state(model, absorbed(held, rounded) if lora else rounded)
        scores = self._scored(final=True)
        if self.world.is_main:
            self.metrics.write("validation", self.step, scores.part)
            self.metrics.write("final", self.step, scores.asked)
            self.metrics.flush(to_disk=True)
        if wrong := failure(self.engine, about, scores, str(self.folder / "metrics.jsonl")):
            self._diverged(self.step, wrong)
        ref = None
        if lora:
            load_full_state(model, held)
        if self.world.is_main:
            if lora:
                assert about.parent is not None
                target = self.folder / "adapter"
                base = base_name(about.parent.ref, target)
                with written_aside(target) as aside:
                    write_adapter(model, of_adapter(held), aside, base, history_of(about))
            ref = write_model(
                self.folder, weights, about, step, scores.asked, self.saving.dtype,
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
