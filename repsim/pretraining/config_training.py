"""How to train and what to write: settings that a family shares and its runs may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from repsim.core.config import Config, Number, Switch, Whole
from repsim.core.errors import UsageError
from repsim.pretraining.stable import StableConfig

#: Of a family that starts from an existing model: tokens of a window, and training settings, where
#: none are given. Full fine-tuning takes the first rate, adapters the second.
CONTEXT = 256
GENTLE: dict[str, Any] = {"batch": 4, "weight_decay": 0.0, "warmup": 0.1, "schedule": "cosine"}
FULL_RATE, LORA_RATE = 5e-5, 2e-4
RATE = 3e-3
Every = Annotated[Whole, Field(ge=1)]


class LoraConfig(Config):
    """Low-rank adapters on linear layers (Hu et al. 2022): alpha / rank times two factors."""

    rank: Whole = Field(default=8, ge=1)
    alpha: Number = Field(default=16.0, gt=0)
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainingConfig(StableConfig):
    """How to train; `tokens` or `steps` say how long."""

    tokens: Whole | None = Field(default=None, ge=1)
    steps: Whole | None = Field(default=None, ge=1)
    batch: Whole = Field(default=16, ge=1)
    accumulation: Whole = Field(default=1, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Number = Field(default=RATE, ge=0)
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    warmup: Number = Field(default=0.02, ge=0, le=1)
    decay: Number = Field(default=0.2, ge=0, le=1)
    final_rate: Number = Field(default=0.0, ge=0, le=1)
    weight_decay: Number = Field(default=0.1, ge=0)
    beta1: Number = Field(default=0.9, ge=0, le=0.9999)
    beta2: Number = Field(default=0.95, ge=0, le=0.99999)
    epsilon: Number = Field(default=1e-8, ge=0)
    clip: Number = Field(default=1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Switch | Literal["auto"] = "auto"
    deterministic: Switch | Literal["auto"] = "auto"
    lora: LoraConfig | None = None
    patience: Whole | None = Field(default=None, ge=1)
    unsaid: ClassVar = {"lora": None, "patience": None}

    def length(self, context: int, where: str) -> int:
        """Steps of a run."""
        if (self.tokens is None) == (self.steps is None):
            raise UsageError(f"'{where}' needs one of 'tokens' and 'steps'")
        if self.steps is not None:
            return self.steps
        return max(1, round((self.tokens or 0) / (self.batch * context)))


class SavingConfig(StableConfig):
    """What a run writes, and how often (in steps)."""

    log_every: Whole = Field(default=10, ge=1)
    validate_every: Whole | None = Field(default=None, ge=1)
    state_every: Whole = Field(default=100, ge=1)
    checkpoints: Literal["log", "none"] | Every | tuple[Whole, ...] = "log"
    validation_bytes: Whole = Field(default=50_000, ge=0)
    final_bytes: Whole = Field(default=0, ge=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    tensorboard: Switch = False
    wandb: str | None = None
    keep_state: Switch = False
    license: str | None = None
    unsaid: ClassVar = {"keep_state": False, "license": None, "wandb": None}


def usual_rate(hidden: int) -> float:
    """The default learning rate from scratch: 0.003 up to a width of 256, then as 1 / width."""
    return RATE * min(1.0, 256 / hidden) if hidden else RATE


def gentle_rate(training: Mapping[str, Any]) -> dict[str, float]:
    """The default learning rate of fine-tuning."""
    return {"learning_rate": FULL_RATE if training.get("lora") is None else LORA_RATE}
