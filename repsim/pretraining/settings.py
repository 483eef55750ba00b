"""Which settings of a run may change when it goes on, and which of them did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from repsim.core.errors import UsageError
from repsim.pretraining.schedule import Schedule

#: The batches stay the same, so that the curve differs by rounding (or by that of bf16) alone.
ROUNDING = frozenset(
    f"training.{name}" for name in ("accumulation", "precision", "compile", "deterministic")
)
#: May change as long as every update so far would have had the same learning rate.
RATES = frozenset(
    f"training.{name}" for name in ("learning_rate", "schedule", "warmup", "decay", "final_rate")
)


@dataclasses.dataclass(frozen=True)
class Changes:
    """What differs from the settings of an earlier go: name -> (was, is)."""

    rounding: Mapping[str, tuple[Any, Any]]
    length: Mapping[str, tuple[Any, Any]]

    def __str__(self) -> str:
        parts = []
        if self.rounding:
            same = "same batches, so the curve differs by rounding alone"
            parts.append(f"{_told(self.rounding)} ({same})")
        if self.length:
            parts.append(f"{_told(self.length)} (every learning rate so far stays as it was)")
        return "; ".join(parts)


def changes(
    known: Mapping[str, Any], wanted: Mapping[str, Any], step: int, refusal: str, *,
    done: bool = False,
) -> Changes:  # fmt: skip
    """Settings that differ from those of an earlier go; `UsageError` if one may not."""
    if not known:
        raise UsageError(refusal, hint="choose another folder, or train it anew with --fresh")
    found = dict(_differences(json.loads(json.dumps(known)), json.loads(json.dumps(wanted))))
    rounding = {key: pair for key, pair in found.items() if _plain(key) in ROUNDING}
    if not done:
        found.pop("dtype", None)
    rest = {key: pair for key, pair in found.items() if key not in rounding}
    length = {key: pair for key, pair in rest.items() if _is_length(key, pair)}
    if other := {key: pair for key, pair in rest.items() if key not in length}:
        raise UsageError(
            f"{refusal}: {_told(other)}",
            hint="set it back, choose another folder, or train it anew with --fresh; "
            "accumulation, precision, compile and deterministic may change",
        )
    if length:
        _check_rates(known, wanted, step, f"{refusal}: {_told(length)}")
    return Changes(rounding, length)


def _plain(key: str) -> str:
    """The name of a setting, whether of the run or of a trunk."""
    while key.startswith("trunk."):
        key = key.removeprefix("trunk.")
    return key


def _is_length(key: str, pair: tuple[Any, Any]) -> bool:
    """Whether a difference is one of how long the run is, or of rates to come."""
    if key == "steps":
        (first, _, sample), (new_first, _, new_sample) = pair
        return bool((first, sample) == (new_first, new_sample))
    return key in RATES or (key.startswith("schedule.") and key != "schedule.start")


def _check_rates(
    known: Mapping[str, Any], wanted: Mapping[str, Any], step: int, refusal: str
) -> None:
    """Refuse if an update that was made would have had another learning rate, or not be there."""
    first, last, _ = wanted["steps"]
    if last < step:
        raise UsageError(refusal, hint=f"it stands at step {step} already")
    old, start = _schedule(known)
    new, _ = _schedule(wanted)
    for number in range(first, step):
        if old(number - start) != new(number - start):
            raise UsageError(
                f"{refusal}, by which the learning rate of step {number + 1} would have been "
                f"{new(number - start):.6g}, not {old(number - start):.6g}",
                hint=f"keep the warm-up at {old.warmup} steps (training.warmup: "
                f"{old.warmup / max(1, new.steps):.6g}) and let no decay begin before step {step}; "
                "or fork from the run with a schedule of its own",
            )


def _schedule(settings: Mapping[str, Any]) -> tuple[Schedule, int]:
    told = dict(settings["schedule"])
    start = int(told.pop("start"))
    return Schedule(**told), start


def _differences(
    known: Mapping[str, Any], wanted: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Dotted names of what differs, with both values."""
    for key in dict.fromkeys([*known, *wanted]):
        was, now = known.get(key), wanted.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{above}{key}.")
        elif was != now:
            yield f"{above}{key}", (was, now)


def _told(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    shown = {k: v for k, v in pairs.items() if not k.startswith("schedule.")} or pairs
    return ", ".join(f"{key} was {was}, is {now}" for key, (was, now) in shown.items())
