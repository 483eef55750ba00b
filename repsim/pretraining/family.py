"""Training a family: every run in order, each once, each resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repsim.core.aside import locked, make_folder, sweep
from repsim.core.errors import InputError, unknown_name
from repsim.core.files import hash_json, write_json
from repsim.core.model_ref import ModelRef
from repsim.pretraining.adapter import attach
from repsim.pretraining.build import build_model, shape_from_scratch, shape_of_parent
from repsim.pretraining.checkpoint import TrainingState
from repsim.pretraining.config import FamilyConfig, load_config
from repsim.pretraining.data import FamilyData
from repsim.pretraining.distributed import Parallel, World, from_main, full_state, world
from repsim.pretraining.engine import build_engine
from repsim.pretraining.folder import PROVENANCE, Described, model_ref, read_provenance, remove
from repsim.pretraining.loop import Run, drop_fork, fork_state
from repsim.pretraining.mending import check_curve, complete, mend
from repsim.pretraining.metrics import logger
from repsim.pretraining.parent import open_parent
from repsim.pretraining.planning import RunPlan, plan
from repsim.pretraining.preparing import prepare
from repsim.pretraining.step import Engine

SCHEMA = "repsim/family/1"


def pretrain(
    config: FamilyConfig | str | Path,
    out: str | Path,
    *,
    only: Sequence[str] | None = None,
    device: str | None = None,
    resume: bool = True,
    parallel: Parallel = "ddp",
    allow_network: bool = False,
) -> list[ModelRef]:
    """Train the models of a family.

    Under torchrun all processes train one model after another together. What is complete is not
    done again; what was interrupted goes on from its newest training state, to the same bits.

    Args:
        config: The family, the YAML file that describes it, or the name of a shipped one.
        out: Folder of the family: `RUN/` for each model, tokenizers and token shards beside them.
        only: Names of runs; the trunks that they need are trained too.
        device: `cpu`, `cuda`, `cuda:1`; the accelerator if there is one.
        resume: Go on with what is there; otherwise the runs are trained anew.
        parallel: How several processes share a model: `ddp` or `fsdp`.
        allow_network: Whether the model of `init_from` and data sets may be downloaded.

    Returns:
        The models, in the order of the plan.

    Raises:
        UsageError: The configuration is not possible, or `out` holds another family's runs.
        InputError: The corpus cannot be read, or a shard or trunk is missing or damaged.
        ResourceError: The disk is full, or the device is not there.
        DivergedError: A loss became NaN or infinite.

    Example:
        >>> import tempfile
        >>> from repsim.pretraining.config import from_mapping
        >>> config = from_mapping({
        ...     "name": "tiny", "tokenizer": {"kind": "bytes"}, "training": {"steps": 2},
        ...     "corpus": {"source": "bible", "languages": ["eng_Latn"], "max_bytes": 20_000},
        ...     "architecture": {"hidden": 16, "layers": 1, "heads": 2, "context": 128},
        ...     "runs": [{"name": "eng", "languages": ["eng_Latn"], "init_seed": 1}]})
        >>> [model.name for model in pretrain(config, tempfile.mkdtemp(), device="cpu")]
        ['eng']
    """
    family = config if isinstance(config, FamilyConfig) else load_config(config)
    folder = Path(out)
    if family.init_from:
        open_parent(family.init_from, allow_network=allow_network)
    chosen = select(plan(family), only)
    with world(device, parallel) as here:
        if here.is_main:
            make_folder(folder)
            sweep(folder)
        else:
            logger.setLevel(logging.WARNING)  # one process tells
        here.barrier()
        data = prepare(family, folder, here, allow_network=allow_network)
        trainer = _Trainer(family, folder, data, here)
        refs = [trainer.run(run, resume=resume) for run in chosen]
        if here.is_main:
            write_summary(family, folder)
    return refs


def select(plans: list[RunPlan], only: Sequence[str] | None) -> list[RunPlan]:
    """The runs that are named, and the trunks that they need."""
    if only is None:
        return plans
    by_name = {run.name: run for run in plans}
    wanted: set[str] = set()
    for name in only:
        if name not in by_name:
            raise unknown_name("run", name, by_name)
        node: str | None = name
        while node is not None:
            wanted.add(node)
            node = by_name[node].fork_from
    return [run for run in plans if run.name in wanted]


class _Trainer:
    """Trains runs one after another, in one engine as long as their shape is the same."""

    def __init__(self, config: FamilyConfig, out: Path, data: FamilyData, here: World) -> None:
        self.config, self.out, self.data, self.world = config, out, data, here
        self.plans = {run.name: run for run in plan(config)}
        self.parent = open_parent(config.init_from) if config.init_from else None
        self._engine: tuple[str, Engine] | None = None

    def run(self, run: RunPlan, *, resume: bool) -> ModelRef:
        """Train one run, unless it is complete."""
        folder = self.out / run.name
        about = self._described(run)
        if resume and (known := self._complete(folder, about)):
            return known  # without the lock: forks that are trained at once share this trunk
        self.world.barrier()  # all processes have looked before one mends
        lock = locked(self.out / ".locks" / run.name, f"another process is training '{run.name}'")
        with lock if self.world.is_main else contextlib.nullcontext():
            done = self._complete(folder, about) if resume else None
            if done is None:
                self._train(about, folder, resume=resume)
        self.world.barrier()
        return done or model_ref(folder)

    def _train(self, about: Described, folder: Path, *, resume: bool) -> None:
        run = about.plan
        if self.world.is_main and resume:
            mend(folder, about)
        elif self.world.is_main:
            (folder / PROVENANCE).unlink(missing_ok=True)
            for name in ("state", "checkpoints", "forks"):
                remove(folder / name)
        self.world.barrier()
        logger.info(
            "%s  %s  %d steps, %s tokens, %.2fM parameters",
            run.name, "+".join(run.languages), run.steps, f"{run.tokens:,}", run.parameters / 1e6,
        )  # fmt: skip
        if told := about.data.read_again(run):
            logger.info("%s  %s", run.name, told)
        engine = self._engine_for(about)
        Run(about, engine, folder, self.world).train(self._start(about), resume=resume)

    def _described(self, run: RunPlan) -> Described:
        """A run with its data, key, and the size that its tokenizer really has."""
        data = self.data.of(run.languages)
        tokenizer = data.tokenizer
        shape = (
            shape_of_parent(self.parent, run.context, lora=run.training.lora is not None)
            if self.parent
            else shape_from_scratch(
                self.config.architecture,
                tokenizer.vocab_size,
                bos_token_id=tokenizer.bos_id,
                eos_token_id=tokenizer.eos_id,
            )
        )
        flops = shape.flops_per_token * run.tokens
        sized = dataclasses.replace(run, parameters=shape.parameters, flops=flops)
        key = self._settings(run, hash_json)
        settings = self._settings(run, lambda whole: whole)
        return Described(self.config, sized, data, key, shape, self.parent, settings)

    def _settings(self, run: RunPlan, tell: Callable[[dict[str, Any]], Any]) -> Any:
        """What the weights depend on, its trunk told likewise: as settings, or as their hash."""
        trunk = self.plans[run.fork_from] if run.fork_from else None
        theirs = self._settings(trunk, tell) if trunk else None
        return tell(run.settings(self.config, self.data.of(run.languages).hash, theirs))

    def _complete(self, folder: Path, about: Described) -> ModelRef | None:
        """The finished model of an earlier go."""
        if not complete(folder, about):
            return None
        logger.info("%s  is complete", about.plan.name)
        check_curve(folder)
        return model_ref(folder)

    def _start(self, about: Described) -> TrainingState:
        """Initial weights from the seed or the parent, or what the fork takes over."""
        return from_main(lambda: self._read_start(about), told=TrainingState.told)

    def _read_start(self, about: Described) -> TrainingState:
        run = about.plan
        start = TrainingState(run.first_step, {}, {}, about.key)
        if run.fork_from is None or run.training.lora:
            model = (
                self.parent.load()
                if self.parent
                else build_model(
                    about.shape.model_config,
                    run.init_seed,
                    depth_scaled=self.config.architecture.init == "depth-scaled",
                )
            )
            if run.training.lora:
                model = attach(model, run.training.lora, run.data_seed)
            start = dataclasses.replace(start, weights=full_state(model))
            if run.fork_from is None:
                return start
        trunk = self.out / run.fork_from
        with_optimizer = run.fork_state == "weights+optimizer"
        try:
            found = fork_state(trunk, run.first_step, with_optimizer=with_optimizer)
        except InputError as error:
            # Where there is none, to train the trunk again is for the user to decide.
            if self.world.size > 1 or not drop_fork(trunk, run.first_step):
                raise
            logger.warning("%s; '%s' is trained again for it", error.what, run.fork_from)
            busy = f"another process is training '{run.fork_from}'"
            with locked(self.out / ".locks" / run.fork_from, busy):
                self._train(self._described(self.plans[run.fork_from]), trunk, resume=False)
            found = fork_state(trunk, run.first_step, with_optimizer=with_optimizer)
        if run.training.lora:  # a trunk keeps the state of its adapter alone
            return dataclasses.replace(found, weights={**start.weights, **found.weights})
        return found

    def _engine_for(self, about: Described) -> Engine:
        """The engine of the run before, if the shapes are the same; else a new one."""
        training = about.plan.training
        shape = [
            about.shape.model_config.to_json_string(), training.optimizer, training.batch,
            training.accumulation, training.precision, training.compile, about.plan.context,
            training.lora.model_dump() if training.lora else None,
        ]  # fmt: skip
        key = json.dumps(shape)
        if self._engine is None or self._engine[0] != key:
            self._engine = None
            engine = build_engine(
                about.shape.model_config, training, self.world, about.plan.context
            )
            self._engine = (key, engine)
        return self._engine[1]


def write_summary(config: FamilyConfig, out: Path) -> Path:
    """Write `family.json`: the configuration, and what is known of each run's model."""
    runs: dict[str, Any] = {}
    for run in config.runs:
        known = read_provenance(out / run.name)
        if known is None:
            runs[run.name] = {"status": "not complete"}
        else:
            kept = ("role", "languages", "init_seed", "data_seed", "forked_from", "fork_step",
                    "step", "tokens", "bits_per_byte", "weights_hash")  # fmt: skip
            runs[run.name] = {"status": "complete"} | {key: known[key] for key in kept}
    document = {
        "schema": SCHEMA,
        "name": config.name,
        "config_hash": config.hash,
        "config": config.to_dict(),
        "runs": runs,
    }
    return write_json(out / "family.json", document)
