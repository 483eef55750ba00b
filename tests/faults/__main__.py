"""`python -m tests.faults --kills 100 --inputs 1000 --seed 0`: faults, counted.

Every case is drawn from its kind, its number and the seed alone: `--only kills:17` replays one.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.faults.cases import DEFECTS, VERDICTS, Case, table
from tests.faults.damage import damage_case
from tests.faults.forked import warm
from tests.faults.inputs import input_case
from tests.faults.kills import kill_case
from tests.faults.limits import limit_case
from tests.faults.stage import Stage
from tests.faults.together import together_case
from tests.faults.verbs import CALLS, verb_case

Draw = Callable[[Stage, int, np.random.Generator], Case]
KINDS: dict[str, Draw] = {
    "kills": kill_case, "damage": damage_case, "inputs": input_case, "limits": limit_case,
    "together": together_case, "verbs": verb_case,
}  # fmt: skip
#: Shares of `--inputs`.
SHARES = {"damage": 0.1, "limits": 0.05, "together": 0.01, "inputs": 0.84}


def main() -> int:
    """Run the campaign; exit code 1 if anything was lost, silent, a traceback or left behind."""
    options = _options()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    root = Path(tempfile.mkdtemp(prefix="repsim-faults-"))
    root.chmod(0o755)  # an unknown user may read the inputs
    warm()
    stage = Stage(root)
    cases = []
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for kind, number in _wanted(options):
        seed = [options.seed, list(KINDS).index(kind), number]
        case = KINDS[kind](stage, number, np.random.default_rng(seed))
        cases.append(case)
        if case.verdict in DEFECTS or options.verbose:
            sys.stdout.write(f"{case}\n")
            sys.stdout.flush()
    sys.stdout.write("\n" + table(cases) + "\n\n")
    sys.stdout.writelines(f"{name}: {meaning}\n" for name, meaning in VERDICTS.items())
    sys.stdout.write(f"\nseed {options.seed}; {_cost()}; replay: --only KIND:NUMBER\n")
    if options.keep:
        sys.stdout.write(f"kept: {root}\n")
    else:
        shutil.rmtree(root)
    return int(any(case.verdict in DEFECTS for case in cases))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="KIND:NUMBER", default=[])
    parser.add_argument("--verbose", action="store_true", help="print every case")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failed cases")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    if options.only:
        for name in options.only:
            kind, _, number = name.partition(":")
            yield kind, int(number)
        return
    counts = {"kills": options.kills}
    counts["verbs"] = len(CALLS) if options.inputs else 0
    counts |= {kind: round(share * options.inputs) for kind, share in SHARES.items()}
    for kind in options.kinds:
        yield from ((kind, number) for number in range(counts[kind]))


def _cost() -> str:
    own, forked = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in (own, forked))
    return f"{seconds:.0f} s of CPU, {time.perf_counter() - _STARTED:.0f} s in all"


_STARTED = time.perf_counter()
if __name__ == "__main__":
    sys.exit(main())
