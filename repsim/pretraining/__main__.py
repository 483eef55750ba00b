"""`python -m repsim.pretraining CONFIG -o DIR`: for machines that have little, and for torchrun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from repsim.core.errors import RepsimError
from repsim.core.progress import duration
from repsim.pretraining.config import load_config
from repsim.pretraining.costs import validation_seconds
from repsim.pretraining.family import pretrain, select
from repsim.pretraining.metrics import log_to_stderr
from repsim.pretraining.parent import open_parent
from repsim.pretraining.planning import plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    log_to_stderr()
    try:
        config = load_config(options.config)
        if config.init_from:
            open_parent(config.init_from, allow_network=options.allow_network)
        if options.dry_run:
            runs = select(plan(config), options.only)
            scoring = validation_seconds(config, runs)
            for run in runs:
                sys.stdout.write(
                    f"{run.name}\t{'+'.join(run.languages)}\tsteps {run.first_step}-{run.last_step}"
                    f"\t{run.tokens:,} tokens\t{run.parameters / 1e6:.2f}M\tabout "
                    f"{duration(run.cpu_seconds + scoring[run.name])} on one core\n"
                )
            return 0
        refs = pretrain(
            config,
            options.out,
            only=options.only,
            device=options.device,
            resume=not options.fresh,
            parallel=options.parallel,
            allow_network=options.allow_network,
        )
    except RepsimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for ref in refs:
        sys.stdout.write(f"{ref.path}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m repsim.pretraining", description=__doc__)
    parser.add_argument("config", help="YAML file that describes the models")
    parser.add_argument("-o", "--out", required=True, help="folder of the family")
    parser.add_argument("--only", action="append", metavar="RUN", help="train it (repeatable)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; the accelerator if there is one")
    parser.add_argument("--parallel", choices=["ddp", "fsdp"], default="ddp")
    parser.add_argument("--allow-network", action="store_true", help="fetch what is not here")
    parser.add_argument("--fresh", action="store_true", help="train anew what is there")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
