"""What the pass that activations and outputs share saves when a pair is measured (T2).

    OMP_NUM_THREADS=1 python tests/benchmarks/shared_pass.py --write

Two pairs of the zoo, two languages, 200 sentences each, nothing stored; outputs are compared on 100
of them. "Own pass": the states that extraction leaves behind are thrown away, so that outputs run
the models again. Processor seconds, medians over rounds that take turns.
"""

from __future__ import annotations

import datetime as dt
import statistics
import tempfile
import time
from unittest import mock

from similarity_grids import arguments, finish

from repsim.mergeability.features import activation_features
from repsim.mergeability.features.opened import OpenedParents
from repsim.mergeability.features.speaker import Speaker

PAIRS = (("zoo:eng-1", "zoo:deu-1"), ("zoo:eng-fork", "zoo:deu-fork"))
LANGUAGES = ("eng_Latn", "deu_Latn")
ROUNDS = 5


def measured(pair: tuple[str, str], *, shared: bool) -> float:
    """Processor seconds of T2 of a pair whose models are open."""
    listen = Speaker.listen if shared else lambda *_: None
    with (
        tempfile.TemporaryDirectory() as cache,
        OpenedParents(pair, device="cpu") as parents,
        mock.patch.object(Speaker, "listen", listen),
    ):
        assert len(parents.loaded) == 2
        started = time.process_time()
        activation_features(parents, languages=LANGUAGES, cache=cache)
        return time.process_time() - started


def main() -> None:
    """Measure, print, and keep the table if asked."""
    keep = arguments(__doc__, "not used").parse_args().write
    measured(PAIRS[0], shared=True)  # imports
    lines = ["| pair | own pass, s | shared pass, s | ratio |", "|---|---|---|---|"]
    for pair in PAIRS:
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for shared, values in found.items():
                values.append(measured(pair, shared=shared))
        own, both = (statistics.median(found[shared]) for shared in (False, True))
        named = " + ".join(name.removeprefix("zoo:") for name in pair)
        lines.append(f"| {named} | {own:.2f} | {both:.2f} | {both / own:.2f} |")
    about = f"T2 of pairs of 1.3 million parameters, {ROUNDS} rounds; {dt.date.today()}; "
    finish(about, lines, "shared_pass", keep=keep)


if __name__ == "__main__":
    main()
