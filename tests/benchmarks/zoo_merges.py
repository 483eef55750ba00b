"""The zoo merged by every method, naive and aligned: `figures/zoo_merges.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/zoo_merges.py

Four pairs, from most to least shared history: late forks of one trunk; the same initial weights;
other initial weights; one language with two seeds. Methods on differences take the mixed model as
base.
"""

from __future__ import annotations

import datetime as dt
import platform
from pathlib import Path

from repsim.core.files import write_text
from repsim.core.provenance import versions
from repsim.studies.merge_survey import survey_merges, survey_table

PAIRS = [
    ("zoo:eng-fork", "zoo:deu-fork"),
    ("zoo:eng-1", "zoo:deu-1"),
    ("zoo:eng-1", "zoo:deu-2"),
    ("zoo:eng-1", "zoo:eng-2"),
]
OUT = Path(__file__).resolve().parents[2] / "figures"


def main() -> None:
    rows = survey_merges(PAIRS, base="zoo:mixed")
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    head = (
        "# Where merges of the zoo live and where they collapse\n\n"
        "Retention of a language: (floor - merge) / (floor - better parent) in bits per byte on "
        "60 kB of held-out text; 1 = nothing lost, 0 = no better than unigrams. A merge collapses "
        "if its worst language keeps less than half; it is useful if it beats keeping any one "
        "parent for both languages. Methods on differences take `zoo:mixed` as base.\n\n"
        f"{dt.date.today().isoformat()}, one thread of a {platform.machine()} CPU; "
        f"{libraries}. Made by `OMP_NUM_THREADS=1 python tests/benchmarks/zoo_merges.py`.\n\n"
    )
    write_text(OUT / "zoo_merges.md", head + survey_table(rows) + "\n")


if __name__ == "__main__":
    main()
