"""What became of a case, and the table of all."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

#: Verdict -> what it means. The last five are defects.
VERDICTS = {
    "survived": "the result is that of a run without the fault",
    "named": "exit 2, 3, 4, 5 or 10 with a message that says what and why",
    "lost": "what was stored is gone, or no command of the program mends it",
    "silent": "another result with exit code 0 and no word about it",
    "traceback": "an error that nobody foresaw, a crash or a hang",
    "flood": "an error longer than anybody reads",
    "untidy": "files of a dead run are still there after the next one",
}
DEFECTS = ("lost", "silent", "traceback", "flood", "untidy")


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault that was tried and what became of it; kind and number replay it."""

    kind: str
    number: int
    what: str
    verdict: str
    why: str = ""
    faults: int = 1

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}  {self.what}: {self.verdict}" + (
            f" ({self.why})" if self.why else ""
        )


def table(cases: Iterable[Case]) -> str:
    """Attempts and verdicts by kind, as Markdown."""
    counts: dict[str, collections.Counter[str]] = {}
    faults: collections.Counter[str] = collections.Counter()
    for case in cases:
        counts.setdefault(case.kind, collections.Counter())[case.verdict] += 1
        faults[case.kind] += case.faults
    total: collections.Counter[str] = sum(counts.values(), collections.Counter())
    faults["all"] = faults.total()
    lines = ["| kind | cases | faults | " + " | ".join(VERDICTS) + " |",
             "|---|" + "---:|" * (2 + len(VERDICTS))]  # fmt: skip
    for name, count in [*counts.items(), ("all", total)]:
        cells = [
            str(count.total()),
            str(faults[name]),
            *(str(count[verdict]) for verdict in VERDICTS),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
