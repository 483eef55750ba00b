"""What a run trains in: the model on its device, compiled, with its optimizer; its kernels."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch

from repsim.core.errors import ResourceError, UsageError
from repsim.pretraining.adapter import attach
from repsim.pretraining.attention import stay_causal
from repsim.pretraining.build import build_model, without_weights
from repsim.pretraining.config_training import TrainingConfig
from repsim.pretraining.distributed import World
from repsim.pretraining.memory import logits_at_once
from repsim.pretraining.metrics import logger
from repsim.pretraining.optimizer import build_optimizer
from repsim.pretraining.step import Engine, NextTokenLoss


def build_engine(config: Any, training: TrainingConfig, world: World, context: int = 0) -> Engine:
    """Build for one shape (a `transformers` configuration) and one way of training."""
    on_cuda = world.device.type == "cuda"
    compiled = on_cuda if training.compile == "auto" else bool(training.compile)
    bf16 = _bf16(training, world)
    config = copy.deepcopy(config)
    model = without_weights(config) if world.shards else build_model(config, None)
    if compiled:
        stay_causal(model)
    if training.lora:
        if world.shards:
            raise UsageError("an adapter cannot be sharded", hint="train with --parallel ddp")
        model = attach(model, training.lora, 0)
    tokens = training.batch // world.size // training.accumulation * context
    pieces = logits_at_once(config, tokens, world.device)
    losses: Any = world.parallelised(NextTokenLoss(model, pieces), bf16=bf16)
    if compiled:
        losses = torch.compile(losses, fullgraph=world.size == 1, dynamic=False)
    return Engine(
        model=model,
        losses=losses,
        optimizer=build_optimizer(model, training),
        world=world,
        training=training,
        amp=bf16 and not world.shards,
        compiled=compiled,
        accumulation=training.accumulation,
    )


def _bf16(training: TrainingConfig, world: World) -> bool:
    """Whether matrix products are in bfloat16: on CUDA where the card has it, unless told."""
    if training.precision == "fp32" or world.device.type != "cuda":
        return training.precision == "bf16"
    there = torch.cuda.is_bf16_supported(including_emulation=False)
    if training.precision == "bf16" and not there:
        raise ResourceError("this card has no bfloat16", hint="training.precision: fp32, or auto")
    return there


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep Python's cycle collector from scanning the model in the middle of a run."""
    gc.collect()
    gc.freeze()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def deterministic_kernels(training: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Demand kernels that give the same bits every time. On the CPU all that are used here do."""
    if device.type != "cuda" or training.deterministic is False:
        yield
        return
    logger.info(
        "deterministic kernels cost some speed: attention by flash, not by cuDNN, and sums in a "
        "fixed order (training.deterministic: false turns them off)"
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic
    filled = deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = filled
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
