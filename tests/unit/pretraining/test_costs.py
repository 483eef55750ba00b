"""What a plan says that scoring held-out text costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repsim.pretraining.config import FamilyConfig
from repsim.pretraining.costs import (
    held_out_bytes,
    validation_seconds,
    validation_steps,
    validation_tokens,
)
from repsim.pretraining.planning import CPU_FLOPS, plan

Make = Callable[..., FamilyConfig]


def test_held_out_text_is_counted_up_to_what_is_scored(family: Make, corpus: Path) -> None:
    whole = {
        code: sum(len(text.strip().encode()) for text in
                  (corpus / f"{code}.heldout.txt").read_text(encoding="utf-8").split("\n\n"))
        for code in ("eng_Latn", "deu_Latn")
    }  # fmt: skip
    assert held_out_bytes(family()) == whole
    some = {"validation_bytes": 100, "final_bytes": 200}
    assert held_out_bytes(family(saving=some)) == dict.fromkeys(whole, 200)


def test_every_round_before_the_end_and_the_last_one_count(family: Make) -> None:
    saving = {"validation_bytes": 100, "final_bytes": 200, "validate_every": 2}
    config = family(saving=saving, tokenizer={"kind": "bytes"})
    run = plan(config)[0]
    assert list(validation_steps(run, 2)) == [0, 2, 4, 6]
    sizes = held_out_bytes(config)
    assert validation_tokens(config, run, sizes) == 2 * (4 * 100 + 200)
    seconds = validation_seconds(config, [run])["eng"]
    assert seconds == pytest.approx(1200 / 3 * run.flops / run.tokens / CPU_FLOPS)


def test_a_checkpoint_every_so_many_steps(family: Make) -> None:
    assert plan(family(saving={"checkpoints": 3}))[0].checkpoints == (0, 3, 6, 8)
