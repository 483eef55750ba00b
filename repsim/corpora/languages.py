"""Language codes: what people write, and the FLORES code that is meant.

Everything in the toolkit is labelled by FLORES-200 codes: ISO 639-3 and ISO 15924, `eng_Latn`.
Files and people also write `en`, `eng`, `pt-BR` or `zh-Hans`. A code is completed only where
FLORES-200 writes that language in one script; what stays open (`zh`, `sr`) is decided by what a
corpus holds, or refused as ambiguous.

Source: NLLB Team (2022), "No Language Left Behind", arXiv:2207.04672, table 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from repsim.core.errors import InputError, UsageError

_DATA = Path(__file__).parent / "data"
# Serbian is written in two scripts, though FLORES-200 holds one: `sr` alone does not say which.
_SCRIPTS: dict[str, list[str]] = {}
for _code in (_DATA / "flores_codes.txt").read_text("utf-8").split():
    _SCRIPTS.setdefault(_code[:3], []).append(_code[4:])
# ISO 639-1, and ISO 639-3 codes that other collections use for the same language.
_ALIASES: dict[str, str] = dict(
    pair.split(":") for pair in (_DATA / "short_codes.txt").read_text("utf-8").split()
)
# Chinese as these regions print it.
_REGION_SCRIPT = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_PATTERN = re.compile(
    r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?"
    r"(?:[-_]([A-Za-z0-9]{5,8}))?"
)


class LanguageTag(NamedTuple):
    """A language code, taken apart."""

    language: str
    script: str | None
    region: str | None = None
    variant: str | None = None

    @property
    def label(self) -> str:
        """The FLORES-style code; the bare language where the script is open."""
        return "_".join(part for part in (self.language, self.script, self.variant) if part)

    def fits(self, other: LanguageTag) -> bool:
        """Whether both could mean the same text: equal wherever both say something."""
        pairs = zip(self, other, strict=True)
        return all(a == b or a is None or b is None for a, b in pairs)


def parse_language(code: str) -> LanguageTag | None:
    """Take a code apart; None if it is no language code that is known."""
    match = _PATTERN.fullmatch(code.strip())
    if match is None:
        return None
    language, script, region, variant = match.groups()
    language = _ALIASES.get(language.lower(), language.lower())
    if script is None and language not in _SCRIPTS:
        return None
    region = region.upper() if region else None
    if script is None:
        known = _SCRIPTS[language]
        script = known[0] if len(known) == 1 else None
        if script is None and language == "zho":
            script = _REGION_SCRIPT.get(region or "")
    return LanguageTag(
        language, script.title() if script else None, region, variant.lower() if variant else None
    )


def choose_languages(
    wanted: Sequence[str] | None, available: Sequence[str], *, where: str
) -> dict[str, str]:
    """Match what the user asked for with what a corpus offers."""
    if not available:
        raise InputError(
            f"{where} holds no language",
            hint="languages are named by codes such as eng_Latn, eng or en",
        )
    labels = _labels(available)
    if wanted is None:
        return labels
    chosen: dict[str, str] = {}
    for code in wanted:
        label, column = _find(code, labels, where)
        if label in chosen or column in chosen.values():
            raise UsageError(f"language {label} is asked for twice ('{code}')")
        chosen[label] = column
    if not chosen:
        raise UsageError("no language is asked for", hint=f"{where} has: {', '.join(labels)}")
    return chosen


def _labels(available: Sequence[str]) -> dict[str, str]:
    """Label -> code in the corpus; two columns that would share a label keep their own names."""
    tags = {code: parse_language(code) for code in available}
    names = {code: tag.label if tag else code for code, tag in tags.items()}
    counts = list(names.values())
    return {code if counts.count(name) > 1 else name: code for code, name in names.items()}


def unknown_language(code: str, labels: Iterable[str], where: str) -> UsageError:
    """What a corpus lacks, with the nearest that it has: by language, as scripts are much alike."""
    bare = {label: label.partition("_")[0] for label in labels}
    near = difflib.get_close_matches(code.partition("_")[0].lower(), bare.values(), n=3)
    meant = [f"'{label}'" for label, own in bare.items() if own in near]
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    some = ", ".join(list(bare)[:60]) + (f" and {len(bare) - 60} more" if len(bare) > 60 else "")
    return UsageError(f"unknown language '{code[:80]}' in {where}", hint=f"{hint}it has: {some}")


def _find(code: str, labels: dict[str, str], where: str) -> tuple[str, str]:
    """Label and column that one wanted code means."""
    for label, column in labels.items():
        if code in (label, column):
            return label, column
    tag = parse_language(code)
    fitting: dict[str, str] = {}
    if tag is not None:
        parsed = {label: parse_language(column) for label, column in labels.items()}
        fitting = {k: labels[k] for k, other in parsed.items() if other and tag.fits(other)}
        if tag.label in fitting:
            return tag.label, fitting[tag.label]
    if len(fitting) > 1:
        raise UsageError(
            f"language '{code}' is ambiguous in {where}", hint=f"one of: {', '.join(fitting)}"
        )
    if tag is None or not fitting:
        raise unknown_language(code, labels, where)
    label, column = next(iter(fitting.items()))
    # A full code names a column that leaves its script open.
    return (tag.label if label == tag.language and tag.script else label), column
