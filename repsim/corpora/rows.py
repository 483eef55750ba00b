"""From what a reader found to a checked `ParallelCorpus`."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from repsim.core.corpus import ParallelCorpus
from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.corpora.text_files import check_control

#: What to do with a row in which a chosen language has no text.
Empty = Literal["drop", "refuse"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a reader is asked for."""

    location: str
    languages: Sequence[str] | None = None
    split: str | None = None
    allow_network: bool = False


@dataclasses.dataclass
class ParallelRows:
    """Aligned cells as a reader found them, not yet checked."""

    cells: dict[str, list[str]]
    ids: list[str]
    place: Callable[[str, int], str]
    source: str
    documents: list[str] = dataclasses.field(default_factory=list)
    splits: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    empty: Empty = "drop"

    def keep(self, rows: Sequence[int]) -> ParallelRows:
        """Only some rows; `place` still finds them."""
        kept = list(rows)
        place = self.place
        return dataclasses.replace(
            self,
            cells={label: [column[i] for i in kept] for label, column in self.cells.items()},
            ids=[self.ids[i] for i in kept],
            documents=[self.documents[i] for i in kept] if self.documents else [],
            splits=[self.splits[i] for i in kept] if self.splits else [],
            notes=list(self.notes),
            place=lambda label, row: place(label, kept[row]),
        )


def build_corpus(
    rows: ParallelRows,
    name: str,
    *,
    split: str | None = None,
    empty: Empty | None = None,
    deduplicate: bool = True,
) -> ParallelCorpus:
    """Check rows and make a corpus of them."""
    if split is not None:
        rows = _of_split(rows, split, name)
    elif len(set(rows.splits)) > 1:
        counts = collections.Counter(rows.splits)
        listed = ", ".join(f"{own or 'unnamed'} {count}" for own, count in counts.items())
        rows.notes.append(f"all splits together ({listed})")
    _check_ids(rows)
    rows = _without_empty(rows, empty or rows.empty, name)
    rows = _without_repeats(rows, drop=deduplicate)
    damaged = sum("\ufffd" in text for column in rows.cells.values() for text in column)
    if damaged:
        rows.notes.append(f"{damaged} sentences hold U+FFFD: text that was decoded wrongly earlier")
    return ParallelCorpus(
        name=name,
        ids=tuple(rows.ids),
        sentences={label: tuple(column) for label, column in rows.cells.items()},
        documents=tuple(
            document or own for document, own in zip(rows.documents, rows.ids, strict=True)
        )
        if rows.documents
        else (),
        source=rows.source,
        notes=tuple(rows.notes),
    )


def _of_split(rows: ParallelRows, split: str, name: str) -> ParallelRows:
    if not rows.splits:
        raise UsageError(
            f"corpus '{name}' is not divided into splits, '{split}' cannot be chosen",
            hint="leave the split out",
        )
    if split not in rows.splits:
        raise unknown_name(f"split of corpus '{name}'", split, set(rows.splits))
    return rows.keep([i for i, own in enumerate(rows.splits) if own == split])


def _check_ids(rows: ParallelRows) -> None:
    first: dict[str, int] = {}
    label = next(iter(rows.cells))
    for i, own in enumerate(rows.ids):
        if not own:
            raise InputError(f"{rows.place(label, i)}: the id is empty")
        if own in first:
            raise InputError(
                f"{rows.place(label, i)}: id '{own}' is used twice, first at "
                f"{rows.place(label, first[own])}",
                hint="every sentence needs an id of its own",
            )
        first[own] = i


def _without_empty(rows: ParallelRows, empty: Empty, name: str) -> ParallelRows:
    missing: dict[str, list[int]] = {
        label: [i for i, text in enumerate(column) if not text]
        for label, column in rows.cells.items()
    }
    if empty == "refuse":
        for label, gaps in missing.items():
            if gaps:
                raise InputError(
                    f"{rows.place(label, gaps[0])}: the sentence is empty in {label}"
                    + (f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""),
                    hint="remove that line from every language, or load with empty='drop'",
                )
    gone = set().union(*missing.values())
    if not gone:
        return rows
    total = len(rows.ids)
    if len(gone) == total:
        worst = max(missing, key=lambda label: len(missing[label]))
        raise InputError(
            f"corpus '{name}': no sentence is there in all of {', '.join(rows.cells)}",
            hint=f"choose fewer languages; {worst} lacks {len(missing[worst])} of {total}",
        )
    lacking = ", ".join(f"{label} lacks {len(gaps)}" for label, gaps in missing.items() if gaps)
    kept = rows.keep([i for i in range(total) if i not in gone])
    kept.notes.append(f"{len(gone)} of {total} rows left out: not in every language ({lacking})")
    return kept


def _without_repeats(rows: ParallelRows, *, drop: bool) -> ParallelRows:
    seen: dict[str, dict[str, int]] = {label: {} for label in rows.cells}
    repeated: dict[int, tuple[str, int]] = {}
    for i in range(len(rows.ids)):
        for label, column in rows.cells.items():
            if column[i] in seen[label]:
                repeated[i] = (label, seen[label][column[i]])
                break
        else:
            for label, column in rows.cells.items():
                seen[label][column[i]] = i
    if not repeated:
        return rows
    row, (label, earlier) = next(iter(repeated.items()))
    example = f"{rows.place(label, row)} repeats {rows.place(label, earlier)} in {label}"
    total = len(rows.ids)
    if not drop:
        rows.notes.append(
            f"{len(repeated)} of {total} rows repeat the text of an earlier one ({example}): the "
            "two are each other's nearest neighbours"
        )
        return rows
    kept = rows.keep([i for i in range(total) if i not in repeated])
    kept.notes.append(
        f"{len(repeated)} of {total} rows left out: their text repeats an earlier row ({example})"
    )
    return kept


def text_of(value: object, place: str, what: str) -> str:
    """One cell as text, outer white space removed; "" for None."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: {what} is {type(value).__name__}, not text")
    if not value.strip():
        raise InputError(f"{place}: {what} holds only white space")
    check_control(value, f"{place}, {what}")
    return value.strip()
